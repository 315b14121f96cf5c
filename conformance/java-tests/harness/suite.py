#!/usr/bin/env python3
"""Runs JUnit classes, each in a JVM of its own, and writes what report.py reads.

    suite.py --classes FILE --expected FILE --server S --results FILE --work DIR [--quick] [--jobs N] [--ports LOW-HIGH]
             [--first-share N] [--case-seconds N] [--class-seconds N] [CLASS-PATTERN...] -- java ARGUMENT...

The java command line comes without a main class; {worker}, {threadid}, {ports} and {work} in it are filled in per JVM.
{threadid} counts from --first-share, and picks the ports that ZooKeeper's tests take for themselves.

FILE of --classes: `class<TAB>quick|full<TAB>cases<TAB>seconds`, where cases is how many cases the class has (a class that
reports fewer fails) and seconds about how long it takes (the longest start first). After the group, `-method` leaves a
method out in quick mode, and `key=value` sets a system property of the JVM.

Cases that expected.txt lists as skip are not run; on Paddock neither are those listed as apache-fail, since Apache does
not say what should happen. A case that fails is run once more when the rest is over, alone: these suites are full of
sleeps and deadlines. One that passes then is passed, and a line says so.
"""

import argparse
import fnmatch
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time

MAIN = "paddock.conformance.TestRunner"
print_lock = threading.Lock()


def say(text):
    with print_lock:
        print(text, file=sys.stderr, flush=True)


def read_classes(path, quick, patterns):
    classes = []
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            if not line.strip() or line.startswith("#"):
                continue
            name, group, cases, seconds = line.rstrip("\n").split("\t")
            words = group.split()
            simple = name.rsplit(".", 1)[1]
            if patterns and not any(fnmatch.fnmatchcase(simple, p.split("#")[0]) for p in patterns):
                continue
            if quick and words[0] != "quick":
                continue
            dropped = [w[1:] for w in words[1:] if quick and w.startswith("-")]
            chosen = [p.split("#")[1] for p in patterns if "#" in p and fnmatch.fnmatchcase(simple, p.split("#")[0])]
            classes.append(
                {
                    "class": name,
                    "simple": simple,
                    "cases": int(cases),
                    "seconds": float(seconds),
                    "dropped": dropped,
                    "properties": [w for w in words[1:] if "=" in w],
                    "only": chosen,
                }
            )
    classes.sort(key=lambda c: -c["seconds"])
    return classes


def read_expected(path):
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            fields = line.rstrip("\n").split("\t")
            if len(fields) == 3 and not line.startswith("#"):
                yield fields


