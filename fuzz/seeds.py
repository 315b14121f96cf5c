"""Writes a fuzz target's seeds: the recorded packets that it understands, one a file.

    seeds.py TARGET TESTDATA CORPUS
"""

import hashlib
import pathlib
import re
import sys

FILES = {
    "connect": ["connect"],
    "request": ["requests", "multi"],
    "multi": ["multi"],
    "txn": ["txn"],
    "quorum": ["quorum"],
    "election": ["election"],
    "snapshot": ["snapshot"],
    "log_file": ["../../zk-server/testdata/plain"],
}


def packets(text):
    for section in re.split(r"^(?=[A-Z])", text, flags=re.MULTILINE):
        digits = "".join(re.findall(r"^  ([0-9a-f]+)$", section, flags=re.MULTILINE))
        if digits:
            yield bytes.fromhex(digits)


def main():
    target, testdata, corpus = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    seeds = [b"/a/b", "/\u00e4".encode(), b"/"] if target == "path" else []
    for file in FILES.get(target, []):
        seeds += packets((testdata / f"{file}.txt").read_text(encoding="utf-8"))
    for seed in seeds:
        (corpus / hashlib.sha1(seed).hexdigest()).write_bytes(seed)


if __name__ == "__main__":
    main()
