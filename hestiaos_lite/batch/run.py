"""run_batch: many inputs through one call, on any ``concurrent.futures.Executor``, each of them sent once.

    from hestiaos_lite import Client, run_batch

    for result in run_batch(Client, ({"id": n, "input": text} for n, text in enumerate(texts))):
        print(result.id, result.outcome)

``hestiaos-lite batch`` adds files, a journal and resuming to it.

What runs in a worker (`work`) is plain, as is all that goes in or comes out of it: it pickles. A worker of another process
or machine builds its client from a factory, once per process, so that the API key comes from that process's own environment
and is never pickled.
"""

from __future__ import annotations

import functools
import operator
import os
import pickle
import sys
import threading
import time
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Deque,
    Dict,
    Iterable,
    Iterator,
    Mapping,
    NoReturn,
    Optional,
    Tuple,
    Union,
)

from .._check import check_seconds, check_whole_number, named, quoted
from ..errors import HestiaError, InvalidInput
from ..models import objection
from ..wire.call import choose_request_id
from .dispatch import Dispatcher
from .rate import TokenBucket, parse_rate
from .rows import FORMS, MOST_JOBS, BatchResult, BatchRow, Report, RowId, check_row, error_facts, is_row_id

if TYPE_CHECKING:
    from ..client import Client

_CALLS = {"run": "run", "chat": "chat.run", "agent": "agents.run"}  # methods of the client

