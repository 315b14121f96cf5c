"""Records TCP streams on loopback without standing between the peers.

A packet socket (root, or CAP_NET_RAW) sees every segment; streams are put together by sequence number. Nothing is
proxied, so servers may advertise their own addresses to each other, as an ensemble does.
"""

import collections
import socket
import struct
import threading
import time

PACKET_OUTGOING = 4
ETH_P_ALL = 3


class Stream:
    """One direction of one connection."""

    def __init__(self, source, target, begun):
        self.source, self.target, self.begun = source, target, begun
        self.data = bytearray()
        self.next_seq = None
        self.waiting = {}
        self.marks = []  # (offset in data, time) of each segment, to order what two directions say

    def add(self, seq, payload, when):
        if self.next_seq is None:
            self.next_seq = seq
        self.waiting[seq] = payload
        while self.next_seq in self.waiting:
            payload = self.waiting.pop(self.next_seq)
            self.marks.append((len(self.data), when))
            self.data += payload
            self.next_seq = (self.next_seq + len(payload)) & 0xFFFFFFFF

    def time_at(self, offset):
        """When the byte at this offset was sent."""
        found = self.begun
        for start, when in self.marks:
            if start > offset:
                break
            found = when
        return found


class Sniffer:
    """Collects what is sent from or to some ports of 127.0.0.1 while it is open."""

    def __init__(self, ports):
        self.ports = set(ports)
        self.connections = []  # (client to server, server to client), in the order they began
        self.open = {}
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 20)
        self.socket.bind(("lo", 0))
        self.socket.settimeout(0.2)
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.types = collections.Counter()

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        time.sleep(0.5)
        self.stopping.set()
        self.thread.join()
        self.socket.close()

    def _run(self):
        while not self.stopping.is_set():
            try:
                packet, address = self.socket.recvfrom(1 << 18)
            except TimeoutError:
                continue
            # On loopback every packet is seen twice: as it leaves and as it arrives.
            if address[2] == PACKET_OUTGOING:
                self._packet(packet)

    def _packet(self, packet):
        if packet[0] >> 4 == 4 and packet[9] == socket.IPPROTO_TCP:
            header_len = (packet[0] & 15) * 4
            total = struct.unpack_from(">H", packet, 2)[0] or len(packet)
            segment = packet[header_len : max(total, len(packet))]
        elif packet[0] >> 4 == 6 and packet[6] == socket.IPPROTO_TCP:
            segment = packet[40:]
        else:
            return
        source, target, seq, _, offset, flags = struct.unpack_from(">HHIIBB", segment)
        if source not in self.ports and target not in self.ports:
            return
        payload = bytes(segment[(offset >> 4) * 4 :])
        now = time.monotonic()
        if flags & 2:  # SYN: the sequence number before the first byte
            if not flags & 16:
                pair = (Stream(source, target, now), Stream(target, source, now))
                self.open[source, target], self.open[target, source] = pair
                self.connections.append(pair)
            self.open[source, target].next_seq = (seq + 1) & 0xFFFFFFFF
        elif payload and (source, target) in self.open:
            self.open[source, target].add(seq, payload, now)
