"""Searching a text for patterns whose cost nobody knows, with a limit on their time.

Python's `re` may take time exponential in the text (``(a+)+$``), cannot be interrupted from another thread, and
holds up every other one meanwhile. So such a search runs in a process of its own, which is given up when its time is
over.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Optional, Sequence

CPU_SECONDS = 1  # of one search, where the system can limit it: a busy machine then makes no search fail
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
    """A search was given up."""


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
