"""HBase on ZooKeeper: two masters and two region servers as processes of their own, a table that is written to all the time,
and each kind of server killed in turn, ZooKeeper's too. What counts at the end is that no acknowledged row is lost.

The root folder is a plain local one, without Hadoop's checksums on top: those do not promise that what was flushed is in the
file when a region server is killed.
"""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from scenario import Broken, Driver, Jvm, Servers, main, until  # noqa: E402
from servers import free_port  # noqa: E402

TABLE = "letters"
ROOT = "/hbase-conformance"
SESSION_MILLIS = 12_000
OPENS = ["java.base/java.lang", "java.base/java.lang.reflect", "java.base/java.nio", "java.base/java.util", "java.base/sun.nio.ch",
         "java.base/java.util.concurrent", "java.base/jdk.internal.ref"]  # fmt: skip


class HBase:
    def __init__(self, args, members):
        self.args = args
        self.servers = Servers(args.server, os.path.join(args.work, "ensemble"), members, ways=("master-1", "master-2"))
        self.masters = [self.jvm(f"master-{number}", "org.apache.hadoop.hbase.master.HMaster") for number in (1, 2)]
        self.region_servers = [
            self.jvm(f"region-server-{number}", "org.apache.hadoop.hbase.regionserver.HRegionServer") for number in (1, 2)
        ]
        self.driver = Driver("client", self.java(self.configure("client"), "256m", "HBaseDriver"), args.work)

    def settings(self, name, port):
        yield "hbase.cluster.distributed", "true"
        yield "hbase.rootdir", f"file://{self.args.work}/root"
        yield "hbase.tmp.dir", f"{self.args.work}/tmp"
        yield "fs.file.impl", "org.apache.hadoop.fs.RawLocalFileSystem"
        yield "hbase.unsafe.stream.capability.enforce", "false"
        yield "hbase.wal.provider", "filesystem"
        yield "hbase.zookeeper.quorum", self.servers.address_for(name)
        yield "hbase.zookeeper.property.clientPort", str(self.servers.members[0].port)
        yield "zookeeper.znode.parent", ROOT
        yield "zookeeper.session.timeout", str(SESSION_MILLIS)
        yield "hbase.client.registry.impl", "org.apache.hadoop.hbase.client.ZKConnectionRegistry"
        for role in ("master", "regionserver"):
            yield f"hbase.{role}.port", str(port)
            yield f"hbase.{role}.info.port", "-1"
            yield f"hbase.{role}.ipc.address", "127.0.0.1"
        yield "hbase.master.hostname", "localhost"
        yield "hbase.unsafe.regionserver.hostname", "localhost"
        yield "hbase.regionserver.handler.count", "6"
        yield "hbase.regionserver.metahandler.count", "4"
        yield "hbase.netty.worker.count", "2"
        yield "hbase.hregion.memstore.flush.size", str(16 << 20)
        yield "hfile.block.cache.size", "0.2"
        # A new master waits for both region servers, and not long for one that is gone.
        yield "hbase.master.wait.on.regionservers.mintostart", "1"
        yield "hbase.master.wait.on.regionservers.maxtostart", "2"
        yield "hbase.master.wait.on.regionservers.timeout", "4000"
        yield "hbase.master.wait.on.regionservers.interval", "500"
        # The client waits for whom is elected; how long is for the cases to say.
        yield "hbase.client.retries.number", "60"
        yield "hbase.client.pause", "100"
        yield "hbase.client.operation.timeout", "100000"
        yield "hbase.client.meta.operation.timeout", "100000"
        yield "hbase.rpc.timeout", "10000"

    def configure(self, name, port=0):
        folder = os.path.join(self.args.work, "conf", name)
        os.makedirs(folder)
        with open(os.path.join(folder, "hbase-site.xml"), "w", encoding="utf-8") as out:
            out.write("<configuration>\n")
            for key, value in self.settings(name, port):
                out.write(f"<property><name>{key}</name><value>{value}</value></property>\n")
            out.write("</configuration>\n")
        return folder

    def java(self, conf, heap, *words):
        log4j = os.path.join(os.path.dirname(os.path.abspath(__file__)), "log4j.properties")
        flags = [f"-Xmx{heap}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", f"-Dlog4j.configuration=file:{log4j}"]
        flags += [f"--add-opens={package}=ALL-UNNAMED" for package in OPENS]
        return [self.args.java, *flags, "-cp", f"{conf}:{self.args.classes}:{self.args.lib}/*", *words]

    def jvm(self, name, main):
        port = free_port()
        jvm = Jvm(name, self.java(self.configure(name, port), "384m", main, "start"), self.args.work)
        jvm.port = port
        return jvm

    def start(self):
        self.servers.start()

    def stop(self):
        for process in [self.driver, *self.masters, *self.region_servers]:
            if process.is_running:
                process.kill()
        self.servers.stop()

    def status(self):
        """The active master, the backups and the region servers, by port; the region servers also with their full names."""
        master, backups, names = self.driver.ask("status").split("|")
        found = {int(name.split(",")[1]): name for name in names.split()}
        return int(master), {int(port) for port in backups.split(",") if port}, found

    def active(self):
        port = self.status()[0]
        return next(master for master in self.masters if master.port == port)

    def elected(self):
        """The active master for a client that has only just come: one that knows a master keeps to it while it answers."""
        self.driver.ask("reconnect")
        return self.active()

    def regions(self, table=TABLE):
        """Start key to the port of the server that has the region."""
        pairs = (word.rsplit("@", 1) for word in self.driver.ask("regions", table).split())
        return {start: int(port) for start, port in pairs}

    def await_members(self, masters, region_servers, seconds=150):
        def check():
            for process in [*masters, *region_servers]:
                process.expect_running()
            active, backups, found = self.status()
            return {active} | backups == {m.port for m in masters} and set(found) == {r.port for r in region_servers}

        until(f"{len(masters)} masters and {len(region_servers)} region servers", check, seconds)

    def move(self, start, port, seconds=120):
        """Asked for again while it is not there: a region server that has only just registered refuses it."""

        def check():
            if self.regions().get(start) == port:
                return True
            servers = self.status()[2]
            if port not in servers:
                raise Broken(f"no region server at {port}, but at {sorted(servers)}")
            self.driver.ask("move", TABLE, start, servers[port])
            return self.regions().get(start) == port

        until(f"the region from {start} on at its new place", check, seconds, every=1.0)

    def written(self):
        return int(self.driver.ask("written"))

    def expect_progress(self, rows=100, seconds=120):
        before = self.written()
        until(f"{rows} more rows acknowledged", lambda: self.written() >= before + rows, seconds, every=0.1)

    def verify(self):
        owed, found, missing, wrong = (int(word) for word in self.driver.ask("verify", TABLE).split())
        if missing or wrong or owed == 0:
            raise Broken(f"of {owed} acknowledged rows {missing} are missing; {wrong} of {found} rows are wrong")

    def expect_same_sessions(self):
        """Whoever was not killed has not lost its session: a server that does ends itself."""
        for process in [*self.masters, *self.region_servers]:
            process.expect_running()
            if process.logged("Session expired"):
                raise Broken(f"the session of {process.name} expired")


