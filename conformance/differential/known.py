"""Differences that were decided on purpose, or that are Apache's own mishaps. A step that has one does not count as a failure; the
sequence goes on where both servers are in the same state behind it, and ends where they may not be.

    find(step, apache, paddock)     the rule that explains a difference, or None

Of one more nothing is asked: creating `/zookeeper/quota/zookeeper_limits` (or `zookeeper_stats`) ends Apache's process, as the path
that the limits are for is empty. Paddock takes it for a node like any other.
"""

from typing import Callable, NamedTuple

import jute
from steps import (
    AUTH, CHECK_WATCHES, CREATE, CREATE2, CREATE_CONTAINER, CREATE_SESSION, CREATE_TTL, DELETE_CONTAINER, MULTI_READ,
    REMOVE_WATCHES, SET_ACL, SET_WATCHES, SET_WATCHES2,
)  # fmt: skip

NULL = b"\xff\xff\xff\xff"
INVALID_ACL = (-114).to_bytes(4, "big", signed=True)


class Rule(NamedTuple):
    name: str
    ends: bool  # whether what the servers hold may differ behind it
    reason: str
    applies: Callable


def requests(step):
    return step.get("requests", [step]) if step["do"] in ("ask", "burst") else []


def has(step, *ops):
    return any(request["op"] in ops for request in requests(step))


def bodies(step, *ops):
    return [bytes.fromhex(request["body"]) for request in requests(step) if not ops or request["op"] in ops]


def errors(outcome):
    """The codes of the replies, in their order."""
    return [int.from_bytes(data[12:16], "big", signed=True) for _, what, data in outcome if what == "reply" and len(data) >= 16]


def differing(apache, paddock):
    """The pairs of codes that are not the same."""
    return [pair for pair in zip(errors(apache), errors(paddock)) if pair[0] != pair[1]]


def answers(outcome):
    """The lines of a four-letter word's answer."""
    return b"".join(data for _, what, data in outcome if what == "answer").decode(errors="replace").split("\n")


def without_flag(body):
    """Whether the flags of a createTTL are not those of a TTL node. They stand before the last eight bytes."""
    return int.from_bytes(body[-12:-8], "big", signed=True) not in (5, 6)


def is_cut(op, body):
    try:
        jute.Reader(body).fields(jute.REQUESTS[op])
    except (KeyError, jute.Short, TypeError):
        return True
    return False


RULES = [
    Rule(
        "internal operations", True,
        "createSession and deleteContainer are not for clients: no ACL is checked there. Paddock answers as to an unknown operation.",
        lambda step, apache, paddock: has(step, CREATE_SESSION, DELETE_CONTAINER),
    ),
    Rule(
        "createTTL without a TTL flag", True,
        "Upstream lets it through prep, and the server ends when it applies it. Paddock refuses it before it looks at anything else.",
        lambda step, apache, paddock: any(map(without_flag, bodies(step, CREATE_TTL))) and -8 in errors(paddock),
    ),
    Rule(
        "null in an ACL", False,
        "Upstream's schemes trip over a null id (MARSHALLINGERROR); to Paddock it is one that no scheme accepts (INVALIDACL).",
        lambda step, apache, paddock: any(NULL in body for body in bodies(step))
        and differing(apache, paddock) in ([(-5, -114)], [(-5, 0)])
        and any(what == "reply" and INVALID_ACL in data for _, what, data in paddock),
    ),
    Rule(
        "null path in a create", False,
        "Upstream looks at the mode before it trips over the path. Paddock answers what is wrong with the path alone.",
        lambda step, apache, paddock: any(body.startswith(NULL) for body in bodies(step, CREATE, CREATE2, CREATE_CONTAINER, CREATE_TTL))
        and differing(apache, paddock) in ([(-6, -5)], [(-8, -5)]),
    ),
    Rule(
        "null path in a body that is cut", True,
        "Upstream takes a zxid when it has read the body; Paddock sees the null first, and takes one.",
        lambda step, apache, paddock: any(body.startswith(NULL) and is_cut(request["op"], body) for request, body in zip(requests(step), bodies(step)))
        and -5 in errors(apache),
    ),
    Rule(
        "null in setWatches", True,
        "Upstream trips over a null list half-way, with what stood before it done, and may watch a null path. To Paddock the list is an "
        "empty one, and the path an error. No client sends either.",
        lambda step, apache, paddock: any(NULL in body[8:] for body in bodies(step, SET_WATCHES, SET_WATCHES2))
        and -5 in errors(apache) + errors(paddock),
    ),
    Rule(
        "null path in a multiRead", False,
        "Upstream sends what it had read before it tripped over the null beside the error, where no client looks.",
        lambda step, apache, paddock: any(NULL in body for body in bodies(step, MULTI_READ)) and -5 in errors(apache) and not differing(apache, paddock),
    ),
    Rule(
        "null path and a watcher type that is none", False,
        "Upstream looks at the type first (MARSHALLINGERROR); Paddock says that nobody watches null.",
        lambda step, apache, paddock: any(body.startswith(NULL) for body in bodies(step, REMOVE_WATCHES, CHECK_WATCHES))
        and differing(apache, paddock) == [(-5, -121)],
    ),
    Rule(
        "null scheme in a body that is cut", True,
        "Upstream closes without an answer; Paddock sees the null first, and says that authentication failed before it closes.",
        lambda step, apache, paddock: any(body[4:8] == NULL and is_cut(AUTH, body) for body in bodies(step, AUTH))
        and -115 in errors(paddock) and -115 not in errors(apache),
    ),
    Rule(
        "setACL and what comes right behind it", True,
        "Upstream checks what is pipelined behind a setACL by the ACL that was there before, until the setACL is applied. To Paddock "
        "what was asked for earlier counts.",
        lambda step, apache, paddock: step["do"] == "burst" and has(step, SET_ACL) and any(-102 in pair for pair in differing(apache, paddock)),
    ),
    Rule(
        "size of a quota's statistics", False,
        "Upstream's approximate_data_size does not follow the znodes in which it keeps what a quota has used; Paddock's does.",
        lambda step, apache, paddock: step.get("word") == "mntr"
        and {line.split(" ")[0] for line in {*answers(apache)} ^ {*answers(paddock)}} == {"approximate_data_size"},
    ),
    Rule(
        "a digest that is noted twice", False,
        "Upstream's list of digests can have a zxid twice.",
        lambda step, apache, paddock: step.get("word") == "hash" and {*answers(apache)} == {*answers(paddock)},
    ),
    Rule(
        "characters beyond the basic plane", False,
        "Java writes each as two surrogates of three bytes, which is no UTF-8 and which no client decodes. Paddock writes UTF-8.",
        lambda step, apache, paddock: any(b"\xed\xa0" in data for _, _, data in apache) and not any(b"\xed\xa0" in data for _, _, data in paddock),
    ),
    Rule(
        "stmk in two parts", False,
        "Upstream wants the eight bytes of the mask in the same packet and drops the connection; Paddock waits for them.",
        lambda step, apache, paddock: step["do"] == "word" and step["word"] == "stmk",
    ),
]


def find(step, apache, paddock):
    return next((rule for rule in RULES if rule.applies(step, apache, paddock)), None)
