"""How long a call may take: a total deadline, or for a stream a limit on silence."""

from __future__ import annotations

import time
from typing import Callable


class Deadline:
    """The moment by which a call is done or failed. One object goes from the call to the last byte."""

    __slots__ = ("_at", "_clock", "seconds")

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._at = clock() + seconds

    def remaining(self) -> float:
        """Seconds left; zero or less when the deadline has passed."""
        return self._at - self._clock()


class SilenceLimit:
    """How long a stream may send no byte at all; takes a deadline's place where no total is asked for."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def remaining(self) -> float:
        """The same seconds for every read."""
        return self.seconds
