"""What a case finds, and its patience."""

import time


class Broken(Exception):
    """What a case found."""


class Skipped(Exception):
    """Why a case cannot be tried here."""


def until(what, condition, patience=120.0, every=0.2, again=OSError):
    """What `condition` returns once it is true, within `patience` seconds; while it raises `again` it is not."""
    end = time.monotonic() + patience
    last = None
    while True:
        try:
            last = condition()
            if last:
                return last
        except again as error:
            last = error
        if time.monotonic() > end:
            raise Broken(f"{what}: not within {patience:.0f} s{f' ({last})' if last else ''}")
        time.sleep(every)
