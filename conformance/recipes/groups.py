"""The programs of one recipe in one language, what they said, and what must be true of it.

All processes of a group print to one pipe, so the order of its lines is the order in which they were printed. What is done to
a process (`killed`, `paused`, `resumed`) is written there too.

Of each recipe: `missing` says what is yet to happen for the group to be at work again, `wrong` what must never have happened.
"""

import os
import signal
import subprocess
import threading
import time

from ensemble import until


class Group:
    program = ""  # its name in the language's folder is derived from it
    names = ()  # those of the participants: the digit at the end is the client host that it runs on
    needs_storage = False

    def __init__(self, language, ensemble, work, storage=None):
        self.language, self.ensemble, self.work, self.storage = language, ensemble, work, storage
        self.path = f"/{language.name}/{self.program}"
        self.processes, self.lines, self.replaced = {}, [], 0
        # Of the fault at hand: those whose session ends by it, and whether one of them was hit where it hurts.
        self.excused, self.hurt = set(), False
        self.source, self.sink = os.pipe()
        threading.Thread(target=self.read, daemon=True).start()

    @property
    def name(self):
        return f"{self.program}/{self.language.name}"

    def read(self):
        with os.fdopen(self.source, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                self.lines.append(tuple(line.split()))

    def note(self, *words):
        """A line of the tests' own, in its place between those of the programs. Returns its number."""
        os.write(self.sink, (" ".join(words) + "\n").encode())
        line = tuple(words)
        until("the line is read", lambda: line in self.lines[-2000:], 10, 0.005)
        return len(self.lines) - 1 - self.lines[::-1].index(line)

    # --- processes ---

    def arguments(self, name):
        """What comes before and behind HOSTS PATH NAME."""
        return [], [self.storage.path] if self.storage else []

    def start(self):
        for name in self.names:
            self.start_one(name)

    def start_one(self, name):
        before, behind = self.arguments(name)
        place = self.ensemble.network.inside(f"c{name[-1]}") if self.ensemble.network else []
        command = [*place, *self.language.command(self.program), *before, self.ensemble.hosts, self.path, name, *behind]
        with open(self.log(name), "ab") as log:
            self.processes[name] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.sink, stderr=log)

    def alive(self, without=()):
        return [name for name in self.processes if name not in without]

    def ended(self):
        """What to say of a process that is not to end and did; another of its name takes its place."""
        for name, process in list(self.processes.items()):
            if process.poll() is not None:
                self.note(name, "killed")
                self.excused.add(name)
                self.start_one(name)
                return f"{name} ended by itself with status {process.returncode}: {self.tail(name)}"
        return ""

    def tail(self, name):
        with open(self.log(name), encoding="utf-8", errors="replace") as log:
            text = " ".join(log.read().split())
        return text[:300] if "panicked" in text else text[-300:]

    def log(self, name):
        return os.path.join(self.work, f"{self.language.name}-{self.program}-{name}.log")

    def pause(self, name):
        self.processes[name].send_signal(signal.SIGSTOP)
        self.excused.add(name)
        self.note(name, "paused", str(time.monotonic_ns()))

    def resume(self, name):
        self.note(name, "resumed", str(time.monotonic_ns()))
        self.processes[name].send_signal(signal.SIGCONT)

    def kill(self, name):
        process = self.processes.pop(name)
        process.kill()
        process.wait()
        self.excused.add(name)
        self.note(name, "killed")

    def replace(self, name):
        """A new process, of a new name, where that one was."""
        self.replaced += 1
        new = f"{name[0]}{self.replaced}x{name[-1]}"
        self.start_one(new)
        return new

    def terminate(self, name):
        process = self.processes.pop(name)
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def end(self):
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
        for process in self.processes.values():
            process.wait()
        os.close(self.sink)

    # --- what the lines say ---

    def said(self, word, since=0, until_line=None):
        return [line for line in self.lines[since:until_line] if len(line) > 2 and line[1] == word]

    def each(self, word, names, since):
        """Which of the names have not said the word."""
        heard = {line[0] for line in self.said(word, since)}
        return [name for name in names if name not in heard]

    def victim(self):
        """Whom to kill or pause so that it hurts; None when nobody is in that place just now."""
        return self.alive()[0]

    def caught(self, _name):
        """Whether the victim, which is stopped by now, is where it was to be hit."""
        return True

    def mark(self):
        return len(self.lines)

    def missing(self, mark, without=()):
        raise NotImplementedError

    def wrong(self):
        """Pairs of a line's number and what is wrong with it."""
        raise NotImplementedError

    def in_the_end(self, client):
        """Stops what it has to and looks at what is left; `client` is one of the tests' own. Returns what is wrong, and a remark."""
        return "", ""


