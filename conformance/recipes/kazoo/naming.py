"""A naming service: each name is given once, and later names are higher.

    naming.py HOSTS PATH NAME
"""

import sys
import time
import uuid

from common import connect, say
from kazoo.exceptions import ConnectionLoss, SessionExpiredError

hosts, path, name = sys.argv[1:]
client = connect(hosts)


def new_name():
    """The number of a new sequential node. A random prefix finds it again if the reply to its creation was lost."""
    prefix = f"{uuid.uuid4().hex}-"
    while True:
        try:
            return client.create(f"{path}/{prefix}", name.encode(), sequence=True)[-10:]
        except (ConnectionLoss, SessionExpiredError):
            # The server we are at now may not have what the other one did: sync first.
            client.retry(client.sync, path)
            for node in client.retry(client.get_children, path):
                if node.startswith(prefix):
                    return node[-10:]


try:
    client.retry(client.ensure_path, path)
    while True:
        say(name, "named", new_name())
        time.sleep(0.1)
finally:
    client.stop()