def masters_and_region_servers_register(hbase):
    for process in [*hbase.masters, *hbase.region_servers]:
        process.start()
    hbase.driver.start()
    hbase.await_members(hbase.masters, hbase.region_servers)


def creates_a_table(hbase):
    hbase.driver.ask("balancer", "false")
    hbase.driver.ask("create", TABLE, "40", "80", "c0")
    until("four regions", lambda: len(hbase.regions()) == 4)
    # A region server that has only just registered was given none.
    for start, server in zip(("-", "40", "80", "c0"), 2 * hbase.region_servers):
        hbase.move(start, server.port)


def puts_gets_scans_and_deletes(hbase):
    hbase.driver.ask("put", TABLE, 1000)
    hbase.verify()
    if hbase.driver.ask("get", TABLE, 7) != "7":
        raise Broken("row 7 cannot be read")
    if hbase.driver.ask("delete", TABLE, 7) != "none":
        raise Broken("row 7 is there after it was deleted")
    hbase.driver.ask("flush", TABLE)
    hbase.verify()


def splits_and_merges_a_region(hbase):
    hbase.driver.ask("split", TABLE, "60")
    until("a region from 60 on", lambda: "60" in hbase.regions() and len(hbase.regions()) == 5)
    hbase.verify()
    hbase.driver.ask("merge", TABLE, "80", "c0")
    until("one region from 80 on", lambda: "c0" not in hbase.regions() and len(hbase.regions()) == 4)
    hbase.verify()


