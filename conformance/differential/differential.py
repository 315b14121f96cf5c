#!/usr/bin/env python3
"""Asks an Apache ZooKeeper and a Paddock the same random questions, and compares what they say byte for byte. See `run`."""

import argparse
import collections
import json
import os
import shutil
import signal
import time

from steps import (
    ADD_WATCH, CHILDREN2, CREATE2, DELETE, GET, GET_ACL, OPEN, SET, SET_ACL, acls, describe, i32, sequence, string,
)  # fmt: skip
import jute
import known
from configurations import CONFIGURATIONS
from play import HEADER, MARK, Gone, Side, in_order
from servers import Server, say

JVM = ("-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-Dzookeeper.forceSync=no")
SYSTEM = ("/zookeeper", "/zookeeper/config", "/zookeeper/quota")


class Pair:
    """Both servers, started empty."""

    count = 0
    told = False

    def __init__(self, config, work, kinds):
        self.config, self.work, self.kinds = config, work, kinds
        self.servers, self.sides = [], []

    def spawn(self):
        """Starts the processes; `start` goes on from there."""
        for kind in self.kinds:
            Pair.count += 1
            folder = os.path.join(self.work, f"{Pair.count}-{kind}")
            flags = [*JVM, *self.config.all_flags()] if kind == "apache" else self.config.all_flags()
            server = Server(kind, folder, self.config.all_lines(), flags=flags, level="ERROR")
            server.spawn()
            self.servers.append(server)

    def start(self):
        if not self.servers or not all(server.is_running for server in self.servers):
            self.stop()
            self.spawn()
        for server in self.servers:
            self.wait(server)
        self.sides = [Side(server, self.config) for server in self.servers]
        self.initial = None
        if not self.clean():
            raise SystemExit(f"{self.config.name}: the two servers differ when they are empty: {self.why}")

    @staticmethod
    def wait(server):
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                if "Mode: " in server.words("srvr"):
                    return
            except OSError:
                pass
            if not server.is_running:
                break
            time.sleep(0.01)
        server.tail()
        raise SystemExit(f"the {server.kind} server did not start: see {server.dir}/log")

    def stop(self):
        for side in self.sides:
            side.close_all()
        for server in self.servers:
            if server.is_running:
                server.kill()
            shutil.rmtree(server.dir, ignore_errors=True)
        self.servers, self.sides = [], []

    def tails(self):
        """What a server that ended said last, for the first of them."""
        for server in self.servers:
            if not server.is_running and not Pair.told:
                Pair.told = True
                say(f"  the {server.kind} server ended with status {server.process.poll()}; its log ends:")
                server.tail()

    def ensure(self):
        if not self.sides or not all(server.is_running for server in self.servers):
            self.start()

    # --- between sequences ---

    def both(self, op, body):
        """The replies to the operator's question; they are compared."""
        replies = [side.operate(op, body) for side in self.sides]
        masked = []
        for side, reply in zip(self.sides, replies):
            masked.append(side.mask(reply[:16] + in_order(op, reply[16:])))
        if masked[0] != masked[1]:
            self.why = self.why or f"operation {op} {body!r}: {masked[0].hex()} and {masked[1].hex()}"
        return replies[0]

    def clean(self):
        """Compares the trees, and makes them as they were in the beginning; False when that cannot be."""
        self.why = None
        found = {}
        rest = ["/"]
        order = []
        while rest:
            path = rest.pop()
            order.append(path)
            name = string(path)
            data, acl = self.both(GET, name + b"\0"), self.both(GET_ACL, name)
            found[path] = (data[16:-68], acl[16:-68])
            children = self.both(CHILDREN2, name + b"\0")
            if HEADER.unpack_from(children)[2] == 0:
                reader = jute.Reader(children[16:])
                names = [reader.string() for _ in range(reader.int())]
                rest += [(path if path != "/" else "") + "/" + child for child in sorted(names)]
            else:
                self.blocked = True
            if self.why:
                return False
        for path in reversed(order):
            if path != "/" and path not in SYSTEM:
                reply = self.both(DELETE, string(path) + i32(-1))
                if HEADER.unpack_from(reply)[2] != 0:
                    return False
        if self.initial is None:
            self.initial = {path: found[path] for path in ("/", *SYSTEM)}
        for path, (data, acl) in self.initial.items():
            if path not in found:
                return False
            if found[path][0] != data:
                self.both(SET, string(path) + data + i32(-1))
            if found[path][1] != acl:
                self.both(SET_ACL, string(path) + acl + i32(-1))
            if HEADER.unpack_from(self.both(GET, string(path) + b"\0"))[2] != 0:
                return False
        return not self.why

    # --- a sequence ---

    def play(self, steps):
        """What differs: [(index, the rule that explains it or None, Apache's outcome, Paddock's)]. A sequence goes on behind a
        difference so long as both servers are in the same state."""
        self.ensure()
        differences = []
        together = True
        for index, step in enumerate(steps):
            for phase in ("begin", "finish", "marks_after", "collect"):
                for side in self.sides:
                    side.unless_gone(phase, step)
            first, second = (side.outcome() for side in self.sides)
            if first != second:
                rule = known.find(step, first, second)
                differences.append((index, rule, first, second))
                together = same_state(first, second) and not (rule and (rule.ends or step["do"] == "burst"))
                if not together:
                    break
        if any(side.gone for side in self.sides):
            self.tails()
            self.stop()
            return differences
        for side in self.sides:
            side.unless_gone("end", None)
        if together:
            first, second = (side.outcome() for side in self.sides)
            if first != second:
                differences.append((len(steps), None, first, second))
                together = False
        try:
            clean = self.clean()
        except Gone:
            self.why = "a server is gone: " + ", ".join(f"{server.kind} {'runs' if server.is_running else 'ended'}" for server in self.servers)
            clean = False
            self.tails()
        if together and self.why:
            differences.append((len(steps), None, [(None, "the trees differ", self.why.encode())], []))
        if not clean or not together and self.sides[0].last != self.sides[1].last:
            self.stop()
        return differences


