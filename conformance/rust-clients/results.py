#!/usr/bin/env python3
"""What `cargo test` printed as the lines report.py reads; a line `== PACKAGE TARGET` comes before each test program's part.

    results.py LOG AGAIN       one JSON object a line; names are package::test. A case that passed in AGAIN says so
    results.py --failed LOG    package, target and test of each case that failed, separated by tabs
"""

import json
import os
import re
import sys

RESULT = re.compile(r"^test (\S+) \.\.\. (.*)$")
ENDED = re.compile(r"(ok|FAILED|ignored.*)$")


def cases(path):
    """Yields package, target, test, result and reason of each test in the order they ran."""
    package = target = section = ""
    found, output = {}, {}
    with open(path, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            line = line.rstrip("\n")
            if line.startswith("== "):
                package, target = line.split()[1:3]
                section = ""
            elif match := RESULT.match(line):
                # What a test prints itself may stand between its name and its result.
                ended = ENDED.search(match[2])
                section = "" if ended else match[1]
                found[package, target, match[1]] = ended[1] if ended else ""
            elif match := re.match(r"^---- (\S+) stdout ----$", line):
                section = match[1]
            elif line.startswith(("failures:", "test result:")):
                section = ""
            elif section:
                key = (package, target, section)
                if found.get(key) == "" and line in ("ok", "FAILED"):
                    found[key] = line
                    section = ""
                elif "stack backtrace" not in line and "RUST_BACKTRACE" not in line:
                    output.setdefault(key, []).append(line)
    for key, word in found.items():
        result = {"ok": "passed", "FAILED": "failed", "": "failed"}.get(word, "skipped")
        # The panic is what counts; a client logs a great deal around it.
        lines = output.get(key, [])
        at = next((number for number, line in enumerate(lines) if "panicked at" in line), None)
        told = lines[-3:] if at is None else lines[at : at + 4]
        yield *key, result, "" if result == "passed" else " ".join(told) or "it did not end"


def main():
    if sys.argv[1] == "--failed":
        for package, target, test, result, _ in cases(sys.argv[2]):
            if result == "failed":
                print(package, target, test, sep="\t")
        return
    results = {}
    for package, _, test, result, reason in cases(sys.argv[1]):
        results[f"{package}::{test}"] = (result, reason)
    if os.path.exists(sys.argv[2]):
        for package, _, test, result, reason in cases(sys.argv[2]):
            name = f"{package}::{test}"
            if result == "passed":
                reason = "passed at the second try; first: " + results[name][1]
            results[name] = (result, reason)
    for name, (result, reason) in results.items():
        print(json.dumps({"name": name, "result": result, "reason": reason}))


if __name__ == "__main__":
    main()
