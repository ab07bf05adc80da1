"""Signals of a host program while a batch runs: put off until a point where an exception loses nothing.

A handler may raise anywhere, Ctrl-C's does: between a row's being drawn and its being noted, or inside a lock that
concurrent.futures has written in Python, which then stays taken. As asyncio.Runner has it, the first signal is put off until
the loop looks (`Interrupts.check`), and one that comes while the first still waits is delivered at once.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from types import TracebackType
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple, Type

_NAMES = ("SIGINT", "SIGTERM", "SIGALRM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGBREAK")
_NUMBERS = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]


class Interrupts:
    """Within the block, signals that have a handler in Python are put off; in the main thread, others get none.

    Args:
        wake: called by a signal that is put off, to end whatever wait there is; from a handler, so it must take no lock.
    """

    def __init__(self, wake: Callable[[], Any]) -> None:
        self._wake = wake
        self._handlers: Dict[int, Any] = {}
        self._waiting: List[Tuple[int, Any]] = []
        self._at_once = False

    def __enter__(self) -> Interrupts:
        self._at_once = False
        if threading.current_thread() is threading.main_thread():
            try:
                for number in _NUMBERS:
                    handler = signal.getsignal(number)
                    if callable(handler):  # SIG_DFL and SIG_IGN are not
                        self._handlers[number] = handler
                        signal.signal(number, self._put_off)
            except BaseException:  # of the host's handler: for a signal whose turn had not come
                self._give_back()
                raise
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Any, trace: Optional[TracebackType]
    ) -> None:
        self._give_back()
        if kind is None:
            self.check()

    def _give_back(self) -> None:
        try:
            while self._handlers:
                number, handler = next(iter(self._handlers.items()))
                if signal.getsignal(number) == self._put_off:  # else the caller's code has set another
                    signal.signal(number, handler)
                self._handlers.pop(number, None)
        except BaseException:  # of a handler that was given back: the others are to be as well
            self._give_back()
            raise

    def check(self) -> None:
        """Deliver what was put off: the handler may raise."""
        while self._waiting:
            number, frame = self._waiting.pop(0)
            handler = self._handlers.get(number) or signal.getsignal(number)
            if callable(handler):
                handler(number, frame)

    @contextlib.contextmanager
    def none_put_off(self) -> Iterator[None]:
        """Within the block deliver each at once: what runs there may wait for ever."""
        self.check()
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def _put_off(self, number: int, frame: Any) -> None:
        if self._at_once or self._waiting:
            self._handlers[number](number, frame)
        else:
            self._waiting.append((number, frame))
            self._wake()
