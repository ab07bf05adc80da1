"""run_batch: many inputs through one call, on any ``concurrent.futures.Executor``, each of them sent once.

    from hestiaos_lite import Client, run_batch

    for result in run_batch(Client, ({"id": n, "input": text} for n, text in enumerate(texts))):
        print(result.id, result.outcome)

``hestiaos-lite batch`` adds files, a journal and resuming to it.
"""

from __future__ import annotations

import functools
import pickle
import sys
import threading
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Callable, Deque, Iterable, Iterator, Mapping, Optional, Tuple, Union

from .._check import check_seconds, check_whole_number
from ..errors import InvalidInput
from .dispatch import Dispatcher, Finished, Limits
from .rate import TokenBucket, parse_rate
from .results import BatchResult, error_facts
from .rows import BatchRow, RowId, check_call, check_row, is_row_id
from .worker import Lent, Task, build_client

if TYPE_CHECKING:
    from ..client import Client

__all__ = ["BatchResult", "run_batch"]


def run_batch(
    client_or_factory: Union[Client, Callable[[], Client]],
    rows: Iterable[Mapping[str, Any]],
    *,
    executor: Optional[Executor] = None,
    jobs: int = 8,
    rate: Union[None, float, str] = None,
    on_result: Optional[Callable[[BatchResult], Any]] = None,
    call: str = "run",
    deadline: Optional[float] = None,
    retries: int = 5,
    patience: float = 900.0,
    stop: Optional[threading.Event] = None,
    claim: Optional[Callable[[RowId], Any]] = None,
) -> Iterator[BatchResult]:
    """Send rows through one call of the client and yield a result for each, as they complete.

    A row is a mapping: ``id`` (string or whole number, your own; it is not checked to be unique) and the call's arguments:
    ``input`` with any of ``session_id``, ``agent_id``, ``mode_hint``, ``timeout_ms`` for ``run``; ``message`` and
    ``session_id`` for ``chat``; ``agent_id``, ``task`` and ``config`` for ``agent``. ``input`` may replace ``message`` and
    ``task``. A row that cannot be sent is a result with an InvalidInput error, and the others go on.

    ``rows`` may be endless: it is read in the caller's thread, and a row is taken only when it can be sent, which it is at
    once. Every row that was taken gets exactly one result, Ctrl-C or not.

    Nothing is sent twice that may have been executed. A row that certainly was not (429, 503, never connected) pauses all
    workers together (0.5 s, doubled up to 60 s, or Retry-After), then one row goes out as a probe, and the rest follow when
    it is accepted. This comes on top of the client's own retries; ``Client(retries=0)`` leaves them to the batch.

    An executor that repeats a row by itself, as dask does when a worker dies with finished results in it, needs a
    ``claim``; of dask take ``get_executor(pure=False)``. A caller's executor is trusted only about futures that are done: a row
    that it says it has cancelled, or that its ``submit`` raised for, is ``unknown``.

    Args:
        client_or_factory: a Client, which the threads share; or a callable that returns one, such as the class ``Client``.
            A worker process builds its client once and takes the key from its own environment, so for an executor beyond
            this process, a factory is needed, and it must be importable there (a module-level function or class).
        executor: any ``concurrent.futures.Executor``; only ``submit`` and the future's own methods are used, and it is never
            shut down. None starts ``jobs`` threads for this run.
        jobs: most rows in flight.
        rate: rows per second at most, a number or ``"20/s"``, ``"90/min"``, ``"500/h"``.
        on_result: called with each result, in the caller's thread, before anything further is sent.
        call: ``run``, ``chat`` or ``agent``.
        deadline: seconds after which nothing further is sent; what is in flight then still finishes.
        retries: how often a row that was certainly not executed is sent again, as long as the service accepts others.
        patience: seconds for which the service may refuse everything before the run ends.
        claim: called in the worker with the row's id before the row is sent (with ``"ID#2"`` and so on before it is sent
            again after the service turned it away). It claims the id atomically, for all workers, and returns whether it
            was free: False means that the row was sent before, and makes it ``unknown``. It must pickle where rows do.
        stop: an event; once set, nothing further is sent, what is in flight is finished, and the iterator ends.

    Closing the iterator early, or an exception in the loop around it (Ctrl-C), sends nothing further and waits for what is
    in flight; those results reach only ``on_result``. Interrupted again, what is in flight is ``unknown``. While the run
    has the main thread, your signal handlers are called only where an exception of theirs loses no row.

    Raises:
        InvalidInput: an argument cannot be used; raised by the call itself.
        AuthenticationError, PermissionDenied, InvalidInput (code ``CONFIGURATION``): no other row would succeed. Like all
            below it is raised once what was in flight has been yielded; the rows it struck are among the results.
        RateLimited, ServerError, ConnectionFailed, RequestTimeout: the service refused everything for ``patience`` seconds,
            or for ``retries`` repetitions from the start.
        RequestTimeout (code ``BATCH_DEADLINE``): the deadline passed.
        HestiaError (code ``EXECUTOR``): the executor accepts no more rows; (code ``CONFIGURATION``): the claim failed, and
            its rows are ``unknown``, since another worker may have sent them before.
        Whatever ``rows`` or ``on_result`` raises.
    """
    check_call(call)
    for name, given, needed in (
        ("rows", rows, "__iter__"),
        ("executor", executor, "submit"),
        ("on_result", on_result, "__call__"),
        ("stop", stop, "is_set"),
        ("claim", claim, "__call__"),
    ):
        if (given is not None or name == "rows") and not hasattr(given, needed):
            raise InvalidInput("{} cannot be of the type {}".format(name, type(given).__name__))
    limits = check_limits(jobs, retries, patience, deadline)
    bucket = None if rate is None else TokenBucket(parse_rate(rate))
    factory, key = _worker_factory(client_or_factory, executor)
    dispatcher = Dispatcher(
        Task(call, factory, key, claim),
        enumerate(rows, 1),
        read=lambda numbered: _checked(numbered[0], numbered[1], call),
        limits=limits,
        executor=executor,
        bucket=bucket,
        stop=stop,
        on_done=None if on_result is None else functools.partial(_tell, on_result),
    )
    return (finished.result for finished in dispatcher.finished())


