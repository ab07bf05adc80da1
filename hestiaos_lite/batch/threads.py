"""A batch's own threads: an executor that an interrupt cannot lock up.

In concurrent.futures (seen on CPython 3.12) the caller's thread takes conditions, which are locks written in Python: for
every ``submit``, and for every question to a future. What a signal handler raises at that moment, as Ctrl-C does, can leave
one taken, and each worker that needs it waits for ever. Here the two sides share nothing but queues and plain attributes.
"""

from __future__ import annotations

import functools
import queue
import threading
from typing import Any, Callable, List, Optional

from ..errors import HestiaError

_OWNER_POLL_SECONDS = 1.0


class Handed:
    """A piece of work given to a thread, and what became of it: as much of a Future as a `Window` asks for."""

    __slots__ = ("_callback", "_failure", "_is_done", "_result", "_work")

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self._is_done = False
        self._result: Any = None
        self._failure: Optional[BaseException] = None
        self._callback: Optional[Callable[[Handed], Any]] = None

    def run(self) -> None:
        """Do the work, in this thread; whatever that raises is kept."""
        try:
            self._result = self._work()
        except BaseException as error:  # noqa: BLE001  # told by `exception`, to the thread that asked for the work
            self._failure = error
        self._is_done = True
        if self._callback is not None:
            self._callback(self)

    def add_done_callback(self, callback: Callable[[Handed], Any]) -> None:
        """Call ``callback`` when the work is done: twice, where that happens at this very moment."""
        self._callback = callback
        if self._is_done:
            callback(self)

    def done(self) -> bool:
        """True once `exception` and `result` have something to tell."""
        return self._is_done

    def cancelled(self) -> bool:
        """False: what a thread was given, it does."""
        return False

    def exception(self) -> Optional[BaseException]:
        """What the work raised."""
        return self._failure

    def result(self) -> Any:
        """What the work returned."""
        return self._result


class Threads:
    """Threads that do what they are given, until they are closed, or the thread that made them is gone.

    Args:
        size: how many; fewer where the system starts no more (a limit on processes or on memory).

    Raises:
        HestiaError: not one can be started; code ``EXECUTOR``.
    """

    def __init__(self, size: int) -> None:
        self._given: queue.SimpleQueue[Optional[Handed]] = queue.SimpleQueue()
        self._owner = threading.current_thread()
        self._threads: List[threading.Thread] = []
        for number in range(size):
            thread = threading.Thread(target=self._serve, name="hestiaos-lite-batch-{}".format(number))
            try:
                thread.start()
            except (RuntimeError, MemoryError) as error:
                if not self._threads:
                    raise HestiaError(
                        "EXECUTOR", "no thread can be started: {}".format(error), delivered=False
                    ) from error
                break
            self._threads.append(thread)

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self._threads)

    def submit(self, function: Callable[..., Any], *args: Any) -> Handed:
        """Have one of the threads call ``function``."""
        handed = Handed(functools.partial(function, *args))
        self._given.put(handed)
        return handed

    def close(self, *, wait: bool) -> None:
        """Let the threads end when what they were given is done, and wait for that if asked to."""
        self._given.put(None)
        if wait:
            for thread in self._threads:
                thread.join()

    def _serve(self) -> None:
        while True:
            try:
                handed = self._given.get(timeout=_OWNER_POLL_SECONDS)
            except queue.Empty:
                if not self._owner.is_alive():
                    return  # it ended without closing us, and the interpreter's own end waits for every thread
                continue
            if handed is None:
                self._given.put(None)  # for the next of us
                return
            handed.run()