def fenced(storage, excused):
    """What is wrong with what the storage was asked."""
    found, owners = [], {}
    for number, (token, name, taken) in enumerate(storage.asked):
        if owners.setdefault(token, name) != name:
            found.append(f"token {token} was used by {owners[token]} and by {name}")
        if not taken and name not in excused:
            found.append(f"{name} wrote with token {token} after a higher one had been used")
    return found


class Holders(Group):
    """Of a lock or of the mastership: one at a time, and each with a higher token than all before it."""

    needs_storage = True
    takes, gives = "", ()

    def holder(self):
        held = {}
        for line in list(self.lines):
            if len(line) > 1 and line[1] == self.takes:
                held[line[0]] = line[2]
            elif len(line) > 1 and line[1] in (*self.gives, "killed"):
                held.pop(line[0], None)
        return next(iter(held), None)

    def victim(self):
        return self.holder()

    def caught(self, name):
        return self.holder() == name

    def mark(self):
        return len(self.lines), len(self.storage.asked)

    def wrong(self):
        found, held, absent, highest, last = [], {}, set(), -1, ""
        for number, line in enumerate(list(self.lines)):
            if len(line) < 2:
                continue
            name, word = line[0], line[1]
            if word == self.takes:
                token = int(line[2])
                others = [other for other in held if other != name and other not in absent]
                if others:
                    found.append((number, f"{name} became {self.takes} while {others[0]} was"))
                # The same again: it stood aside for a moment, its session lives, and nobody came in between.
                if token < highest or token == highest and name != last:
                    found.append((number, f"{name} was given token {token} after {highest}"))
                held[name], highest, last = token, max(highest, token), name
                absent.discard(name)
            elif word in (*self.gives, "killed"):
                held.pop(name, None)
                absent.discard(name)
            elif word == "paused":
                absent.add(name)
            elif word == "resumed" and name not in held:
                absent.discard(name)
        paused = {line[0] for line in self.lines if len(line) > 1 and line[1] == "paused"}
        found += [(len(self.lines) - 1, problem) for problem in fenced(self.storage, paused)]
        return found


class Election(Holders):
    program, names = "election", ("e1", "e2", "e3")
    takes, gives = "master", ("deposed",)

    def missing(self, mark, without=()):
        written = [name for _, name, taken in self.storage.asked[mark[1] :] if taken and name not in without]
        return "" if written else "no master has written"


class Lock(Holders):
    program, names = "lock", ("l1", "l2", "l3")
    takes, gives = "locked", ("unlocked", "lost")

    def missing(self, mark, without=()):
        names = self.each("locked", self.alive(without), mark[0])
        return f"{', '.join(names)} did not get the lock" if names else ""


class Config(Group):
    program, names = "config", ("p1", "s1", "s2", "s3")

    def arguments(self, name):
        return ["publish" if name[0] == "p" else "subscribe"], []

    def victim(self):
        return next(name for name in self.alive() if name[0] == "s")

    def missing(self, mark, without=()):
        if "p1" in without:
            return ""
        published = self.said("published", mark)
        if not published:
            return "nothing was published"
        first = int(published[0][2])
        for name in self.alive(without):
            if name[0] == "s" and not any(line[0] == name and int(line[2]) >= first for line in self.said("saw", mark)):
                return f"{name} has not seen {first} or newer"
        return ""

    def wrong(self):
        found, last, published = [], {}, 0
        for number, line in enumerate(list(self.lines)):
            if len(line) < 3:
                continue
            name, word = line[0], line[1]
            if word == "saw":
                if int(line[2]) <= last.get(name, 0):
                    found.append((number, f"{name} saw {line[2]} after {last.get(name, 0)}"))
                last[name] = int(line[2])
            elif word == "older" and name not in self.excused:
                found.append((number, f"{name} was shown {line[2]}, older than what it had seen, within one session"))
            elif word == "published":
                if int(line[2]) <= published:
                    found.append((number, f"{line[2]} was published after {published}"))
                published = int(line[2])
        return found

    def in_the_end(self, client):
        self.terminate("p1")
        newest = int(client.get(self.path)[0])

        def all_have():
            last = {line[0]: int(line[2]) for line in self.said("saw")}
            return all(last.get(name) == newest for name in self.alive())

        until(f"every subscriber has the newest version, {newest}", all_have, 20)
        return "", f"{newest} versions"