def moves_a_region(hbase):
    hbase.driver.ask("balancer", "false")
    moves_and_moves_back(hbase)
    hbase.verify()


def writes_all_the_time(hbase):
    hbase.driver.ask("write", TABLE)
    hbase.expect_progress()


def the_backup_takes_over_from_a_killed_master(hbase):
    active = hbase.active()
    backup = next(master for master in hbase.masters if master is not active)
    active.kill()
    until("the backup leads", lambda: hbase.active() is backup, 150)
    hbase.await_members([backup], hbase.region_servers)
    # It does what a master does.
    hbase.driver.ask("create", "second")
    until("a region of the new table", lambda: len(hbase.regions("second")) == 1)
    hbase.expect_progress()
    active.start()
    hbase.await_members(hbase.masters, hbase.region_servers)


def regions_of_a_killed_region_server_are_served_elsewhere(hbase):
    port = hbase.regions()["40"]
    victim = next(server for server in hbase.region_servers if server.port == port)
    other = next(server for server in hbase.region_servers if server is not victim)
    victim.kill()
    until("all regions on the other server", lambda: len(hbase.regions()) == 4 and set(hbase.regions().values()) == {other.port}, 150)
    hbase.expect_progress()
    hbase.verify()
    victim.start()
    hbase.await_members(hbase.masters, hbase.region_servers)
    hbase.move("40", port)


def goes_on_when_zookeeper_is_killed_and_back(hbase):
    """With one server: kill -9, and everybody's session is still there when it is back."""
    hbase.servers.kill_and_bring_back(hbase.servers.leader())
    hbase.expect_progress()
    moves_and_moves_back(hbase)
    hbase.expect_same_sessions()


def a_master_is_killed_while_zookeeper_is_down(hbase):
    """The only server: no backup can lead before it is back. Rows are written to regions that the client knows."""
    server, active = hbase.servers.leader(), hbase.active()
    backup = next(master for master in hbase.masters if master is not active)
    server.kill()
    active.kill()
    hbase.expect_progress()
    hbase.servers.bring_back(server)
    until("the backup leads", lambda: hbase.active() is backup, 150)
    moves_and_moves_back(hbase)
    hbase.expect_progress()
    active.start()
    hbase.await_members(hbase.masters, hbase.region_servers)


def moves_and_moves_back(hbase):
    """A move needs the master, both region servers and the client to agree through ZooKeeper on where things are."""
    home = hbase.regions()["40"]
    away = next(server.port for server in hbase.region_servers if server.port != home)
    hbase.move("40", away)
    hbase.move("40", home)


def goes_on_without_zookeepers_leader(hbase):
    def meanwhile():
        hbase.expect_progress()
        moves_and_moves_back(hbase)

    hbase.servers.kill_and_bring_back(hbase.servers.leader(), meanwhile)
    hbase.expect_progress()
    hbase.expect_same_sessions()


def goes_on_without_a_follower(hbase):
    def meanwhile():
        hbase.expect_progress()
        moves_and_moves_back(hbase)

    hbase.servers.kill_and_bring_back(hbase.servers.follower(), meanwhile)
    hbase.expect_progress()
    hbase.expect_same_sessions()


def goes_on_through_a_rolling_restart(hbase):
    hbase.servers.rolling_restart(hbase.expect_progress)
    moves_and_moves_back(hbase)
    hbase.expect_same_sessions()


def goes_on_when_the_leader_stands_still(hbase):
    hbase.servers.suspend_leader()
    hbase.expect_progress()
    moves_and_moves_back(hbase)
    hbase.expect_same_sessions()


