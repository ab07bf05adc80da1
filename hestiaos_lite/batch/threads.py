"""What concurrent.futures leaves to its caller: a batch's threads, all started at once, and signals that wait.

A handler may raise anywhere, Ctrl-C's does: between a row's being drawn and its being noted, or inside a lock that
concurrent.futures has written in Python, which then stays taken. As asyncio.Runner has it, the first signal is put off until
the loop looks (`Interrupts.check`), and one that comes while the first still waits is delivered at once.
"""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple, Type

from ..errors import HestiaError

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


class Threads:
    """A run's own threads, with what is used of an executor here.

    All start at once, so that none can be missing for a row that was queued: where the system has no thread left, the submit
    of concurrent.futures raises after it has queued the row, which may then be sent all the same. Here there are fewer
    threads then, or a HestiaError (``EXECUTOR``). As daemons they do not hold a process that has left its run unfinished.
    """

    def __init__(self, size: int) -> None:
        self._given: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._threads: List[threading.Thread] = []
        try:
            for number in range(size):
                name = "hestiaos-lite-batch-{}".format(number)
                thread = threading.Thread(target=self._serve, name=name, daemon=True)
                thread.start()
                self._threads.append(thread)
        except (RuntimeError, MemoryError) as error:
            if not self._threads:
                what = "no thread can be started: {}".format(error)
                raise HestiaError("EXECUTOR", what, delivered=False) from error
        self.size = len(self._threads)

    def submit(self, fn: Callable[..., Any], *args: Any) -> Future[Any]:
        """Have one of the threads call ``fn``."""
        future: Future[Any] = Future()
        self._given.put((future, fn, args))
        return future

    def shutdown(self, *, wait: bool) -> None:
        """Let the threads end when what they were given is done, and wait for that if asked to."""
        self._given.put(None)
        for thread in self._threads if wait else ():
            thread.join()

    def _serve(self) -> None:
        while True:
            work = self._given.get()
            if work is None:
                self._given.put(None)  # for the next of us
                return
            future, fn, args = work
            try:
                future.set_result(fn(*args))
            except BaseException as error:  # noqa: BLE001 - the future has it
                future.set_exception(error)
            del work, future
