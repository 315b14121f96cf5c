#!/usr/bin/env python3
"""pytest's results as the lines report.py reads, and what pytest is to run.

    results.py JUNIT.XML AGAIN.XML EXPECTED.TXT   one JSON object a line; names are module.Class.test without "kazoo.tests.".
                                                  A case that failed and passed at the second try says so
    results.py --deselect EXPECTED.TXT            options, one a line, that leave out the cases listed as skip
    results.py --failed JUNIT.XML SITE            the tests that failed, as pytest names them; SITE is the folder that has kazoo
"""

import json
import os
import sys
import xml.etree.ElementTree as ElementTree


def skips(path):
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            fields = line.rstrip("\n").split("\t")
            if len(fields) == 3 and fields[1] == "skip" and not line.startswith("#"):
                yield fields[0], fields[2]


def cases(path):
    for case in ElementTree.parse(path).iter("testcase"):
        name = (case.get("classname") + "." + case.get("name")).split("kazoo.tests.", 1)[-1]
        result, reason = "passed", ""
        for child in case:
            if child.tag in ("failure", "error"):
                result, reason = "failed", child.get("message") or child.text or ""
            elif child.tag == "skipped" and result == "passed":
                result, reason = "skipped", child.get("message") or ""
        yield name, result, reason


def main():
    if sys.argv[1] == "--deselect":
        for name, _ in skips(sys.argv[2]):
            module, rest = name.split(".", 1)
            print(f"--deselect=kazoo/tests/{module}.py::" + rest.replace(".", "::"))
        return
    if sys.argv[1] == "--failed":
        tests = os.path.join(sys.argv[3], "kazoo", "tests")
        for name, result, _ in cases(sys.argv[2]):
            if result == "failed":
                module, rest = name.split(".", 1)
                print(os.path.join(tests, module + ".py") + "::" + rest.replace(".", "::"))
        return
    results = {name: (result, reason) for name, result, reason in cases(sys.argv[1])}
    if os.path.exists(sys.argv[2]):
        for name, result, reason in cases(sys.argv[2]):
            before = results.get(name, ("", ""))[1]
            results[name] = (result, reason if result != "passed" else "passed at the second try; first: " + before)
    for name, reason in skips(sys.argv[3]):
        results.setdefault(name, ("skipped", reason))
    for name, (result, reason) in results.items():
        print(json.dumps({"name": name, "result": result, "reason": reason}))


if __name__ == "__main__":
    main()
