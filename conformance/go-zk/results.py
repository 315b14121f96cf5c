#!/usr/bin/env python3
"""`go test -json` as the lines report.py reads.

    results.py GO.JSON EXPECTED.TXT   one JSON object a line, one per top-level test, plus the listed skips
    results.py --skip EXPECTED.TXT    names of the tests listed as skip
"""

import json
import sys


def skips(path):
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            fields = line.rstrip("\n").split("\t")
            if len(fields) == 3 and fields[1] == "skip" and not line.startswith("#"):
                yield fields[0], fields[2]


def main():
    if sys.argv[1] == "--skip":
        for name, _ in skips(sys.argv[2]):
            print(name)
        return
    started, output, result = [], {}, {}
    with open(sys.argv[1], encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            test = event.get("Test")
            if not test:
                continue
            top = test.split("/")[0]
            action = event["Action"]
            if action == "run" and test == top:
                started.append(test)
            elif action == "output":
                output.setdefault(top, []).append(event["Output"].strip())
            elif action in ("pass", "fail", "skip") and test == top:
                result[top] = action
    word = {"pass": "passed", "fail": "failed", "skip": "skipped"}
    for test in started:
        # A test that started and never ended went down with the test binary.
        action = result.get(test, "fail")
        told = [line for line in output.get(test, []) if ".go:" in line or "panic" in line]
        # What the servers wrote to their log is no reason.
        told = [line for line in told if "[ZKERR]" not in line] or output.get(test, [])[-3:]
        reason = "" if action == "pass" else "; ".join(told[-3:])
        print(json.dumps({"name": test, "result": word[action], "reason": reason}))
    for name, reason in skips(sys.argv[2]):
        if "*" not in name and name not in started:
            print(json.dumps({"name": name, "result": "skipped", "reason": reason}))


if __name__ == "__main__":
    main()
