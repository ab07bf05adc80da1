"""The window of a batch: the rows that an executor has been given and has not given back.

Of an executor only ``submit`` and the future's own methods are used, and a lent one is believed only where all executors
mean the same: that a future is done. That it has cancelled a row, or has raised when it was given one, says nothing of
whether the row was sent: a pool queues a row before it starts a thread for it, and dask cancels what a worker is executing.
"""

from __future__ import annotations

import functools
import queue
import time
from concurrent.futures import Executor, Future
from operator import length_hint
from typing import Any, Dict, List, Optional, Union

from .threads import Handed, Threads
from .worker import Task, work


class Sending:
    """A row on its way and what was tried so far.

    Args:
        item: a BatchRow, or the BatchResult of a row that cannot be sent.
    """

    def __init__(self, item: Any) -> None:
        self.item = item
        self.sendings = 0
        self.attempts = 0
        self.seconds = 0.0
        self.refusals = 0
        self.sent_at = 0.0
        self.first_refused_at = 0.0
        self.turn = iter((True,))  # to be told, once: whoever tells takes it

    @property
    def is_settled(self) -> bool:
        """Its result was told, or is being told: every row gets one."""
        return not length_hint(self.turn)


class Window:
    """The rows in flight.

    Args:
        task: what the executor does with each.
        executor: None makes threads of its own, which `close` ends; a lent one is never ended.
        size: rows in flight at most; fewer where the system starts no more threads of our own.

    Raises:
        HestiaError: not one thread can be started; code ``EXECUTOR``.
    """

    def __init__(self, task: Task, executor: Optional[Executor], size: int) -> None:
        self._task = task
        self._own = Threads(size) if executor is None else None
        self._executor: Any = executor or self._own
        self.size = size if self._own is None else self._own.size
        self._in_flight: Dict[Sending, Union[Future[Any], Handed, None]] = {}  # None: it is being handed over
        self._done: queue.SimpleQueue[Sending] = queue.SimpleQueue()

    def __len__(self) -> int:
        return len(self._in_flight)

    @property
    def sendings(self) -> List[Sending]:
        """What is in flight."""
        return list(self._in_flight)

    @property
    def half_sent(self) -> List[Sending]:
        """What an interrupt found being handed over: nobody can know whether the executor has it."""
        return [sending for sending, future in self._in_flight.items() if future is None]

    @property
    def has_completed(self) -> bool:
        """True when a completed row waits to be taken in."""
        return not self._done.empty()

    def send(self, sending: Sending) -> None:
        """Hand a row over; raises whatever the executor raises, after which the row may have been sent all the same."""
        sending.sendings += 1
        sending.sent_at = time.monotonic()
        self._in_flight[sending] = None
        future = self._executor.submit(work, self._task, sending.item, sending.sendings)
        self._in_flight[sending] = future
        future.add_done_callback(functools.partial(self._completed, sending))

    def completed(self, timeout: float) -> List[Sending]:
        """Wait until a row has completed, and return all that have; none where the time is up.

        One may be returned twice, so look at its `future`: an interrupt may lose the notice that it has completed, and what
        the queue does not tell within the timeout is looked for.
        """
        found: List[Sending] = []
        try:
            found.append(self._done.get(timeout=timeout))
            while True:
                found.append(self._done.get_nowait())
        except queue.Empty:
            return found or [sending for sending in self._in_flight if self.future(sending)]

    def future(self, sending: Sending) -> Union[Future[Any], Handed, None]:
        """The future of a row that has completed and was not yet forgotten, else None."""
        future = self._in_flight.get(sending)
        return future if future is not None and future.done() else None

    def forget(self, sending: Sending) -> None:
        """Let go of a row that was taken in, or could not be handed over."""
        self._in_flight.pop(sending, None)

    def close(self, *, wait: bool) -> None:
        """End the threads that are our own."""
        if self._own is not None:
            self._own.close(wait=wait)

    def _completed(self, sending: Sending, future: Any) -> None:
        self._done.put(sending)