class Members(Group):
    program, names = "members", ("w1", "w2", "w3")

    def missing(self, mark, without=()):
        wanted = set(self.alive(without))
        for name in wanted:
            views = [line for line in self.said("sees") if line[0] == name]
            if not views or set(views[-1][2].split(",")) != wanted:
                return f"{name} sees {views[-1][2] if views else 'nobody'}, and not {','.join(sorted(wanted))}"
        return ""

    def wrong(self):
        """Nobody misses one that has been there all the time."""
        found, joined = [], set()
        for number, line in enumerate(list(self.lines)):
            if line[1:2] == ("killed",):
                joined.discard(line[0])
            if len(line) > 2 and line[1] == "sees" and line[0] not in self.excused:
                seen = set(line[2].split(","))
                lost = joined - seen - self.excused
                # A view of its own that is older than the first full one is no loss: it had just come.
                if lost and line[0] in joined:
                    found.append((number, f"{line[0]} sees {line[2]}: {', '.join(sorted(lost))} is missing, which did not go"))
                if len(seen) >= len(self.names):
                    joined |= seen
        return found


class Naming(Group):
    program, names = "naming", ("n1", "n2", "n3")

    def missing(self, mark, without=()):
        names = self.each("named", self.alive(without), mark)
        return f"{', '.join(names)} got no name" if names else ""

    def wrong(self):
        found, given, last = [], {}, {}
        for number, (name, _, what) in ((n, line) for n, line in enumerate(list(self.lines)) if line[1:2] == ("named",)):
            if what in given:
                found.append((number, f"{what} was given to {given[what]} and to {name}"))
            given[what] = name
            if int(what) <= last.get(name, -1):
                found.append((number, f"{name} got {what} after {last[name]:010}"))
            last[name] = int(what)
        return found

    def in_the_end(self, client):
        started = len(self.processes) + self.replaced
        for name in self.alive():
            self.terminate(name)
        given = {line[2]: line[0] for line in self.said("named")}
        nodes = {node[-10:]: node for node in client.get_children(self.path)}
        for number, name in given.items():
            if number not in nodes:
                return f"{number}, which {name} was given, is not there", ""
            owner = client.get(f"{self.path}/{nodes[number]}")[0].decode()
            if owner != name:
                return f"{number}, which {name} was given, belongs to {owner}", ""
        unused = len(nodes) - len(given)
        # One for each that was stopped between its creation and its line, and one for each session that ended there.
        if unused > 2 * started:
            return f"{unused} names were taken and given to nobody", ""
        return "", f"{len(given)} names, {unused} unused"


