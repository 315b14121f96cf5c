"""Differences that were decided on purpose. Each is a rule: when a step has it, the sequence goes on where both servers are still
in the same state, and ends where they are not; nothing of it counts as a failure.

    find(step, apache, paddock)     the name of the rule, or None
"""


def error_of(outcome):
    """The error code of the first reply, if there is one."""
    for _, what, data in outcome:
        if what == "reply" and len(data) >= 16:
            return int.from_bytes(data[12:16], "big", signed=True)
    return None


RULES = []


def find(step, apache, paddock):
    for name, _, applies in RULES:
        if applies(step, apache, paddock):
            return name
    return None
