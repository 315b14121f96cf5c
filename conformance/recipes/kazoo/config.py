"""Configuration: whoever publishes replaces a node's data, and every subscriber gets the newest.

    config.py publish HOSTS PATH NAME
    config.py subscribe HOSTS PATH NAME
"""

import sys
import threading
import time

from common import connect, say
from kazoo.exceptions import BadVersionError, ConnectionLoss, SessionExpiredError

what, hosts, path, name = sys.argv[1:]
client = connect(hosts)


def publish():
    client.retry(client.ensure_path, path)
    while True:
        data, stat = client.retry(client.get, path)
        number = int(data or 0) + 1
        try:
            # Only on top of what was read: a publisher that was away does not undo what another wrote.
            client.set(path, str(number).encode(), version=stat.version)
        except BadVersionError:
            continue
        except (ConnectionLoss, SessionExpiredError):
            # It may have been written or not: the next round reads.
            continue
        say(name, "published", number)
        time.sleep(0.1)


def subscribe():
    newest = 0

    @client.DataWatch(path)
    def changed(data, stat):
        nonlocal newest
        if stat is None or not data:
            return
        # A session is never shown the past; a new session, at a server that lags, may be.
        if stat.mzxid < newest:
            say(name, "older", data.decode())
        elif stat.mzxid > newest:
            newest = stat.mzxid
            say(name, "saw", data.decode())

    threading.Event().wait()


try:
    {"publish": publish, "subscribe": subscribe}[what]()
finally:
    client.stop()
