#!/usr/bin/env python3
"""Types cases.txt into a shell and compares what it prints with the recording of the same against Apache ZooKeeper.

    drive.py --address HOST:PORT --cases cases.txt --recording recorded.txt --results FILE [--record] -- SHELL ARGS...

SHELL ARGS... is the command that starts the shell; the options of `@shell` and `@once` are appended to it. The shell must
read commands from a pipe. Each command is followed by one that no shell knows, whose complaint marks where the command's
output ends; watch events, which another thread prints, are taken out and compared in order at the end of their case.
"""

import argparse
import difflib
import json
import queue
import re
import shlex
import subprocess
import sys
import threading
import time

MARK = "endofcommand"
TIMEOUT = 30.0
EVENT = re.compile(r"WatchedEvent state:(\S+) type:(\S+) path:(\S+)")
DATE = re.compile(r"\b[A-Z][a-z]{2} [A-Z][a-z]{2} \d\d \d\d:\d\d:\d\d \S+ \d{4}\b")
# Log lines, and the frames of a Java stack trace, which say nothing about the server.
LOG = re.compile(r"^(\d\d:\d\d:\d\d\.\d+ (TRACE|DEBUG|INFO|WARN|ERROR) |\tat [\w.$/]+\(|\t\.\.\. \d+ more)")


class Names:
    """Stable stand-ins for values that differ from run to run: the n-th distinct zxid of a case is Zn."""

    def __init__(self):
        self.seen = {}

    def name(self, letter, value):
        table = self.seen.setdefault(letter, {})
        return table.setdefault(value, f"{letter}{len(table) + 1}")


def normalise(line, names, address):
    line = line.replace(address, "HOSTPORT").rstrip()
    line = re.sub(r"^((?:c|m|p)Zxid = )(0x[0-9a-f]+)$", lambda m: m[1] + names.name("Z", m[2]), line)
    line = re.sub(
        r"^(ephemeralOwner = )(0x[0-9a-f]+)$",
        lambda m: m[0] if m[2] == "0x0" or m[2].startswith(("0x8", "0xff")) else m[1] + names.name("S", m[2]),
        line,
    )
    line = DATE.sub("DATE", line)
    line = re.sub(r"(ZooKeeper CLI version: ).*", r"\1VERSION", line)
    line = re.sub(r"(sessionid|session id)( ?[:=]? ?)0x[0-9a-f]+", r"\1\2SESSION", line)
    return line


class Shell:
    def __init__(self, command, address):
        self.address = address
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            bufsize=1,
        )
        self.lines = queue.Queue()
        self.marks = 0
        threading.Thread(target=self.read, daemon=True).start()
        # The banner, and the notice that the session is up. The first commands of a plain shell wait for it themselves.
        self.usage = None
        self.until_mark()
        end = time.monotonic() + TIMEOUT
        while time.monotonic() < end:
            # Until the session is there commands fail or hang by chance; a session that comes up announces itself.
            if self.connected:
                break
            time.sleep(0.05)
            self.drain()

    connected = False
    ended = False

    def read(self):
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    def send(self, line):
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except (BrokenPipeError, ValueError):
            pass

    def note(self, line):
        if "state:SyncConnected type:None" in line:
            self.connected = True

    def drain(self):
        taken = []
        while True:
            try:
                line = self.lines.get_nowait()
            except queue.Empty:
                return taken
            if line is None:
                self.lines.put(None)
                return taken
            self.note(line)
            taken.append(line)

    def until_mark(self):
        self.marks += 1
        mark = f"{MARK}{self.marks}"
        self.send(mark)
        taken = []
        end = time.monotonic() + TIMEOUT
        while True:
            try:
                line = self.lines.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                taken.append(f"(no answer within {TIMEOUT:.0f} s)")
                return taken
            if line is None:
                self.lines.put(None)
                taken.append("(the shell ended)")
                self.ended = True
                return taken
            self.note(line)
            if mark in line:
                break
            taken.append(line)
        # The complaint comes with the whole usage text, before it; the first one shows what that is.
        if self.usage is None:
            start = next((i for i, text in enumerate(taken) if text.startswith("ZooKeeper -server")), len(taken))
            self.usage = [text for text in taken[start:] if text.startswith(("ZooKeeper -server", "\t"))]
        if self.usage and taken[-len(self.usage) :] == self.usage:
            taken = taken[: -len(self.usage)]
        elif self.usage:
            # An event slipped in between: take the usage lines out one by one, from the end.
            left = list(self.usage)
            kept = []
            for text in reversed(taken):
                if left and text == left[-1]:
                    left.pop()
                else:
                    kept.append(text)
            taken = kept[::-1]
        return taken

    def stop(self):
        self.send("quit")
        try:
            self.process.stdin.close()
        except OSError:
            pass
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def sort_list(line):
    if line.startswith("[") and line.endswith("]"):
        return "[" + ", ".join(sorted(line[1:-1].split(", "))) + "]"
    return line


def order_removals(events):
    """The client reports the watches that one request removed in the order of a hash table of its own."""
    ordered, removed = [], []
    for event in events:
        if "WatchRemoved" in event:
            removed.append(event)
        else:
            ordered += [*sorted(removed), event]
            removed = []
    return ordered + sorted(removed)


