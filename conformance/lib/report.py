#!/usr/bin/env python3
"""Turns a suite's raw results into its report: the lines on standard output, the JSON file, the exit code.

    report.py --suite NAME --version V --server S --results FILE --expected FILE [--json FILE] [--seconds N] [--partial]

FILE of --results holds one JSON object a line: {"name", "result": passed|failed|skipped, "reason"}. A case reported more
than once counts once, with its worst result. With --server apache and RECORD_BASELINE set, the counts and the cases that
did not pass are also written beside expected.txt as apache-<release>.json.

expected.txt: `case<TAB>skip|fail|apache-fail<TAB>reason`, where the case may be a shell-style pattern.
  skip         not part of what is asked of one server; it counts as skipped whatever it did
  fail         a known gap of paddock: it must fail there, so that closing the gap shows, and must pass on Apache
  apache-fail  Apache itself fails it (or fails it at times): neither server is held to it
Exit code: 0 when no unlisted case failed and no case listed as `fail` passed, 1 otherwise, 2 without any result.
"""

import argparse
import fnmatch
import json
import os
import sys

RANK = {"skipped": 0, "passed": 1, "failed": 2}


def read_expected(path):
    rules = []
    if not os.path.exists(path):
        return rules
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            line = line.rstrip("\n")
            if not line.strip() or line.startswith("#"):
                continue
            fields = line.split("\t")
            if len(fields) != 3 or fields[1] not in ("skip", "fail", "apache-fail"):
                sys.exit(f"{path}:{number}: want case<TAB>skip|fail|apache-fail<TAB>reason")
            rules.append(tuple(fields))
    return rules


def rule_for(name, rules):
    for pattern, kind, reason in rules:
        if pattern == name or fnmatch.fnmatchcase(name, pattern):
            return pattern, kind, reason
    return None, None, ""


def read_results(path):
    cases = {}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            if not line.strip():
                continue
            case = json.loads(line)
            old = cases.get(case["name"])
            if old is None or RANK[case["result"]] > RANK[old["result"]]:
                cases[case["name"]] = {
                    "name": case["name"],
                    "result": case["result"],
                    "reason": (case.get("reason") or "").strip(),
                }
    return list(cases.values())


def one_line(text, limit=200):
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--suite", required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--server", required=True)
    parser.add_argument("--results", required=True)
    parser.add_argument("--expected", required=True)
    parser.add_argument("--json", default="")
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--partial", action="store_true", help="only some cases were asked for")
    args = parser.parse_args()

    rules = read_expected(args.expected)
    cases = read_results(args.results)
    if not cases:
        print(f"{args.suite}: no case ran", file=sys.stderr)
        return 2

    bad = False
    failed_lines = []
    for case in cases:
        _, kind, reason = rule_for(case["name"], rules)
        result = case["result"]
        if kind == "skip":
            case["result"], case["reason"] = "skipped", reason
            continue
        if result == "failed":
            note = ""
            if kind == "apache-fail":
                note = " [Apache fails it too: " + reason + "]"
            elif kind == "fail" and args.server != "apache":
                note = " [listed: " + reason + "]"
            else:
                bad = True
            failed_lines.append(f"FAILED {case['name']}: {one_line(case['reason'])}{note}")
        elif result == "passed" and kind == "fail" and args.server != "apache":
            bad = True
            failed_lines.append(f"PASSES NOW {case['name']}: remove it from expected.txt ({reason})")

    for line in failed_lines:
        print(line)
    names = {case["name"] for case in cases}
    if not args.partial:
        # A listed case that no longer exists hides what it once excused.
        for pattern, kind, _ in rules:
            if not any(pattern == name or fnmatch.fnmatchcase(name, pattern) for name in names):
                print(f"note: {args.suite}/expected.txt lists {pattern}, which did not show up", file=sys.stderr)

    count = {"passed": 0, "failed": 0, "skipped": 0}
    for case in cases:
        count[case["result"]] += 1
    cases.sort(key=lambda case: case["name"])
    report = {
        "suite": args.suite,
        "version": args.version,
        "server": args.server,
        **count,
        "cases": cases,
        "seconds": round(args.seconds, 1),
    }
    if args.json:
        with open(args.json, "w", encoding="utf-8") as out:
            json.dump(report, out, indent=1, ensure_ascii=False)
            out.write("\n")
    if os.environ.get("RECORD_BASELINE") and args.server == "apache" and not args.partial:
        baseline = dict(report)
        baseline["cases"] = [
            {**case, "reason": one_line(case["reason"])} for case in cases if case["result"] != "passed"
        ]
        release = os.environ.get("APACHE_VERSION", "3.9.5")
        path = os.path.join(os.path.dirname(os.path.abspath(args.expected)), f"apache-{release}.json")
        with open(path, "w", encoding="utf-8") as out:
            json.dump(baseline, out, indent=1, ensure_ascii=False)
            out.write("\n")
    print(f"{args.suite} {args.server}: passed {count['passed']} failed {count['failed']} skipped {count['skipped']}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
