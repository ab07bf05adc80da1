"""What runs in a batch's worker: one row, one call. Everything that goes in or comes out is plain and pickles.

A worker of another process or machine builds its client from a factory, once per process, so that the API key comes from
that process's own environment and is never pickled.
"""

from __future__ import annotations

import os
import time
from typing import Any, Callable, Dict, Mapping, NamedTuple, NoReturn, Optional, Tuple

from ..errors import HestiaError, InvalidInput
from ..models import objection
from .rows import BatchRow, RowId

_CALLS: Mapping[str, Callable[[Any], Callable[..., Any]]] = {
    "run": lambda client: client.run,
    "chat": lambda client: client.chat.run,
    "agent": lambda client: client.agents.run,
}

# (process id, factory's key) -> client. A forked child finds its parent's entries and, by the process id, not its own.
_clients: Dict[Tuple[int, bytes], Any] = {}


class Lent:
    """A factory that always gives the one client it holds: for workers that are threads of this process."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __call__(self) -> Any:
        return self._client

    def __reduce__(self) -> NoReturn:
        raise InvalidInput(
            "a Client cannot be sent to another process with its key and connections: give run_batch a factory"
            " instead, a module-level function that returns one (or the class Client itself)"
        )


class Task(NamedTuple):
    """What is to be done with every row of a run.

    Attributes:
        call: ``run``, ``chat`` or ``agent``.
        factory: gives the client.
        key: names the factory among those of a process; empty when its client is not to be kept.
        claim: says whether a row may be sent, or was before; see `run_batch`.
    """

    call: str
    factory: Callable[[], Any]
    key: bytes = b""
    claim: Optional[Callable[[RowId], Any]] = None


class Report(NamedTuple):
    """What became of one sending; both response and error where a good answer's content says no."""

    response: Optional[Dict[str, Any]]
    error: Optional[HestiaError]
    attempts: int
    seconds: float


def work(task: Task, row: BatchRow, sending: int) -> Report:
    """Send one row and return what became of it.

    Args:
        sending: counts the sendings of this row, so that an executor that caches by arguments (dask with ``pure=True``)
            takes no earlier answer for this one.
    """
    began = time.perf_counter()
    response, error, attempts = None, None, 1
    try:
        client = _client(task)
        if task.claim is not None:
            _claim(task.claim, row.id, sending)
        response = _CALLS[task.call](client)(**row.arguments).to_dict()
        error = objection(task.call, response)
    except HestiaError as failure:
        # without its traceback: this frame is in it, and holds the error in turn
        error, attempts = failure.with_traceback(None), failure.attempts
    return Report(response, error, attempts, time.perf_counter() - began)


def _claim(claim: Callable[[RowId], Any], row_id: RowId, sending: int) -> None:
    """Raise unless the row is ours to send. A row that was rejected is claimed anew, under a name of its own."""
    try:
        is_ours = claim(row_id if sending == 1 else "{}#{}".format(row_id, sending))
    except Exception as error:
        # not "nothing was done": this may be the second time that the executor runs the row
        raise HestiaError(
            "CONFIGURATION", "the claim failed: {}: {}".format(type(error).__name__, error)
        ) from error
    if not is_ours:
        raise HestiaError("CLAIMED", "it was sent before and the answer is lost; it may have taken effect")


def build_client(factory: Callable[[], Any]) -> Any:
    """Call a factory; what it raises, or returns in a client's place, is an InvalidInput: every row would meet it unsent."""
    try:
        client = factory()
    except HestiaError:
        raise
    except Exception as error:  # a caller's function may raise anything
        raise InvalidInput(
            "the client factory failed: {}: {}".format(type(error).__name__, error), code="CONFIGURATION"
        ) from error
    if not hasattr(client, "run"):
        raise InvalidInput(
            "the client factory returned a {}, not a client".format(type(client).__name__),
            code="CONFIGURATION",
        )
    return client


def _client(task: Task) -> Any:
    if not task.key:
        return task.factory()
    entry = (os.getpid(), task.key)
    if entry not in _clients:
        # Two threads may both build one; setdefault lets the first win, and needs no lock that a fork could leave held.
        _clients.setdefault(entry, build_client(task.factory))
    return _clients[entry]