def same_state(first, second):
    """After a known difference: do both have the same connections and the same last zxid?"""

    def state(outcome):
        return [(at, what, data[4:]) for at, what, data in outcome if what in ("mark", "closed", "silent", "the server is gone") or "session" in what]

    return state(first) == state(second)


# --- what differs ---


def brief(entry):
    at, what, data = entry
    if what in ("reply", "mark", "event") and len(data) >= 16:
        xid, zxid, error = HEADER.unpack_from(data)
        where = f"[{at}] " if at is not None else ""
        return f"{where}{what} xid={xid} zxid=0x{zxid:x} err={jute.error_name(error)} body={data[16:].hex()}"
    return f"{f'[{at}] ' if at is not None else ''}{what} {data.hex() if what != 'answer' else data.decode(errors='replace')}".rstrip()


def signature(steps, difference):
    index, _, first, second = difference

    def kind(entry):
        at, what, data = entry
        error = HEADER.unpack_from(data)[2] if what == "reply" and len(data) >= 16 else ""
        return f"{what.split(' (')[0].rstrip('0123456789 ')}{error}"

    step = steps[index] if index < len(steps) else {"do": "end"}
    op = jute.op_name(step["op"]) if "op" in step else step["do"] + ("/" + step["word"] if step["do"] == "word" else "")
    only = [(kind(a) if a else "-", kind(b) if b else "-") for a, b in pairs(first, second) if a != b]
    return f"{op}: {only[0][0]} <> {only[0][1]}" if only else op


def pairs(first, second):
    longest = max(len(first), len(second))
    return zip(first + [None] * (longest - len(first)), second + [None] * (longest - len(second)))


