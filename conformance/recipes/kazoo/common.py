"""What the programs here share: how they connect, print, end, and write to a storage that is fenced."""

import signal
import socket
import sys
import time

from kazoo.client import KazooClient
from kazoo.retry import KazooRetry

SESSION = 6.0  # seconds


def connect(hosts):
    """A client that never gives up: a lost connection is tried again for ever, and so is a command that may be."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    retry = {"max_tries": -1, "delay": 0.05, "max_delay": 0.5}
    client = KazooClient(
        hosts, timeout=SESSION, connection_retry=KazooRetry(**retry), command_retry=KazooRetry(**retry)
    )
    client.start(timeout=60)
    return client


def session(client):
    """The id of the present session; waits while there is none."""
    while True:
        identity = client.client_id
        if identity is not None:
            return identity[0]
        time.sleep(0.02)


def say(*words):
    # In one piece, so that the lines of several processes do not mix.
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


class Stale(Exception):
    """The storage has seen a higher token: whoever writes has been replaced."""


class Storage:
    """What a lock protects. It remembers the highest token it was shown, and refuses a lower one."""

    def __init__(self, address):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(address)
        self.answers = self.socket.makefile("r")

    def write(self, token, text):
        self.socket.sendall(f"{token} {text}\n".encode())
        if self.answers.readline() != "ok\n":
            raise Stale
