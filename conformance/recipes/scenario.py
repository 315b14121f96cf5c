"""The recipes under faults and the arithmetic of quorums. Called by run."""

import argparse
import fnmatch
import json
import os
import signal
import sys
import time

sys.dont_write_bytecode = True
import quorum  # noqa: E402
from campaign import FAULTS, Campaign, languages  # noqa: E402
from ensemble import Broken, say  # noqa: E402
from groups import RECIPES  # noqa: E402
from network import Network  # noqa: E402

QUICK_FAULTS = ("kill-leader", "partition-leader", "pause-client")
# Those of which two must never be: what starts a JVM for each participant is left to the full run otherwise.
QUICK_RECIPES = {"kazoo": list(RECIPES), "rust": list(RECIPES), "curator": ["election", "lock"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--server", "--work", "--results", "--java", "--classpath", "--python", "--rust"):
        parser.add_argument(name, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--logs", default="", help="a folder for what the programs of failed cases said")
    parser.add_argument("only", nargs="*", help="a part of a case's name or a pattern")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if args.logs:
        os.makedirs(args.logs, exist_ok=True)
    # Servers: as many as the largest case has. Clients: one host for each number that a participant may have.
    network = Network([*(f"s{n}" for n in range(1, 6)), *(f"c{n}" for n in range(1, 4))])
    args.no_network = network.missing
    if network.missing:
        say(f"  no partitions: {network.missing}")
    results = open(args.results, "w", encoding="utf-8", buffering=1)

    def wanted(name):
        return not args.only or any(fnmatch.fnmatch(name, f"*{pattern}*") for pattern in args.only)

    def report(name, result, reason=""):
        if wanted(name):
            results.write(json.dumps({"name": name, "result": result, "reason": reason}) + "\n")
            if result == "failed":
                say(f"  FAILED {name}: {reason}")

    try:
        known = languages(args)
        batches = [["kazoo", "rust", "curator"]] if args.quick else [["kazoo"], ["rust"], ["curator"]]
        for number, batch in enumerate(batches):
            faults = [name for name in FAULTS if not args.quick or name in QUICK_FAULTS]
            recipes = {
                name: [
                    recipe
                    for recipe in (QUICK_RECIPES[name] if args.quick else RECIPES)
                    if any(wanted(f"{recipe}/{name}/{case}") for case in ("calm", *faults, "in-the-end"))
                ]
                for name in batch
            }
            if not any(recipes.values()):
                continue
            faults = [
                fault for fault in faults
                if any(wanted(f"{recipe}/{name}/{case}") for name in batch for recipe in recipes[name] for case in (fault, "in-the-end"))
            ]  # fmt: skip
            folder = os.path.join(args.work, f"campaign{number}")
            os.makedirs(folder)
            say(f" {', '.join(batch)} on three servers")
            begun = time.monotonic()
            try:
                chosen = None if network.missing else network
                Campaign(args, report, [known[name] for name in batch], recipes, chosen, folder).run(faults)
            except (Broken, OSError) as error:
                for name in batch:
                    for recipe in recipes[name]:
                        report(f"{recipe}/{name}/in-the-end", "failed", f"the campaign broke: {error}")
            say(f" {', '.join(batch)}: {time.monotonic() - begun:.0f} s")
        quorum.run(args, report, wanted, network)
    finally:
        network.close()
        results.close()


if __name__ == "__main__":
    main()
