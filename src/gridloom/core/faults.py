"""Places where tests make a process fail: `GRIDLOOM_FAULT=place:nth:kill|raise` in its environment.

Without the variable a place costs one dictionary look-up.
"""

import os
import signal
from collections import Counter

__all__ = ["point"]

_passed: Counter[str] = Counter()


def point(place: str) -> None:
    """Pass a place; the nth time, do what the environment asks."""
    order = os.environ.get("GRIDLOOM_FAULT")
    if order is None:
        return
    wanted, nth, action = order.split(":")
    if wanted != place:
        return
    _passed[place] += 1
    if _passed[place] == int(nth):
        if action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(f"injected fault at {place}")
