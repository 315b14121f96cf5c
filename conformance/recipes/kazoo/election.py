"""Master election: of all who stand, one is the master at a time, and another takes over when it is gone.

    election.py HOSTS PATH NAME STORAGE
"""

import sys
import threading
import time

from common import Stale, Storage, connect, say, session
from kazoo.client import KazooState

hosts, path, name, storage = sys.argv[1:]
storage = Storage(storage)
client = connect(hosts)
election = client.Election(path, name)
doubt = threading.Event()


@client.add_listener
def connection_changed(state):
    # Without a connection nobody tells us that we have been replaced: stop at once, before the session can expire.
    if state != KazooState.CONNECTED:
        doubt.set()


def lead():
    doubt.clear()
    # The zxid that created our node is the term: every later master has a higher one, whatever happens to PATH.
    client.retry(client.sync, path)
    stat = client.retry(client.exists, f"{path}/{election.lock.node}")
    if stat is None or stat.owner_session_id != session(client):
        return
    token = stat.czxid
    say(name, "master", token)
    try:
        while not doubt.is_set():
            storage.write(token, name)
            time.sleep(0.05)
    except Stale:
        pass
    say(name, "deposed", token)


try:
    while True:
        election.run(lead)
finally:
    client.stop()
