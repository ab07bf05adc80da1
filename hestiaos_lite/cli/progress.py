"""How far a batch has come, on standard error: a bar or a line on a terminal, else one line every 30 s.

Drawn by a thread of its own, so that a pause of minutes shows as one.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import threading
import time
from typing import Any, Dict, Mapping, Optional

from .._redact import harmless
from .._stdio import Writer
from ..batch.rate import Backoff
from ..batch.rows import BLOCKED, OK, OUTCOMES

_TERMINAL_SECONDS = 0.2
_LINE_SECONDS = 30.0


class Progress:
    """Shows how many rows are in each state, until it is closed.

    Args:
        tally: of all rows of the input; it changes as they complete.
        pause: shown while it lasts.
        quiet: show nothing.
    """

    def __init__(self, tally: Mapping[str, int], pause: Backoff, *, quiet: bool) -> None:
        self._tally = tally
        self._pause = pause
        self._total = sum(tally.values())
        self._done_before = self._done()
        self._began_at = time.monotonic()
        self._ended = threading.Event()
        self._stream = Writer(None if quiet else sys.stderr)
        self._bar: Any = None
        self._thread: Optional[threading.Thread] = None
        if quiet:
            return
        if self._stream.is_terminal:
            self._bar = _tqdm(self._total, self._done_before, self._stream)
        thread = threading.Thread(target=self._draw, name="hestiaos-lite-progress", daemon=True)
        with contextlib.suppress(RuntimeError):  # the system gives no thread for it: the rows go on, unshown
            thread.start()
            self._thread = thread

    def close(self) -> None:
        """Show the last state, and leave the terminal's line to others."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        if self._bar is not None:
            self._show()
            self._bar.close()
        elif self._stream.is_terminal:
            self._write("\r\033[K")  # a message gets a line to itself

    def line(self) -> str:
        """Done, ok, blocked, failed, rate and remaining time, in words."""
        done, paused = self._done(), self._pause.wait_seconds()
        rate = (done - self._done_before) / max(1e-9, time.monotonic() - self._began_at)
        return "{}/{} done, {}, {:.1f}/s, {} left{}".format(
            done,
            self._total,
            ", ".join("{} {}".format(name, number) for name, number in self._facts().items()),
            rate,
            _clock((self._total - done) / rate) if rate > 0 else "?",
            ", paused for {:.0f} s: {}".format(paused, harmless(self._pause.reason)) if paused > 1 else "",
        )

    def _done(self) -> int:
        return sum(self._tally.get(outcome, 0) for outcome in OUTCOMES)

    def _facts(self) -> Dict[str, Any]:
        ok, blocked = self._tally.get(OK, 0), self._tally.get(BLOCKED, 0)
        return {"ok": ok, "blocked": blocked, "failed": self._done() - ok - blocked}

    def _draw(self) -> None:
        while not self._ended.wait(_TERMINAL_SECONDS if self._stream.is_terminal else _LINE_SECONDS):
            self._show()

    def _show(self) -> None:
        if self._bar is not None:
            self._bar.n = self._done()
            paused, facts = self._pause.wait_seconds(), self._facts()
            if paused > 1:
                facts["paused"] = "{:.0f} s".format(paused)
            self._bar.set_postfix(facts)
        elif self._stream.is_terminal:
            self._write("\r\033[K" + self._fitting(self.line()))
        else:
            self._write("hestiaos-lite: {}\n".format(self.line()))

    def _fitting(self, line: str) -> str:
        """Cut a line to the terminal as it is now; a character that may take two columns, or none, becomes ``?``."""
        try:
            columns = os.get_terminal_size(self._stream.fileno()).columns or 80
        except (OSError, ValueError, AttributeError):
            columns = 80
        return line.encode("ascii", "replace").decode("ascii")[: columns - 1]

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # there is nobody left to tell
            self._stream.write(text)


def _tqdm(total: int, done: int, stream: Any) -> Any:
    """A bar of tqdm's, or None where it is not installed (extra ``progress``)."""
    try:
        tqdm = importlib.import_module("tqdm")
    except ImportError:
        return None
    return tqdm.tqdm(total=total, initial=done, file=stream, unit="row", dynamic_ncols=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return "{}:{:02d}:{:02d}".format(hours, minutes, rest) if hours else "{}:{:02d}".format(minutes, rest)
