"""The configurations in which both servers are asked."""

from dataclasses import dataclass

from steps import SUPER, hashed

# Nothing happens by itself: containers and TTL nodes stay, sessions live long enough.
STILL = "-Dznode.container.checkIntervalMs=86400000"


@dataclass
class Configuration:
    name: str
    flags: tuple = ()
    lines: tuple = ()
    max_buffer: int = 0xFFFFF
    sizes: tuple = (2000, 20000)
    digest: str = "sha1"
    super_user: bool = True
    forces_auth: bool = False
    words: float = 1.5
    whitelist: str = "*"
    quotas: float = 20  # of a hundred sequences, those that begin with one

    def all_flags(self):
        flags = [STILL, *self.flags]
        if self.super_user:
            flags.append(f"-Dzookeeper.DigestAuthenticationProvider.superDigest={hashed(*SUPER, self.digest)}")
        return flags

    def all_lines(self):
        return ["tickTime=2000", f"4lw.commands.whitelist={self.whitelist}", *self.lines]


CONFIGURATIONS = [
    Configuration("default"),
    Configuration("extended-types", ("-Dzookeeper.extendedTypesEnabled=true",)),
    Configuration("quota", ("-Dzookeeper.enforceQuota=true",), quotas=80),
    Configuration("skip-acl", ("-Dzookeeper.skipACL=yes",)),
    Configuration("small-buffer", ("-Djute.maxbuffer=4096",), max_buffer=4096, sizes=(3900, 4000, 4030, 4040, 4050, 4060, 4096, 5000)),
    Configuration("no-super", super_user=False),
    Configuration("sha-256", ("-Dzookeeper.DigestAuthenticationProvider.digestAlg=SHA-256",), digest="sha256"),
    Configuration(
        "forced-auth", ("-Dzookeeper.enforce.auth.enabled=true", "-Dzookeeper.enforce.auth.schemes=digest"), forces_auth=True
    ),
    Configuration("no-digest", ("-Dzookeeper.DigestAuthenticationProvider.enabled=false",), super_user=False),
    Configuration("reconfig", ("-Dzookeeper.reconfigEnabled=true",), ("reconfigEnabled=true",)),
    Configuration("session-limits", ("-Dzookeeper.closeSessionTxn.enabled=false",), ("minSessionTimeout=7000", "maxSessionTimeout=41000")),
    Configuration("few-words", ("-Dreadonlymode.enabled=true",), whitelist="srvr, mntr", words=12),
    Configuration("ttl-353", ("-Dzookeeper.extendedTypesEnabled=true", "-Dzookeeper.emulate353TTLNodes=true")),
    Configuration("large", sizes=(1048575 - 60, 1048575 - 56, 1048575 - 53, 1048575 - 50, 1048575, 1100000)),
]
