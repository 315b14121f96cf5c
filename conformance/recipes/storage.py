"""The storage that the programs write to under their lock: a socket that takes `TOKEN TEXT` and answers `ok` or `stale`.

It refuses a token lower than the highest it has seen, and keeps a list of all that was asked of it.
"""

import socket
import threading


class Storage:
    def __init__(self, path):
        self.path, self.lock, self.highest, self.asked = path, threading.Lock(), -1, []
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(path)
        self.socket.listen(64)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self.answer, args=(connection,), daemon=True).start()

    def answer(self, connection):
        with connection, connection.makefile("r") as lines:
            try:
                for line in lines:
                    token, _, name = line.strip().partition(" ")
                    connection.sendall(b"ok\n" if self.write(int(token), name) else b"stale\n")
            except OSError:
                pass

    def write(self, token, name):
        with self.lock:
            taken = token >= self.highest
            self.highest = max(self.highest, token)
            self.asked.append((token, name, taken))
            return taken

    def close(self):
        self.socket.close()