def split_events(lines):
    """Takes `WATCHER::`, the blank line and the event itself out of a command's output."""
    plain, events = [], []
    skip_blank = False
    for line in lines:
        if line == "WATCHER::":
            while plain and plain[-1] == "":
                plain.pop()
            skip_blank = True
            continue
        found = EVENT.search(line)
        if found:
            events.append(f"state {found[1]} type {found[2]} path {found[3]}")
            skip_blank = False
            rest = line[: found.start()]
            if rest.strip():
                plain.append(rest)
            continue
        if skip_blank and line == "":
            continue
        plain.append(line)
    while plain and plain[-1] == "":
        plain.pop()
    while plain and plain[0] == "":
        plain.pop(0)
    return plain, events


def read_cases(path):
    case, shell, cases = None, None, []
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            line = line.rstrip("\n")
            if line.startswith("#") or not line.strip():
                continue
            if line.startswith("@shell"):
                shell = (len(cases), shlex.split(line)[1:])
            elif line.startswith("[") and line.endswith("]"):
                case = {"name": line[1:-1], "shell": shell, "commands": []}
                cases.append(case)
            else:
                case["commands"].append(line)
    return cases


def once(command, address, names):
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace", timeout=60
        )
    except subprocess.TimeoutExpired:
        return ["(no end within 60 s)"]
    out = []
    for stream, text in (("", done.stdout), ("error: ", done.stderr)):
        lines, _ = split_events([line for line in text.split("\n") if not LOG.match(line)])
        # The preamble differs by how the shell was built (with line editing or without).
        lines = [line for line in lines if not line.startswith(("Connecting to ", "Welcome to", "JLine support"))]
        out += [stream + normalise(line, names, address) for line in lines]
    return out + [f"exit {done.returncode}"]


def run(args, command):
    transcript = {}
    shell, shell_key = None, None
    for case in read_cases(args.cases):
        out, events, names = [], [], Names()
        one_shot = all(line.startswith("@once") for line in case["commands"])
        if not one_shot and case["shell"] is not shell_key:
            if shell:
                shell.stop()
            shell_key = case["shell"]
            shell = Shell(command + [text.replace("HOSTPORT", args.address) for text in shell_key[1]], args.address)
            shell.drain()
        for line in case["commands"]:
            out.append("> " + line)
            if line.startswith("@wait"):
                time.sleep(float(line.split()[1]))
                continue
            if line.startswith("@once"):
                parts = [text.replace("HOSTPORT", args.address) for text in shlex.split(line)[1:]]
                out += once(command + parts, args.address, names)
                continue
            if shell.ended:
                # A command that ended the shell is on record as such; the next one gets a new shell.
                shell.stop()
                shell = Shell(command + [text.replace("HOSTPORT", args.address) for text in shell_key[1]], args.address)
                shell.drain()
            ordered = line.removeprefix("@sorted ")
            shell.send(ordered.replace("HOSTPORT", args.address))
            text, happened = split_events([text for text in shell.until_mark() if not LOG.match(text)])
            text = [one for one in text if MARK not in one]
            if ordered != line:
                text = sorted(sort_list(one) for one in text)
            out += [normalise(one, names, args.address) for one in text]
            events += happened
        if not one_shot:
            time.sleep(0.15)
            events += split_events(shell.drain())[1]
        if events:
            out.append("events:")
            out += order_removals(events)
        transcript[case["name"]] = out
    if shell:
        shell.stop()
    return transcript


def write_recording(path, transcript):
    with open(path, "w", encoding="utf-8") as out:
        for name, lines in transcript.items():
            out.write(f"[{name}]\n")
            for line in lines:
                out.write("  " + line + "\n" if line else "\n")


def read_recording(path):
    transcript, lines = {}, None
    with open(path, encoding="utf-8") as text:
        for line in text:
            line = line.rstrip("\n")
            if line.startswith("[") and line.endswith("]"):
                lines = transcript.setdefault(line[1:-1], [])
            else:
                lines.append(line[2:] if line.startswith("  ") else line)
    return transcript


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True)
    parser.add_argument("--cases", required=True)
    parser.add_argument("--recording", required=True)
    parser.add_argument("--results", required=True)
    parser.add_argument("--transcript", default="")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()

    transcript = run(args, args.command)
    if args.transcript:
        write_recording(args.transcript, transcript)
    if args.record:
        write_recording(args.recording, transcript)
    recorded = read_recording(args.recording)
    # Events and the usage text come from different threads of a shell, and on a busy machine their lines can meet. What
    # differs is tried once more; what differs again counts.
    again = {} if args.record else {name for name, lines in transcript.items() if name in recorded and recorded[name] != lines}
    second = run(args, args.command) if again else {}
    for name in again:
        if second.get(name) == recorded[name]:
            print(f"{name}: as recorded at the second try", file=sys.stderr)
            transcript[name] = second[name]
    with open(args.results, "w", encoding="utf-8") as out:
        for name, lines in transcript.items():
            if args.only and name not in args.only:
                continue
            want = recorded.get(name)
            if want is None:
                result, reason = "failed", "not in the recording: record it against Apache"
            elif want == lines:
                result, reason = "passed", ""
            else:
                difference = [
                    line
                    for line in difflib.unified_diff(want, lines, "apache", "here", lineterm="", n=0)
                    if not line.startswith(("---", "+++", "@@"))
                ]
                result, reason = "failed", " | ".join(difference[:12])
            out.write(json.dumps({"name": name, "result": result, "reason": reason}) + "\n")


if __name__ == "__main__":
    main()
