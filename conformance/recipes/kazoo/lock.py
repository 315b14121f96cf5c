"""A distributed lock with a fencing token.

    lock.py HOSTS PATH NAME STORAGE
"""

import sys
import time

from common import Stale, Storage, connect, say, session

hosts, path, name, storage = sys.argv[1:]
storage = Storage(storage)
client = connect(hosts)

try:
    while True:
        lock = client.Lock(path, name)
        lock.acquire()
        # Ours only if it belongs to the session we have now, as the leader sees it.
        client.retry(client.sync, path)
        stat = client.retry(client.exists, f"{path}/{lock.node}")
        if stat is not None and stat.owner_session_id == session(client):
            token = stat.czxid
            say(name, "locked", token)
            try:
                for _ in range(4):
                    storage.write(token, name)
                    time.sleep(0.04)
                say(name, "unlocked", token)
            except Stale:
                say(name, "lost", token)
        lock.release()
        time.sleep(0.02)
finally:
    client.stop()