class Barrier(Group):
    program, names = "barrier", ("b1", "b2", "b3")

    def arguments(self, name):
        rounds = [int(line[2]) for line in self.said("enters")]
        return [], [str(len(self.names)), str(max(rounds, default=0) + 1)]

    def inside(self):
        now = {}
        for line in list(self.lines):
            if len(line) > 2 and line[1] in ("enters", "leaves"):
                now[line[0]] = line[1:]
        return {name: int(what[1]) for name, what in now.items() if what[0] == "enters" and name in self.processes}

    def victim(self):
        return next(iter(self.inside()), None)

    def caught(self, name):
        return name in self.inside()

    def missing(self, mark, without=()):
        if not without:
            names = self.each("left", self.alive(), mark)
            return f"{', '.join(names)} did not leave" if names else ""
        # Of one that was hit inside, the others do not wait for ever: it is gone with its session.
        names = self.each("arrives", self.alive(without), mark) if self.hurt else []
        return f"{', '.join(names)} did not come to the next round" if names else ""

    def wrong(self):
        found, arrived, entered, leaving = [], {}, {}, {}
        for number, line in enumerate(list(self.lines)):
            if len(line) < 3 or line[1] not in ("arrives", "enters", "leaves", "left"):
                continue
            name, word, turn = line
            if word == "arrives":
                arrived.setdefault(turn, set()).add(name)
            elif word == "enters":
                entered.setdefault(turn, set()).add(name)
                if len(arrived.get(turn, ())) < len(self.names):
                    found.append((number, f"{name} entered round {turn} before all had come: {sorted(arrived.get(turn, ()))}"))
            elif word == "leaves":
                leaving.setdefault(turn, set()).add(name)
            else:
                late = arrived.get(turn, set()) - leaving.get(turn, set()) - self.excused
                if late and name not in self.excused:
                    found.append((number, f"{name} left round {turn} before {', '.join(sorted(late))} had finished"))
        return found

    def in_the_end(self, client):
        return "", f"{max((int(line[2]) for line in self.said('left')), default=0)} rounds"


class Queue(Group):
    program, names = "workqueue", ("q1", "t1", "t2", "t3")

    def arguments(self, name):
        return ["put" if name[0] == "q" else "take"], []

    def in_hand(self, of_the_dead=False):
        hand = {}
        for line in list(self.lines):
            if len(line) > 2 and line[1] in ("took", "done", "lost"):
                hand[line[0]] = line[1:]
        return {
            name: what[1]
            for name, what in hand.items()
            if what[0] == "took" and (name in self.processes) != of_the_dead
        }

    def victim(self):
        return next(iter(self.in_hand()), None)

    def caught(self, name):
        return name in self.in_hand()

    def missing(self, mark, without=()):
        if "q1" in without:
            return ""
        if not self.said("put", mark):
            return "nothing was put in"
        # The claims of those that are gone are free by now. What is in the hands of one that is cut off may be done and recorded.
        ended = {line[2] for word in ("done", "lost") for line in self.said(word)}
        left = {line[2] for line in self.said("put", 0, mark)} - ended
        left -= {item for name, item in self.in_hand().items() if name in without}
        # Who was killed may have recorded the result and not said so. That none is lost is seen in the end.
        left -= set(self.in_hand(of_the_dead=True).values())
        if left:
            return f"{sorted(left)[0]} was put in and not done"
        return "" if self.said("done", mark) else "nothing was done"

    def wrong(self):
        found, takers, done = [], {}, {}
        for number, line in enumerate(list(self.lines)):
            if len(line) < 3:
                continue
            name, word, item = line
            if word == "took":
                # At least once: again only when who had it was cut off, stopped or killed.
                before = [other for other in takers.get(item, []) if other not in self.excused]
                if before:
                    found.append((number, f"{item} was handed to {before[0]} and to {name}"))
                takers.setdefault(item, []).append(name)
            elif word == "lost":
                # It has given it up: its session is over, or it takes it for over.
                takers[item].remove(name)
            elif word == "done":
                if item in done:
                    found.append((number, f"{item} was done by {done[item]} and by {name}"))
                done[item] = name
        return found

    def in_the_end(self, client):
        self.terminate("q1")
        until("the queue is empty", lambda: not client.get_children(f"{self.path}/items"), 20)
        put = {line[2] for line in self.said("put")}
        results = {item: client.get(f"{self.path}/done/{item}")[0].decode() for item in client.get_children(f"{self.path}/done")}
        if lost := put - set(results):
            return f"{len(lost)} items were lost, {sorted(lost)[0]} the first", ""
        if len(made_up := set(results) - put) > 1:
            return f"{len(made_up)} results are of items that were not put in, as {sorted(made_up)[0]}", ""
        for name, _, item in self.said("done"):
            if results.get(item) != name:
                return f"{name} did {item}, but its result is by {results.get(item)}", ""
        taken = len(self.said("took"))
        return "", f"{len(results)} items, handed out {taken} times, {len(results)} results"


RECIPES = {group.program: group for group in (Election, Config, Lock, Members, Naming, Barrier, Queue)}
