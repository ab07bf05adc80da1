"""Searching a text for patterns of unknown cost, with a limit on the time.

Python's `re` may take time exponential in the text (``(a+)+$``). It cannot be interrupted from another thread, and
no other thread runs meanwhile. So the search runs in a process of its own, which ends when its time is over.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Optional, Sequence

CPU_SECONDS = (
    1  # of one search, where the system can limit it; a search does not fail because the machine is busy
)
WALL_SECONDS = 10.0  # of one search, everywhere

_CHILD = """
import json, re, sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CPU, ({cpu_seconds}, {cpu_seconds}))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
except ImportError:
    pass  # Windows: the parent's limit remains
patterns, text, flags = json.load(sys.stdin)
found = (number for number, pattern in enumerate(patterns) if re.search(pattern, text, flags))
print(next(found, -1))
"""


class TooSlow(Exception):
    """A search took longer than it may."""


def first_found(patterns: Sequence[str], text: str, flags: int) -> Optional[int]:
    """The position of the first pattern that is found in the text, or None. Raises TooSlow."""
    command = [sys.executable, "-I", "-S", "-c", _CHILD.format(cpu_seconds=CPU_SECONDS)]
    try:
        done = subprocess.run(  # noqa: S603 the command is a constant, and the pattern is data to it
            command,
            input=json.dumps([list(patterns), text, flags]).encode("ascii"),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=WALL_SECONDS,
            check=True,
        )
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
        raise TooSlow from error
    number = int(done.stdout)
    return None if number < 0 else number