def _tell(on_result: Callable[[BatchResult], Any], finished: Deque[Finished]) -> None:
    while finished:
        on_result(finished.popleft().result)


def check_limits(jobs: Any, retries: Any, patience: Any, deadline: Any) -> Limits:
    """Return the limits of a run, or raise InvalidInput."""
    return Limits(
        check_whole_number("jobs", jobs, least=1),
        check_whole_number("retries", retries),
        check_seconds("patience", patience),
        None if deadline is None else check_seconds("deadline", deadline),
    )


def _worker_factory(client_or_factory: Any, executor: Optional[Executor]) -> Tuple[Callable[[], Any], bytes]:
    """Return what gives a worker its client, and the key it is cached under there (empty: not cached)."""
    if not callable(client_or_factory):
        lent = Lent(client_or_factory)
        if not hasattr(client_or_factory, "run"):
            raise InvalidInput(
                "give run_batch a Client or a factory, not {}".format(type(client_or_factory).__name__)
            )
        processes = sys.modules.get(
            "concurrent.futures.process"
        )  # not imported: then there is no such executor
        if processes is not None and isinstance(executor, processes.ProcessPoolExecutor):
            lent.__reduce__()  # raises now what the executor would meet later, in a thread of its own
        return lent, b""
    if executor is None or isinstance(executor, ThreadPoolExecutor):
        return Lent(build_client(client_or_factory)), b""
    try:
        return client_or_factory, pickle.dumps(client_or_factory)
    except Exception as error:  # pickle raises what it likes: PicklingError, AttributeError, TypeError
        raise InvalidInput(
            "the client factory cannot be sent to a worker ({}); it must be a module-level function or class".format(
                error
            )
        ) from error


def _checked(number: int, row: Any, call: str) -> Union[BatchRow, BatchResult]:
    try:
        return check_row(row, call)
    except InvalidInput as error:
        error.message = "row {}: {}".format(number, error.message)
        row_id = row.get("id") if isinstance(row, Mapping) else None
        return BatchResult(row_id if is_row_id(row_id) else None, False, error=error_facts(error))
