#!/usr/bin/env python3
"""Runs every suite of the conformance folder in turn and prints one table. Called by conformance/run."""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time


def find_suites(folder):
    """Folders with an executable `run` and the list of what is expected of it, the cheapest to obtain first."""
    first = ["zkcli", "zkcli-3.8", "zkcli-3.5", "paddock-cli", "node", "go-zk", "rust-clients", "kazoo", "c-client", "java-tests"]
    first += ["java-client-3.8", "java-client-3.5", "curator"]
    names = [
        name
        for name in os.listdir(folder)
        if os.path.isfile(os.path.join(folder, name, "run"))
        and os.access(os.path.join(folder, name, "run"), os.X_OK)
        and os.path.exists(os.path.join(folder, name, "expected.txt"))
    ]
    return sorted(names, key=lambda name: (first.index(name) if name in first else len(first), name))


def run_suite(folder, name, server, quick, logs, limit):
    report_path = os.path.join(logs, f"{name}-{server}.json")
    log_path = os.path.join(logs, f"{name}-{server}.log")
    if os.path.exists(report_path):
        os.remove(report_path)
    command = [os.path.join(folder, name, "run"), "--server", server, "--json", report_path]
    if quick:
        command.append("--quick")
    began = time.monotonic()
    with open(log_path, "w", encoding="utf-8") as log:
        # Its own process group, so that a suite over its time goes with all it started.
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = child.wait(limit)
            why = ""
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGTERM)
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
            code, why = 2, f"took longer than {limit} s"
        except KeyboardInterrupt:
            os.killpg(child.pid, signal.SIGTERM)
            child.wait()
            raise
    seconds = time.monotonic() - began
    with open(log_path, encoding="utf-8", errors="replace") as log:
        # Maven ends with codes that reset colours, whatever it is told: they stand in front of the next line.
        text = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip("\n") for line in log if line.strip()]
    row = {"suite": name, "server": server, "exit": code, "seconds": round(seconds, 1), "log": text}
    try:
        with open(report_path, encoding="utf-8") as report:
            row["report"] = json.load(report)
    except (OSError, ValueError):
        row["report"] = None
        row["exit"] = 2
    if row["exit"] == 2 and not why:
        why = text[-1] if text else "no output"
    row["why"] = why
    return row


def baseline(folder, name, release="3.9.5"):
    try:
        with open(os.path.join(folder, name, f"apache-{release}.json"), encoding="utf-8") as recorded:
            return json.load(recorded)
    except (OSError, ValueError):
        return None


def format_table(rows, folder):
    head = ["suite", "version", "server", "passed", "failed", "skipped", "Apache 3.9.5 (recorded)", "seconds", ""]
    lines = [head]
    for row in rows:
        report, recorded = row["report"], baseline(folder, row["suite"])
        reference = f"{recorded['passed']} / {recorded['failed']} / {recorded['skipped']}" if recorded else "-"
        verdict = {0: "ok", 1: "NOT AS EXPECTED"}.get(row["exit"], "DID NOT RUN")
        if report:
            lines.append(
                [row["suite"], str(report.get("version", "")), row["server"]]
                + [str(report[key]) for key in ("passed", "failed", "skipped")]
                + [reference, f"{row['seconds']:.0f}", verdict]
            )
        else:
            lines.append([row["suite"], "", row["server"], "", "", "", reference, f"{row['seconds']:.0f}", verdict])
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |"
        + ("\n|" + "|".join("-" * (width + 2) for width in widths) + "|" if number == 0 else "")
        for number, line in enumerate(lines)
    )


def main():
    folder = sys.argv[1]
    parser = argparse.ArgumentParser(prog="conformance/run")
    parser.add_argument("--quick", action="store_true", help="a form of each suite that takes a few minutes")
    parser.add_argument("--server", choices=["paddock", "apache", "both"], default="paddock")
    parser.add_argument("--json", default="", metavar="FILE", help="write the table and every suite's report")
    parser.add_argument("--logs", default="", metavar="DIR", help="keep each suite's output and report there")
    parser.add_argument("--limit", type=int, default=0, metavar="SECONDS", help="most time for one suite")
    parser.add_argument("--list", action="store_true", help="print the suites and stop")
    parser.add_argument("suites", nargs="*")
    args = parser.parse_args(sys.argv[2:])

    known = find_suites(folder)
    if args.list:
        print("\n".join(known))
        return 0
    for name in args.suites:
        if name not in known:
            parser.error(f"no suite {name}; there are: {', '.join(known)}")
    limit = args.limit or (1500 if args.quick else 5400)
    logs = args.logs or tempfile.mkdtemp(prefix="paddock-conformance-logs.")
    logs = os.path.abspath(logs)
    os.makedirs(logs, exist_ok=True)

    rows = []
    servers = ["apache", "paddock"] if args.server == "both" else [args.server]
    for name in args.suites or known:
        for server in servers:
            print(f"== {name} against {server}", file=sys.stderr, flush=True)
            row = run_suite(folder, name, server, args.quick, logs, limit)
            rows.append(row)
            tell = [line for line in row["log"] if line.startswith(("FAILED", "PASSES NOW"))]
            if row["exit"] == 2:
                tell = [*row["log"][-15:], f"{name} did not run: {row['why']}"]
            for line in tell:
                print("   " + line, flush=True)
            print("   " + (row["log"][-1] if row["log"] else "no output"), file=sys.stderr, flush=True)

    print(format_table(rows, folder))
    total = {key: sum(row["report"][key] for row in rows if row["report"]) for key in ("passed", "failed", "skipped")}
    print(f"logs and reports: {logs}", file=sys.stderr)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as out:
            table = [{key: row[key] for key in ("suite", "server", "exit", "seconds", "why", "report")} for row in rows]
            json.dump({"quick": args.quick, **total, "suites": table}, out, indent=1, ensure_ascii=False)
            out.write("\n")
    unexpected = [row for row in rows if row["exit"] != 0]
    print(f"{len(rows)} suites, {len(unexpected)} not as expected")
    print(f"conformance: {total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped")
    if any(row["exit"] == 2 for row in rows):
        return 2
    return 1 if unexpected else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