class Runner:
    def __init__(self, args, command):
        self.args = args
        self.command = command
        low, high = (int(p) for p in args.ports.split("-"))
        share = (high - low + 1) // max(args.jobs, 1)
        self.ports = [(low + i * share, low + (i + 1) * share - 1) for i in range(args.jobs)]
        self.listed = {}
        self.failing = set()
        for name, kind, reason in read_expected(args.expected):
            if kind == "skip":
                self.listed[name] = reason
            elif kind == "apache-fail" and args.server != "apache":
                self.listed[name] = "Apache fails it in this setting: " + reason
            else:
                self.failing.add(name)
        self.results = []

    def listed_methods(self, simple):
        """Methods of this class that are not run, with the name to report them under.

        Single invocations of a parameterized method cannot be left out; they run, and count as skipped.
        """
        for name, reason in self.listed.items():
            owner, _, method = name.partition(".")
            if owner == simple and "[" not in method:
                yield method, name, reason

    def run_class(self, entry, worker, only=()):
        simple = entry["simple"]
        whole = self.listed.get(simple + ".*")
        if whole is not None:
            return [{"name": simple + ".(class)", "result": "skipped", "reason": whole}]
        only = list(only) or entry["only"]
        cases = []
        excluded = list(entry["dropped"])
        for method, name, reason in self.listed_methods(simple):
            excluded.append(method)
            if not only and method not in entry["dropped"]:
                cases.append({"name": name, "result": "skipped", "reason": reason})
        work = os.path.join(self.args.work, f"{simple}-{time.monotonic_ns()}")
        os.makedirs(work)
        events = os.path.join(work, "events")
        low, high = self.ports[worker]
        share = str(self.args.first_share + worker)
        fill = {"{worker}": str(worker), "{threadid}": share, "{ports}": f"{low}-{high}", "{work}": work}
        command = list(self.command)
        for key, value in fill.items():
            command = [part.replace(key, value) for part in command]
        command += ["-D" + word for word in entry["properties"]]
        command += [MAIN, events, entry["class"], str(self.args.case_seconds)]
        for method in excluded:
            command += ["-x", method]
        for method in only:
            command += ["-i", method]
        started = time.monotonic()
        late = False
        with open(os.path.join(work, "output"), "wb") as output:
            # A session of its own, so that a class that hangs goes together with the servers it started.
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=work, start_new_session=True
            )
            try:
                process.wait(self.args.class_seconds)
            except subprocess.TimeoutExpired:
                late = True
            finally:
                try:
                    os.killpg(process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
                process.wait()
        for case in self.read_events(events, simple, late):
            if case["name"] in self.listed:
                case["result"], case["reason"] = "skipped", self.listed[case["name"]]
            cases.append(case)
        seconds = time.monotonic() - started
        count = sum(1 for c in cases if "(" not in c["name"])
        if not only and not entry["dropped"] and count < entry["cases"]:
            cases.append(
                {
                    "name": simple + ".(missing)",
                    "result": "failed",
                    "reason": f"{count} of {entry['cases']} cases reported, see {work}/output",
                }
            )
        entry.setdefault("measured", (count, seconds))
        bad = [c["name"] for c in cases if c["result"] == "failed"]
        say(f"{simple}: {count} cases, {len(bad)} failed, {seconds:.0f} s" + ("" if not bad else ": " + ", ".join(bad)))
        return cases

    def read_events(self, path, simple, late):
        cases = []
        running = []
        ended = False
        if os.path.exists(path):
            with open(path, encoding="utf-8") as lines:
                for line in lines:
                    try:
                        event = json.loads(line)
                    except ValueError:
                        continue
                    if event["event"] == "start":
                        running.append(event["name"])
                    elif event["event"] == "case":
                        if event["name"] in running:
                            running.remove(event["name"])
                        cases.append(event)
                    else:
                        ended = True
        if not ended:
            reason = f"the class did not end within {self.args.class_seconds} s" if late else "the JVM died"
            for name in running or [simple + ".(class)"]:
                cases.append({"name": name, "result": "failed", "reason": reason})
        return [{**c, "seconds": c.pop("millis", 0) / 1000} for c in cases]

    def worker(self, todo, worker):
        while True:
            try:
                entry = todo.get_nowait()
            except queue.Empty:
                return
            cases = self.run_class(entry, worker)
            with print_lock:
                self.results.append((entry, cases))

    def run(self, classes):
        todo = queue.Queue()
        for entry in classes:
            todo.put(entry)
        threads = [threading.Thread(target=self.worker, args=(todo, i)) for i in range(self.args.jobs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.args.retry:
            self.retry()
        return [case for _, cases in self.results for case in cases]

    def retry(self):
        for entry, cases in self.results:
            failed = [c for c in cases if c["result"] == "failed" and c["name"] not in self.failing and "(" not in c["name"]]
            if not failed:
                continue
            methods = sorted({c["name"].partition(".")[2].split("[")[0] for c in failed})
            if len(methods) > 6:
                # So many are no accident of timing.
                continue
            again = {c["name"]: c for c in self.run_class(entry, 0, methods)}
            for case in failed:
                second = again.get(case["name"])
                if second and second["result"] == "passed":
                    say(f"second try: {case['name']} passed; the first: {case['reason']}")
                    case["result"] = "passed"
                    case["reason"] = "on the second try; the first: " + case["reason"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--classes", required=True)
    parser.add_argument("--expected", required=True)
    parser.add_argument("--server", required=True)
    parser.add_argument("--results", required=True)
    parser.add_argument("--work", required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--no-retry", dest="retry", action="store_false")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--ports", default="22000-22999")
    parser.add_argument("--first-share", type=int, default=52)
    parser.add_argument("--case-seconds", type=int, default=180)
    parser.add_argument("--class-seconds", type=int, default=900)
    parser.add_argument("patterns", nargs="*")
    split = sys.argv.index("--")
    args = parser.parse_args(sys.argv[1:split])
    classes = read_classes(args.classes, args.quick, args.patterns)
    if not classes:
        sys.exit("no class fits")
    runner = Runner(args, sys.argv[split + 1 :])
    cases = runner.run(classes)
    with open(args.results, "w", encoding="utf-8") as out:
        for case in cases:
            out.write(json.dumps(case) + "\n")
    measured = os.environ.get("CONF_MEASURED")
    if measured:
        # What classes.txt wants to know, for those who change it.
        with open(measured, "w", encoding="utf-8") as out:
            for entry in classes:
                count, seconds = entry.get("measured", (0, 0))
                out.write(f"{entry['class']}\tfull\t{count}\t{seconds:.0f}\n")


if __name__ == "__main__":
    main()