def goes_on_when_the_leader_is_cut_off(hbase):
    """The active master is at the leader that the others no longer hear."""
    active = hbase.active()

    def meanwhile():
        hbase.expect_progress()
        moves_and_moves_back(hbase)
        if hbase.active() is not active:
            raise Broken("another master leads")

    hbase.servers.cut_off_leader(f"{ROOT}/master", meanwhile)
    hbase.expect_progress()
    hbase.expect_same_sessions()
    hbase.verify()


def the_backup_takes_over_from_a_master_that_is_cut_off(hbase):
    """From ZooKeeper alone: it runs on, and cannot know that it has been replaced. Told so, it ends itself."""
    active = hbase.active()
    backup = next(master for master in hbase.masters if master is not active)
    with hbase.servers.cut_off_client(active.name):
        until("the backup leads", lambda: hbase.elected() is backup, 150, every=1.0)
        hbase.expect_progress()
    if active.wait(60) == 0 or not active.logged("ABORTING master"):
        raise Broken(f"{active.name} ended as if nothing had happened")
    # The region servers report to the new one now.
    hbase.await_members([backup], hbase.region_servers)
    moves_and_moves_back(hbase)
    hbase.expect_progress()
    hbase.verify()
    active.start()
    hbase.await_members(hbase.masters, hbase.region_servers)


def a_master_and_the_leader_are_killed_together(hbase):
    leader, active = hbase.servers.leader(), hbase.active()
    backup = next(master for master in hbase.masters if master is not active)
    active.kill()
    leader.kill()
    hbase.servers.leader(without=leader)
    until("the backup leads", lambda: hbase.active() is backup, 150)
    hbase.expect_progress()
    hbase.servers.bring_back(leader)
    active.start()
    hbase.await_members(hbase.masters, hbase.region_servers)


def a_region_server_and_the_leader_are_killed_together(hbase):
    leader, port = hbase.servers.leader(), hbase.regions()["40"]
    victim = next(server for server in hbase.region_servers if server.port == port)
    victim.kill()
    leader.kill()
    hbase.servers.leader(without=leader)
    until("all regions on the other server", lambda: len(hbase.regions()) == 4 and port not in hbase.regions().values(), 150)
    hbase.expect_progress()
    hbase.servers.bring_back(leader)
    victim.start()
    hbase.await_members(hbase.masters, hbase.region_servers)


def no_acknowledged_row_is_lost(hbase):
    hbase.driver.ask("stop-writing")
    hbase.verify()


def drops_a_table(hbase):
    if hbase.driver.ask("drop", "second") != "false":
        raise Broken("the table is still there")


def shuts_down(hbase):
    hbase.driver.ask("shutdown")
    begun = time.monotonic()
    for process in [*hbase.region_servers, *hbase.masters]:
        status = process.wait(max(1, 60 - (time.monotonic() - begun)))
        if status != 0:
            raise Broken(f"{process.name} ended with status {status}")


QUICK = [
    masters_and_region_servers_register,
    creates_a_table,
    puts_gets_scans_and_deletes,
    splits_and_merges_a_region,
    moves_a_region,
    writes_all_the_time,
    the_backup_takes_over_from_a_killed_master,
    regions_of_a_killed_region_server_are_served_elsewhere,
    goes_on_when_zookeeper_is_killed_and_back,
    no_acknowledged_row_is_lost,
    drops_a_table,
    shuts_down,
]
FULL = [
    *QUICK[:8],
    goes_on_without_zookeepers_leader,
    goes_on_without_a_follower,
    goes_on_through_a_rolling_restart,
    goes_on_when_the_leader_stands_still,
    goes_on_when_the_leader_is_cut_off,
    a_master_and_the_leader_are_killed_together,
    a_region_server_and_the_leader_are_killed_together,
    # Behind the last that asks whether a session expired.
    the_backup_takes_over_from_a_master_that_is_cut_off,
    *QUICK[9:],
]
ALONE = [
    *QUICK[:3],
    writes_all_the_time,
    goes_on_when_zookeeper_is_killed_and_back,
    a_master_is_killed_while_zookeeper_is_down,
    no_acknowledged_row_is_lost,
    shuts_down,
]


if __name__ == "__main__":
    main(__doc__, HBase, QUICK, FULL, ALONE)
