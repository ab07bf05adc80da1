"""A batch's own threads, as an executor; fewer where the system starts no more."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Executor, Future
from typing import Any, Callable, List, Optional, Tuple

from ..errors import HestiaError

_Work = Tuple["Future[Any]", Callable[..., Any], Tuple[Any, ...]]


class Threads(Executor):
    """Starts all its threads at once, so that none can be missing for a row that was queued already.

    concurrent.futures starts them as rows come: on a system that has no thread left its submit raises after it has queued the
    row, which may then be sent all the same. Daemons, so that a run that was left unfinished does not hold the process.

    Raises:
        HestiaError: not one can be started; code ``EXECUTOR``.
    """

    def __init__(self, size: int) -> None:
        self._given: queue.SimpleQueue[Optional[_Work]] = queue.SimpleQueue()
        self._threads: List[threading.Thread] = []
        for number in range(size):
            name = "hestiaos-lite-batch-{}".format(number)
            thread = threading.Thread(target=self._serve, name=name, daemon=True)
            try:
                thread.start()
            except (RuntimeError, MemoryError) as error:
                if not self._threads:
                    what = "no thread can be started: {}".format(error)
                    raise HestiaError("EXECUTOR", what, delivered=False) from error
                break
            self._threads.append(thread)

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self._threads)

    def submit(self, fn: Callable[..., Any], *args: Any, **_: Any) -> Future[Any]:  # type: ignore[override]
        """Have one of the threads call ``fn``."""
        future: Future[Any] = Future()
        self._given.put((future, fn, args))
        return future

    def shutdown(self, wait: bool = True, **_: Any) -> None:
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