def show(config, seed, steps, difference, out):
    index, name, first, second = difference
    out(f"  {config.name}, seed {seed}, step {index + 1} of {len(steps)}: {signature(steps, difference)}")
    for number, step in enumerate(steps[: index + 1]):
        if number < index - 12:
            continue
        out(f"    {number + 1}. {describe(step)}")
    for one, other in pairs(first, second):
        if one == other and one[1] == "mark":
            continue
        if one == other:
            out(f"      both     {brief(one)[:300]}")
        else:
            out(f"      apache   {brief(one)[:1500] if one else '(nothing)'}")
            out(f"      paddock  {brief(other)[:1500] if other else '(nothing)'}")
    if index < 60:
        out(f"    replay: run --config {config.name} --replay '{json.dumps(steps[: index + 1])}'")


def shrink(pair, steps, difference, tries=60):
    """A shorter sequence with the same difference."""
    wanted = signature(steps, difference)
    index = difference[0]
    best, found = steps[: index + 1], difference

    def attempt(candidate):
        nonlocal tries
        tries -= 1
        for got in pair.play(candidate):
            if signature(candidate, got) == wanted:
                return candidate[: got[0] + 1], got
        return None

    # Mostly the last steps are enough.
    for length in (1, 2, 4, 8, 16, 32):
        if length >= len(best) or tries <= 0:
            break
        if result := attempt(best[-length:]):
            best, found = result
            break
    size = max(1, len(best) // 2)
    while size >= 1 and tries > 0:
        at = 0
        removed = False
        while at < len(best) - 1 and tries > 0:
            candidate = best[:at] + best[min(at + size, len(best) - 1) :]
            if len(candidate) < len(best) and (result := attempt(candidate)):
                best, found = result
                removed = True
            else:
                at += size
        if size == 1 and not removed:
            break
        size = max(1, size // 2) if size > 1 or removed else 0
    return best, found


# --- the suite's own proof ---


class Alteration:
    """Changes one frame that came from a server: the `nth` that is a reply, or an event."""

    def __init__(self, change, event=False, nth=4):
        self.change, self.event, self.nth, self.done = change, event, nth, False

    def __call__(self, frame, side):
        xid = HEADER.unpack_from(frame)[0] if len(frame) >= HEADER.size else 0
        if self.done or xid >= MARK or (xid == -1) != self.event:
            return frame
        self.nth -= 1
        if self.nth > 0:
            return frame
        self.done = True
        return self.change(frame, side)


def flip(at):
    def change(frame, _):
        altered = bytearray(frame)
        altered[at] ^= 1
        return bytes(altered)

    return change


def ask(at, xid, op, body):
    return {"do": "ask", "at": at, "xid": xid, "op": op, "body": body.hex()}


# One connection watches what the other one does.
PROOF = [
    ask(0, 1, ADD_WATCH, string("/") + i32(1)),
    ask(1, 1, CREATE2, string("/p") + string(b"x") + acls(OPEN) + i32(0)),
    ask(1, 2, SET, string("/p") + string(b"y") + i32(0)),
    ask(0, 2, GET, string("/p") + b"\0"),
    ask(1, 3, DELETE, string("/p") + i32(0)),
    ask(1, 4, DELETE, string("/p") + i32(0)),
]

ALTERATIONS = {
    "a byte of a body": lambda: Alteration(flip(-1)),
    "a byte of a zxid": lambda: Alteration(flip(11)),
    "an error code": lambda: Alteration(flip(15)),
    "a reply that is lost": lambda: Alteration(lambda frame, side: None),
    "a byte of an event": lambda: Alteration(flip(-1), event=True, nth=1),
    "an event that is lost": lambda: Alteration(lambda frame, side: None, event=True, nth=1),
}


# --- the run ---


class Run:
    def __init__(self, args):
        self.args = args
        self.kinds = ("apache", args.server)
        self.classes = collections.Counter()
        self.known = collections.Counter()
        self.sequences = self.steps = self.requests = 0

    def result(self, name, reason=""):
        with open(self.args.results, "a", encoding="utf-8") as out:
            out.write(json.dumps({"name": name, "result": "failed" if reason else "passed", "reason": reason}) + "\n")

    def sequence(self, pair, seed):
        """Returns what is wrong with a seed, or nothing."""
        args, config = self.args, pair.config
        steps = sequence(seed, config, args.length)
        pair.ensure()
        before = sum(side.requests for side in pair.sides)
        sides = list(pair.sides)
        differences = pair.play(steps)
        self.requests += sum(side.requests for side in sides) - before
        self.sequences += 1
        self.steps += len(steps)
        wrong = []
        for difference in differences:
            if difference[1] is not None:
                self.known[difference[1].name] += 1
                continue
            kind = signature(steps, difference)
            self.classes[kind] += 1
            if self.classes[kind] > 1:
                wrong.append(f"{kind} (again)")
            else:
                wrong.append(self.explain(pair, seed, steps, difference, kind))
        return f"seed {seed}: " + "; ".join(wrong) if wrong else ""

    def prove(self, pair):
        """The comparison has to notice what is changed on its way from the second server."""
        for name, alter in ALTERATIONS.items():
            pair.ensure()
            kind = alter()
            pair.sides[1].alter = kind
            noticed = [difference for difference in pair.play(PROOF) if difference[1] is None]
            if pair.sides:
                pair.sides[1].alter = None
            self.result(f"proof: {name}", "" if noticed and kind.done else "was not noticed" if kind.done else "had nothing to change")

    def explain(self, pair, seed, steps, difference, kind):
        """The first of a kind: is it there again on fresh servers, and what does it take?"""
        if not self.args.no_shrink:
            pair.stop()
            again = next((other for other in pair.play(steps) if signature(steps, other) == kind), None)
            if again is None:
                show(pair.config, seed, steps, difference, say)
                say("    it did not come again on fresh servers")
                return f"{kind}, once"
            steps, difference = shrink(pair, steps, again)
        show(pair.config, seed, steps, difference, say)
        index = difference[0]
        return f"{kind}, at {describe(steps[index])[:120] if index < len(steps) else 'the end'}"

    def group(self, pair, seeds):
        config = pair.config
        wrong = []
        begun = time.monotonic()
        try:
            for seed in seeds:
                if reason := self.sequence(pair, seed):
                    wrong.append(reason)
        finally:
            pair.stop()
        say(f"{config.name}: {len(seeds)} seeds, {len(wrong)} with a difference, {time.monotonic() - begun:.1f} s")
        self.result(config.name, "; ".join(wrong))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--server", choices=["paddock", "apache"], default="paddock", help="apache: compares it with itself")
    parser.add_argument("--work", required=True)
    parser.add_argument("--results", required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, default=0)
    parser.add_argument("--from", dest="begin", type=int, default=1)
    parser.add_argument("--length", type=int, default=90)
    parser.add_argument("--config", action="append", default=[])
    parser.add_argument("--replay", default="")
    parser.add_argument("--no-shrink", action="store_true")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run = Run(args)
    chosen = [config for config in CONFIGURATIONS if not args.config or config.name in args.config]
    if not chosen:
        parser.error("no such configuration; there are: " + ", ".join(config.name for config in CONFIGURATIONS))
    if args.replay:
        pair = Pair(chosen[0], args.work, run.kinds)
        try:
            steps = json.loads(args.replay)
            differences = pair.play(steps)
            for difference in differences:
                show(chosen[0], "-", steps, difference, say)
            run.result("replay", "differs" if differences else "")
        finally:
            pair.stop()
        return
    count = args.seeds or (3 if args.quick else 25)
    begun = time.monotonic()
    all_pairs = [Pair(config, args.work, run.kinds) for config in chosen]
    try:
        if not args.config:
            run.prove(all_pairs[0])
        for number, pair in enumerate(all_pairs):
            # The next servers start while these are asked.
            for following in all_pairs[number + 1 : number + 2]:
                following.spawn()
            run.group(pair, range(args.begin, args.begin + count))
    finally:
        for pair in all_pairs:
            pair.stop()
    say(f"{run.sequences} sequences, {run.steps} steps, {run.requests} requests in {time.monotonic() - begun:.0f} s")
    for kind, times in run.classes.most_common():
        say(f"  {times} times  {kind}")
    for name, times in run.known.most_common():
        say(f"  known, {times} times: {name}")


if __name__ == "__main__":
    main()
