"""A queue of work: items are handed out in order, and each one's result is recorded once.

    workqueue.py put HOSTS PATH NAME
    workqueue.py take HOSTS PATH NAME

An item is claimed by an ephemeral node, so that the claim ends with whoever made it. The item, the claim and the result are
changed in one transaction.
"""

import sys
import threading
import time

from common import connect, say, session
from kazoo.exceptions import ConnectionLoss, NodeExistsError, NoNodeError, SessionExpiredError

what, hosts, path, name = sys.argv[1:]
client = connect(hosts)
UNKNOWN = (ConnectionLoss, SessionExpiredError)  # it was done, or not


def put(item):
    while True:
        try:
            client.create(f"{path}/items/{item}", b"work")
            return
        except NodeExistsError:
            return
        except UNKNOWN:
            # It may even have been worked on by now. First items, then done: what moves is not missed.
            client.retry(client.sync, path)
            for folder in ("items", "done"):
                if client.retry(client.exists, f"{path}/{folder}/{item}"):
                    return


def claim(item):
    node = f"{path}/claims/{item}"
    try:
        client.retry(client.create, node, name.encode(), ephemeral=True)
    except NodeExistsError:
        # Perhaps by a try of ours whose reply was lost.
        stat = client.retry(client.exists, node)
        if stat is None or stat.owner_session_id != session(client):
            return False
    client.retry(client.sync, path)
    if client.retry(client.exists, f"{path}/items/{item}"):
        return True
    try:
        client.retry(client.delete, node)
    except NoNodeError:
        pass
    return False


def finish(item, claimed_in):
    """Whether the result is ours."""
    while True:
        # The claim of another session is not ours to use.
        if session(client) == claimed_in:
            transaction = client.transaction()
            transaction.delete(f"{path}/claims/{item}")
            transaction.delete(f"{path}/items/{item}")
            transaction.create(f"{path}/done/{item}", name.encode())
            try:
                results = transaction.commit()
                if not any(isinstance(result, Exception) for result in results):
                    return True
            except UNKNOWN:
                pass
        client.retry(client.sync, path)
        try:
            return client.retry(client.get, f"{path}/done/{item}")[0] == name.encode()
        except NoNodeError:
            if session(client) != claimed_in:
                return False


def take():
    more = threading.Event()
    while True:
        more.clear()
        for item in sorted(client.retry(client.get_children, f"{path}/items", watch=lambda _: more.set())):
            claimed_in = session(client)
            if claim(item):
                say(name, "took", item)
                time.sleep(0.05)
                say(name, "done" if finish(item, claimed_in) else "lost", item)
        more.wait(0.5)


try:
    for folder in ("items", "claims", "done"):
        client.retry(client.ensure_path, f"{path}/{folder}")
    if what == "take":
        take()
    number = 0
    while True:
        number += 1
        item = f"{number:010}-{name}"
        put(item)
        say(name, "put", item)
        time.sleep(0.1)
finally:
    client.stop()