# (process id, factory's key) -> client. A forked child finds its parent's entries and, by the process id, not its own.
_clients: Dict[Tuple[int, bytes], Any] = {}


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
        jobs: most rows in flight, up to 10,000.
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
        HestiaError (code ``EXECUTOR``): the executor accepts no more rows, or this is a fork of the process that has them;
            (code ``CONFIGURATION``): the claim failed, and its rows are ``unknown``, since another worker may have sent
            them before.
        Whatever ``rows`` or ``on_result`` raises.
    """
    if call not in list(FORMS):  # not FORMS itself, which could not look for what has no hash
        raise InvalidInput("call must be one of {}, not {}".format(", ".join(FORMS), quoted(call)))
    for name, given, needed in (
        ("rows", rows, "__iter__"),
        ("executor", executor, "submit"),
        ("on_result", on_result, "__call__"),
        ("stop", stop, "is_set"),
        ("claim", claim, "__call__"),
    ):
        if (given is not None or name == "rows") and not hasattr(given, needed):
            raise InvalidInput("{} cannot be of the type {}".format(name, type(given).__name__))
    bucket = None if rate is None else TokenBucket(parse_rate(rate))
    factory, key = _worker_factory(client_or_factory, executor)
    dispatcher = Dispatcher(
        functools.partial(work, call, factory, key, claim),
        enumerate(rows, 1),
        read=functools.partial(_checked, call),
        jobs=check_whole_number("jobs", jobs, least=1, below=MOST_JOBS + 1),
        retries=check_whole_number("retries", retries),
        patience_seconds=check_seconds("patience", patience),
        deadline_seconds=None if deadline is None else check_seconds("deadline", deadline),
        executor=executor,
        bucket=bucket,
        stop=stop,
        record=None if on_result is None else functools.partial(_tell, on_result),
    )
    return dispatcher.results()


def _tell(on_result: Callable[[BatchResult], Any], results: Deque[BatchResult], *_: Any) -> None:
    while results:
        on_result(results.popleft())


def _checked(call: str, numbered: Tuple[int, Any]) -> Union[BatchRow, BatchResult]:
    number, row = numbered
    try:
        return check_row(row, call)
    except InvalidInput as error:
        error.message = "row {}: {}".format(number, error.message)
        row_id = row.get("id") if isinstance(row, Mapping) else None
        return BatchResult(row_id if is_row_id(row_id) else None, False, error=error_facts(error))


def _worker_factory(client_or_factory: Any, executor: Optional[Executor]) -> Tuple[Callable[[], Any], bytes]:
    """Return what gives a worker its client, and the key it is cached under there (empty: not cached)."""
    if not callable(client_or_factory):
        if not hasattr(client_or_factory, "run"):
            what = "give run_batch a Client or a factory, not {}".format(type(client_or_factory).__name__)
            raise InvalidInput(what)
        shared = SharedClient(client_or_factory)
        processes = sys.modules.get("concurrent.futures.process")  # not imported: there is no such executor
        if processes is not None and isinstance(executor, processes.ProcessPoolExecutor):
            shared.__reduce__()  # raises now what the executor would meet later, in a thread of its own
        return shared, b""
    if executor is None or isinstance(executor, ThreadPoolExecutor):
        return SharedClient(_build_client(client_or_factory)), b""
    try:
        return client_or_factory, pickle.dumps(client_or_factory)
    except Exception as error:  # pickle raises what it likes: PicklingError, AttributeError, TypeError
        what = (
            "the client factory cannot be sent to a worker ({}); it must be a module-level function or class"
        )
        raise InvalidInput(what.format(error)) from error


class SharedClient:
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


def work(
    call: str,
    factory: Callable[[], Any],
    key: bytes,
    claim: Optional[Callable[[RowId], Any]],
    row: BatchRow,
    sending: int,
    request_id: str,
) -> Report:
    """Send one row and return what became of it.

    Args:
        call: ``run``, ``chat`` or ``agent``.
        factory: gives the client.
        key: names the factory among those of a process; empty when its client is not to be kept.
        claim: says whether a row may be sent, or was before; see `run_batch`.
        sending: counts the sendings of this row, so that an executor that caches by arguments (dask with ``pure=True``)
            takes no earlier answer for this one.
        request_id: to be sent under, since it was noted before.
    """
    began = time.perf_counter()
    response, error, attempts = None, None, 1
    try:
        client = _client(factory, key)
        if claim is not None:
            _claim(claim, row.id, sending)
        choose_request_id(request_id)
        response = operator.attrgetter(_CALLS[call])(client)(**row.arguments).to_dict()
        error = objection(call, response)
    except HestiaError as failure:
        # without its traceback: this frame is in it, and holds the error in turn
        error, attempts = failure.with_traceback(None), failure.attempts
    finally:
        choose_request_id(None)
    return Report(response, error, attempts, time.perf_counter() - began)


def _claim(claim: Callable[[RowId], Any], row_id: RowId, sending: int) -> None:
    """Raise unless the row is ours to send. A row that was rejected is claimed anew, under a name of its own."""
    try:
        is_ours = claim(row_id if sending == 1 else "{}#{}".format(row_id, sending))
    except Exception as error:
        # not "nothing was done": this may be the second time that the executor runs the row
        what = "the claim failed: {}".format(named(error))
        raise HestiaError("CONFIGURATION", what) from error
    if not is_ours:
        raise HestiaError("CLAIMED", "it was sent before and the answer is lost; it may have taken effect")


def _build_client(factory: Callable[[], Any]) -> Any:
    """Call a factory; what it raises, or returns in a client's place, is an InvalidInput: every row would meet it unsent."""
    try:
        client = factory()
    except HestiaError:
        raise
    except Exception as error:  # a caller's function may raise anything
        what = "the client factory failed: {}".format(named(error))
        raise InvalidInput(what, code="CONFIGURATION") from error
    if not hasattr(client, "run"):
        what = "the client factory returned a {}, not a client".format(type(client).__name__)
        raise InvalidInput(what, code="CONFIGURATION")
    return client


def _client(factory: Callable[[], Any], key: bytes) -> Any:
    if not key:
        return factory()
    entry = (os.getpid(), key)
    if entry not in _clients:
        # Two threads may both build one; setdefault lets the first win, and needs no lock that a fork could leave held.
        _clients.setdefault(entry, _build_client(factory))
    return _clients[entry]
