"""How far a batch has come, on standard error: what is drawn, and that it fits."""

from __future__ import annotations

import contextlib
import os
import re
import struct
import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest

from hestiaos_lite.batch.rate import Backoff
from hestiaos_lite.cli import progress


class Terminal:
    def __init__(self, is_terminal: bool) -> None:
        self.text = ""
        self.isatty = lambda: is_terminal

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass


@pytest.mark.parametrize(("is_terminal", "options", "text"), [
    (False, {}, r"(hestiaos-lite: .* left\n)*hestiaos-lite: 6/10 done, ok 3, blocked 1, failed 2, .* left\n"),
    (True, {}, r"\r\033\[K[^\n]*6/10 done, ok 3, blocked 1, failed 2, [^\n]*\r\033\[K"),
    (True, {"quiet": True}, ""),
    (True, {"bar": True}, r"(?s).*6/10.*ok=3, blocked=1, failed=2, paused=9\d s.*"),
], ids=["lines", "one line that goes away", "quiet", "tqdm"])  # fmt: skip
def test_what_is_drawn(monkeypatch: pytest.MonkeyPatch, is_terminal: bool, options: Any, text: str) -> None:
    stream, pause = Terminal(is_terminal), Backoff()
    if "bar" in options:
        pytest.importorskip("tqdm")
        pause.rejected(time.monotonic(), 99, "")
    else:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress, "_TERMINAL_SECONDS", 0.02)
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0.02)
    tally = {"ok": 2, "unsent": 8}
    with contextlib.closing(progress.Progress(tally, pause, quiet="quiet" in options)):
        tally.update(ok=3, blocked=1, again=1, unknown=1, sent=1, unsent=3)
        deadline = time.monotonic() + 10
        while not ("6/10" in stream.text or "quiet" in options) and time.monotonic() < deadline:
            time.sleep(0.01)
    assert re.match(text + r"\Z", stream.text), stream.text


@pytest.mark.parametrize("seconds, done, words", [
    (0, 2, "0.0/s, ? left"),
    (1, 12, "10.0/s, 1:38 left"),
    (10, 12, "1.0/s, 16:28 left"),
    (40, 12, "0.2/s, 1:05:52 left"),
    (40, 1000, "24.9/s, 0:00 left"),
])  # fmt: skip
def test_the_rate_is_that_of_this_run(
    monkeypatch: pytest.MonkeyPatch, seconds: float, done: int, words: str
) -> None:
    now = SimpleNamespace(monotonic=lambda: 50.0)
    monkeypatch.setattr(progress, "time", now)
    tally = {"ok": 2, "unsent": 998}  # two are an earlier run's
    shows = progress.Progress(tally, Backoff(), quiet=True)
    now.monotonic = lambda: 50.0 + seconds
    tally.update(ok=done, unsent=1000 - done)
    assert shows.line() == "{0}/1000 done, ok {0}, blocked 0, failed 0, {1}".format(done, words)


def test_a_pause_is_shown_with_its_reason() -> None:
    pause = Backoff()
    pause.rejected(time.monotonic(), 90, "[X] \x1b[2J\nall is well")
    line = progress.Progress({"unsent": 10}, pause, quiet=True).line()
    assert line.endswith(", ? left, paused for 90 s: [X] \\x1b[2J all is well")


@pytest.mark.skipif(os.name != "posix", reason="terminals of POSIX")
def test_a_line_fits_the_terminal_also_after_it_was_made_smaller() -> None:
    import fcntl
    import termios

    leader, follower = os.openpty()
    pause = Backoff()
    pause.rejected(time.monotonic(), 90, "[\x1b[2J] \u65e5\u672c\r" * 20)
    with open(follower, "w", encoding="utf-8") as terminal:
        shows = progress.Progress({"unsent": 100000}, pause, quiet=True)
        shows._stream = terminal  # type: ignore[assignment]
        for columns in (40, 20, 100, 1, 0):
            fcntl.ioctl(leader, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
            line = shows._fitting(shows.line())
            assert line.isascii() and line.isprintable()
            assert len(line) == (columns or 80) - 1
    os.close(leader)
