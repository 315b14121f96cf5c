"""Membership of a group of workers: each knows who else is there.

    members.py HOSTS PATH NAME
"""

import sys
import threading
import time

from common import connect, say, session
from kazoo.client import KazooState
from kazoo.exceptions import NodeExistsError

hosts, path, name = sys.argv[1:]
client = connect(hosts)
rejoin = threading.Event()
rejoin.set()


@client.add_listener
def connection_changed(state):
    # The session that held our node is over; with the next one we join again.
    if state == KazooState.LOST:
        rejoin.set()


def join():
    node = f"{path}/{name}"
    while True:
        try:
            client.retry(client.create, node, ephemeral=True, makepath=True)
            return
        except NodeExistsError:
            # Either an earlier try of ours, or left by a former process of this name, whose session has yet to end.
            stat = client.retry(client.exists, node)
            if stat and stat.owner_session_id == session(client):
                return
            time.sleep(0.2)


try:
    client.retry(client.ensure_path, path)

    @client.ChildrenWatch(path)
    def changed(workers):
        say(name, "sees", ",".join(sorted(workers)))

    while True:
        rejoin.wait()
        rejoin.clear()
        join()
finally:
    client.stop()
