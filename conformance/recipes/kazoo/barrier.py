"""A double barrier: nobody starts before all have come, nobody goes on before all have finished. Round after round.

    barrier.py HOSTS PATH NAME SIZE ROUND

kazoo's own DoubleBarrier waits for ever when its session expires, or when it comes back from a lost connection to find that
others have left already. This one does not delete `ready`, and looks at the nodes again after whatever event.
"""

import sys
import threading
import time

from common import connect, say, session
from kazoo.exceptions import NodeExistsError, NoNodeError

hosts, path, name, size, number = sys.argv[1:]
size, number = int(size), int(number)
client = connect(hosts)


class Expelled(Exception):
    """Our session expired: to the others we are gone."""


class DoubleBarrier:
    def __init__(self, path):
        self.path, self.node = path, f"{path}/in/{name}"
        self.session = None
        self.event = threading.Event()

    def wake(self, *_):
        self.event.set()

    def wait(self):
        # Events of a session that is lost do not come: look again now and then.
        self.event.wait(1)
        self.event.clear()

    def enter(self):
        client.retry(client.ensure_path, f"{self.path}/in")
        while True:
            try:
                client.retry(client.create, self.node, ephemeral=True)
            except NodeExistsError:
                pass
            stat = client.retry(client.exists, self.node)
            if stat and stat.owner_session_id == session(client):
                self.session = stat.owner_session_id
            if client.retry(client.exists, f"{self.path}/ready", watch=self.wake):
                return
            inside = client.retry(client.get_children, f"{self.path}/in")
            if self.session == session(client) and len(inside) >= size:
                client.retry(client.ensure_path, f"{self.path}/ready")
                return
            self.wait()

    def leave(self):
        try:
            client.retry(client.delete, self.node)
        except NoNodeError:
            pass
        if self.session != session(client):
            raise Expelled
        while client.retry(client.get_children, f"{self.path}/in", watch=self.wake):
            self.wait()


try:
    while True:
        barrier = DoubleBarrier(f"{path}/{number:010}")
        say(name, "arrives", number)
        barrier.enter()
        say(name, "enters", number)
        time.sleep(0.1)
        say(name, "leaves", number)
        try:
            barrier.leave()
            say(name, "left", number)
        except Expelled:
            say(name, "expelled", number)
        number += 1
finally:
    client.stop()
