"""run_batch: rows, executors, pauses, ends; against the sandbox, or a raw server where the moment of a request matters."""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import multiprocessing
import os
import pickle
import time
from collections import Counter
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any, Callable, Dict, Iterator, List, Optional

import pytest
import requests

from hestiaos_lite import BatchResult, Client, PermissionDenied, run_batch
from hestiaos_lite.batch.rate import Backoff, TokenBucket, parse_rate
from hestiaos_lite.batch.rows import BatchRow
from hestiaos_lite.errors import (
    AuthenticationError,
    HestiaError,
    InvalidInput,
    RateLimited,
    ServerError,
)
from hestiaos_lite.sandbox import Sandbox

from ..cli_call import NEEDS_FORK, program
from ..faultserver import FaultServer, answer_and_close, ok, reply
from .kit import Timed, client_of_environment, executions, once, rows

BUSY = reply(503, b"{}")


def failing_factory() -> Client:
    raise RuntimeError("no settings here")


# -- what a row becomes


@pytest.mark.parametrize(("call", "row", "body"), [
    ("run", {"input": "hi", "session_id": "s", "mode_hint": None, "timeout_ms": 500},
     {"input": "hi", "context": {"session_id": "s", "agent_id": None, "mode_hint": None},
      "options": {"timeout_ms": 500, "stream": False}}),
    ("chat", {"message": "hi", "session_id": "s"}, {"message": "hi", "session_id": "s"}),
    ("chat", {"input": "hi"}, {"message": "hi", "session_id": None}),
    ("agent", {"agent_id": "a", "task": "hi", "config": {"n": 2}}, {"agent_id": "a", "task": "hi", "config": {"n": 2}}),
])  # fmt: skip
def test_each_call_takes_its_own_fields_and_returns_its_answer(
    box: Sandbox, call: str, row: Dict[str, Any], body: Any
) -> None:
    (result,) = run_batch(Client(box.url), [dict(row, id=1)], call=call)
    assert result.response is not None, result
    assert (result.response.get("output") or result.response["result"]) == "processed: hi"
    assert box.requests[-1].json == body


def test_a_faulty_row_is_a_result_and_the_others_go_on(box: Sandbox) -> None:
    # Python 3.11 and later print no whole number of more than 4,300 digits
    huge = {"id": 4, "input": "a", "timeout_ms": 10**5000, 10**5000: 1}
    given = [
        {"id": 1, "input": "a"},
        {"id": 2},
        "text",
        {"id": 10**4300, "input": "a"},
        huge,
        {"id": 3, "input": "b"},
    ]
    results = {result.id: result for result in run_batch(Client(box.url), given)}
    outcomes = {row_id: result.outcome for row_id, result in results.items()}
    assert outcomes == {1: "ok", 2: "refused", None: "refused", 4: "refused", 3: "ok"}
    assert results[2].error is not None
    assert (results[2].error["message"], results[2].attempts) == ("row 2: input is missing", 0)
    assert box.requests_total == 2


# fmt: off
@pytest.mark.parametrize(("call", "answer", "outcome"), [
    ("run", reply(403, b'{"trace_id": "t"}'), "blocked"),
    ("run", reply(422, b"{}"), "refused"),
    ("run", reply(302, b"", {"Location": "/"}), "refused"),
    ("run", reply(401, b"{}"), "again"),
    ("run", reply(429, b"{}"), "again"),
    ("run", reply(503, b"{}"), "again"),
    ("run", reply(500, b"{}"), "unknown"),
    ("run", reply(502, b"{}"), "unknown"),
    ("run", reply(504, b"{}"), "unknown"),
    ("run", reply(599, b"{}"), "unknown"),
    ("run", reply(200, b"<html>"), "unknown"),
    ("run", reply(200, b'{"result": "ALLOW", "trace_id": "t"}')[:-1], "unknown"),  # breaks off
    ("run", b"", "unknown"),  # none
    # what its content says no to is kept as well
    ("run", {"result": "BLOCK", "trace_id": "t"}, "blocked"),
    ("run", {"result": "text", "mode": "BLOCK", "trace_id": "t"}, "blocked"),
    ("run", {"result": "denied", "trace_id": "t"}, "blocked"),
    ("run", {"result": "text", "mode": "failed", "trace_id": "t"}, "refused"),
    ("chat", {"result": "Rejected", "trace_id": "t"}, "blocked"),
    ("agent", {"agent_id": "a", "status": "BLOCKED", "trace_id": "t"}, "blocked"),
    ("agent", {"agent_id": "a", "status": "rejected", "error": "no", "trace_id": "t"}, "blocked"),
    ("agent", {"agent_id": "a", "status": "COMPLETED", "error": "no disk", "trace_id": "t"}, "refused"),
    ("agent", {"agent_id": "a", "status": "FAILED", "error": "out of steps", "trace_id": "t"}, "refused"),
])
# fmt: on
def test_the_outcome_says_whether_a_row_may_have_been_executed(call: str, answer: Any, outcome: str) -> None:
    row = {"id": 1, "agent_id": "a", "task": "x"} if call == "agent" else {"id": 1, "input": "x"}
    results: List[BatchResult] = []
    says_no = not isinstance(answer, bytes)
    with FaultServer(answer_and_close(ok(answer) if says_no else answer)) as server, contextlib.suppress(AuthenticationError):
        results.extend(run_batch(Client(server.url, retries=0), [row], call=call, retries=0))
    (result,) = results
    assert (result.ok, result.outcome) == (False, outcome)
    assert result.error is not None
    if says_no:
        assert result.error["trace_id"] == "t"
        assert list(result.to_dict()) == ["id", "ok", "error", "response", "attempts", "seconds"]
    else:
        assert list(result.to_dict()) == ["id", "ok", "error", "attempts", "seconds", "request_id"]


# -- executors


def _thread_pool() -> Executor:
    return ThreadPoolExecutor(3)


def _spawned() -> Executor:
    return ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))


def _forked() -> Executor:
    return ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork"))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # 3.12: there are threads, the sandbox's
@pytest.mark.parametrize("make_executor", [
    _thread_pool,
    _spawned,
    pytest.param(_forked, marks=pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")),
])  # fmt: skip
def test_any_executor_sends_each_row_once_with_the_key_of_its_own_environment(
    make_executor: Callable[[], Executor], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Sandbox(api_key="key-of-the-environment") as box:
        monkeypatch.setenv("HESTIAOS_BASE_URL", box.url)
        monkeypatch.setenv("HESTIAOS_API_KEY", "key-of-the-environment")
        with make_executor() as executor:
            results = list(run_batch(client_of_environment, rows(40), executor=executor, jobs=4))
            assert executor.submit(os.getpid).result()  # it was lent, and still takes work
    assert Counter(result.id for result in results) == Counter({"r{}".format(n): 1 for n in range(40)})
    assert {result.outcome for result in results} == {"ok"}
    assert executions(box) == once(40)


class PicklingExecutor(Executor):
    """Runs at once, over a pickle of what it was given: what a remote executor would send."""

    def __init__(self) -> None:
        self.sent: List[bytes] = []

    def submit(self, fn: Any, *args: Any, **kwargs: Any) -> Future[Any]:  # type: ignore[override]
        self.sent.append(pickle.dumps((fn, args, kwargs)))
        function, arguments, options = pickle.loads(self.sent[-1])
        future: Future[Any] = Future()
        future.set_result(pickle.loads(pickle.dumps(function(*arguments, **options))))
        return future

    def shutdown(self, *args: Any, **kwargs: Any) -> None:
        raise AssertionError("a borrowed executor was shut down")


def test_the_class_client_is_a_factory_and_what_is_submitted_is_plain_and_holds_no_key(
    box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HESTIAOS_BASE_URL", box.url)
    monkeypatch.setenv("HESTIAOS_API_KEY", "canary-7d1f")
    executor = PicklingExecutor()
    assert [result.ok for result in run_batch(Client, rows(5), executor=executor)] == [True] * 5
    assert len(executor.sent) == 5
    assert not any(b"canary" in sent for sent in executor.sent)
    assert len({request.headers["X-Request-Id"] for request in box.requests}) == 5


@pytest.mark.parametrize(("make_executor", "is_factory", "words"), [
    (lambda: ProcessPoolExecutor(1), False, "give run_batch a factory"),
    (PicklingExecutor, False, "give run_batch a factory"),
    (lambda: ProcessPoolExecutor(1), True, "must be a module-level function"),
], ids=["a client, processes", "a client, anything that pickles", "a factory that cannot be imported"])  # fmt: skip
def test_what_cannot_reach_a_worker_is_refused_with_nothing_sent(
    box: Sandbox, make_executor: Callable[[], Executor], is_factory: bool, words: str
) -> None:
    results: List[BatchResult] = []
    with pytest.raises(InvalidInput, match=words):
        for result in run_batch(
            (lambda: Client(box.url)) if is_factory else Client(box.url), rows(3), executor=make_executor()
        ):
            results.append(result)
    # of an executor that nobody knows it is found out when it is given a row
    expected = [("r0", "NOT_SENT", 0)] if make_executor is PicklingExecutor else []
    assert [
        (result.id, result.error["code"], result.attempts) for result in results if result.error
    ] == expected
    assert box.requests_total == 0


@pytest.mark.parametrize("make_executor", [_thread_pool, PicklingExecutor])
@pytest.mark.parametrize(
    ("factory", "words"),
    [(failing_factory, "failed: RuntimeError: no settings here"), (dict, "returned a dict, not a client")],
)
def test_a_factory_that_makes_no_client_ends_the_run_and_says_so(
    make_executor: Callable[[], Executor], factory: Callable[[], Any], words: str
) -> None:
    with pytest.raises(InvalidInput, match="the client factory " + words) as caught:
        list(run_batch(factory, rows(30), executor=make_executor()))
    assert caught.value.code == "CONFIGURATION"


def test_what_is_neither_a_client_nor_a_factory_is_refused_and_a_factorys_own_error_is_raised() -> None:
    with pytest.raises(InvalidInput, match="give run_batch a Client or a factory, not int"):
        run_batch(5, rows(1))  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="^.CONFIGURATION. the base URL"):
        run_batch(functools.partial(Client, "no-url"), rows(1))


def kill_this_process() -> Client:
    os._exit(1)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_rows_of_a_worker_that_died_are_unknown_and_the_run_ends() -> None:
    results = []
    with ProcessPoolExecutor(1) as executor, pytest.raises(
        HestiaError, match="the executor accepts no more rows"
    ):
        for result in run_batch(kill_this_process, rows(10), executor=executor, jobs=2):
            results.append(result)
    assert {(result.error["code"], result.outcome) for result in results if result.error} == {
        ("WORKER_LOST", "unknown")
    }
    assert len(results) < 10


@NEEDS_FORK
@pytest.mark.parametrize("end", ["sys.exit(0)", "break", "next(results)"])
def test_a_process_that_is_forked_during_a_run_has_none_of_its_rows(end: str, box: Sandbox) -> None:
    """It has neither the threads nor the answers, which it would wait for without an end."""
    box.delay_next(0.0)
    box.delay_next(1.0)
    source = """
        import os, sys, time, warnings
        from hestiaos_lite import Client, HestiaError, run_batch
        told = []
        results = run_batch(
            Client(sys.argv[1]), [{{"id": n, "input": "row"}} for n in range(4)], jobs=2, on_result=told.append
        )
        for result in results:
            if len(told) > 1:
                continue
            pid = os.fork()
            if pid:
                continue
            # with urllib3 before 2 the collector closes what is dropped of the parent's threads, which their locks guard
            warnings.simplefilter("ignore", ResourceWarning)
            try:
                {}
            except HestiaError as error:
                sys.exit(error.code != "EXECUTOR")
        if not pid:
            sys.exit(len(told) != 1)
        give_up_at, ended = time.monotonic() + 20, (0, 0)
        while not ended[0] and time.monotonic() < give_up_at:
            time.sleep(0.01)
            ended = os.waitpid(pid, os.WNOHANG)
        if not ended[0]:
            os.kill(pid, 9)
        print(ended == (pid, 0), sorted(result.id for result in told))
    """
    assert program(source.format(end), box.url) == ["True [0, 1, 2, 3]"]
    assert len(box.requests) == 4


def test_a_row_that_was_claimed_before_is_not_sent_and_unknown(
    box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Backoff, "base_seconds", 0.01)
    box.fail_next(503)
    asked: List[Any] = []

    def claim(row_id: Any) -> bool:
        asked.append(row_id)
        return row_id != "r1"

    results = run_batch(Client(box.url, retries=0), rows(3), jobs=1, claim=claim)
    assert {result.id: result.outcome for result in results} == {"r0": "ok", "r1": "unknown", "r2": "ok"}
    assert executions(box) == {"row 0": 1, "row 2": 1}
    # what was turned away is claimed anew under a name of its own: its first claim is spent
    assert sorted(asked) == ["r0", "r0#2", "r1", "r2"]


def test_a_claim_that_fails_ends_the_run_and_leaves_the_row_in_doubt(box: Sandbox) -> None:
    def claim(row_id: Any) -> bool:
        raise OSError("no scheduler here")

    results = []
    with pytest.raises(HestiaError, match="the claim failed: OSError: no scheduler here"):
        for result in run_batch(Client(box.url), rows(30), jobs=1, claim=claim):
            results.append(result)
    assert [result.outcome for result in results] == ["unknown"]
    assert box.requests_total == 0


@pytest.mark.parametrize("raised", [KeyError, requests.ConnectionError])
def test_an_exception_that_has_no_words_leaves_its_rows_in_doubt(raised: Any) -> None:
    """It is of a caller's adapter, which may have sent the row."""

    class Wordless(raised):
        def __str__(self) -> str:
            raise ValueError

    class Adapter(requests.adapters.HTTPAdapter):
        def send(self, *args: Any, **kwargs: Any) -> requests.Response:
            raise Wordless

    session = requests.Session()
    session.mount("http://", Adapter())
    results = list(run_batch(Client("http://127.0.0.1:1", session=session), rows(3), jobs=2))
    assert [result.outcome for result in results] == ["unknown"] * 3
    for result in results:
        assert "Wordless, whose words cannot be shown" in (result.error or {})["message"]


# -- the window


@pytest.mark.parametrize("lent", [False, True], ids=["own threads", "ThreadPoolExecutor"])
def test_a_row_that_is_complete_leaves_nothing_to_the_garbage_collector(
    lent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Backoff, "base_seconds", 0.001)
    gc.collect()
    gc.disable()
    try:
        with ThreadPoolExecutor(3) as executor, Timed(
            lambda text, sequence: BUSY if sequence % 2 else None
        ) as service:
            client = Client(service.url, retries=0)
            results = run_batch(client, rows(1000), jobs=3, executor=executor if lent else None)
            list(itertools.islice(results, 40))
            # in flight, rejected, and complete
            assert sum(isinstance(one, BatchRow) for one in gc.get_objects()) <= 3 * 3
            results.close()  # type: ignore[attr-defined]
        assert [one for one in gc.get_objects() if isinstance(one, Future)] == []
    finally:
        gc.enable()


def test_no_more_than_jobs_are_in_flight() -> None:
    with Timed(lambda text, sequence: time.sleep(0.01)) as service, ThreadPoolExecutor(20) as executor:
        results = list(run_batch(Client(service.url), rows(60), jobs=4, executor=executor))
    assert sum(result.ok for result in results) == 60
    assert service.most_at_once == 4


# fmt: off
@pytest.mark.parametrize(("of_source", "of_on_result", "seen"), [
    (LookupError("the source is gone"), None, LookupError),
    (None, OSError("no room"), OSError),
    (None, StopIteration("no more"), RuntimeError),
])
# fmt: on
def test_what_the_source_or_on_result_raises_comes_after_the_results_in_flight(
    box: Sandbox, of_source: Optional[Exception], of_on_result: Optional[Exception], seen: Any
) -> None:
    def source() -> Iterator[Dict[str, Any]]:
        yield from rows(5 if of_source else 1000)
        if of_source:
            raise of_source

    def on_result(result: BatchResult) -> None:
        if of_on_result:
            raise of_on_result

    results: List[BatchResult] = []
    with pytest.raises(seen) as caught:
        results.extend(run_batch(Client(box.url), source(), on_result=on_result, jobs=4))
    assert (of_source or of_on_result) in (caught.value, caught.value.__cause__)
    assert {"row {}".format(str(result.id)[1:]): 1 for result in results} == executions(box)
    assert (len(results) == 5) if of_source else (len(results) <= 8)


# fmt: off
@pytest.mark.parametrize("options", [
    {"jobs": 0}, {"jobs": 1.5}, {"rate": 0}, {"rate": "20/day"}, {"deadline": 0}, {"patience": -1}, {"retries": -1},
    {"call": "x"}, {"call": ["run"]}, {"jobs": 10001}, {"jobs": 10**400}, {"rows": None}, {"executor": 5}, {"on_result": 5}, {"stop": 5}, {"claim": 5},
], ids=str)
# fmt: on
def test_bad_arguments_are_refused_by_the_call_itself(options: Dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(options))):
        run_batch(Client, **dict({"rows": rows(1)}, **options))


# -- refusals, pauses, ends


def test_one_refusal_pauses_all_workers() -> None:
    refusal = reply(429, b"{}", {"Retry-After": "0.6"})

    def judge(text: str, sequence: int) -> Optional[bytes]:
        if 12 < sequence <= 15:  # what is in flight beside the refusal is answered after it
            time.sleep(0.3)
        return refusal if sequence == 12 else None

    with Timed(judge) as service:
        results = list(run_batch(Client(service.url, retries=0), rows(40), jobs=4))
    assert Counter(result.outcome for result in results) == {"ok": 40}
    texts, times = zip(*service.arrivals)
    refused, since = texts[11], times[11]
    assert sum(since < at < since + 0.59 for at in times) <= 3  # only what was in flight
    assert Counter(texts) == once(40) + Counter({refused: 1})
    assert {result.attempts for result in results if "row {}".format(str(result.id)[1:]) == refused} == {2}


@pytest.mark.parametrize(
    ("count", "jobs"), [(30, 1), (30, 2), (30, 8), (4, 1), (4, 4), (5, 2)], ids=lambda value: str(value)
)
def test_a_row_that_alone_is_refused_fails_and_the_others_go_on(
    count: int, jobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Backoff, "base_seconds", 0.01)
    with Timed(lambda text, sequence: BUSY if text == "row 3" else None) as service:
        found = list(run_batch(Client(service.url, retries=0), rows(count), jobs=jobs, retries=2))
    results = {result.id: result for result in found}
    assert Counter(result.outcome for result in results.values()) == {"ok": count - 1, "again": 1}
    failed = results["r3"]
    assert failed.error is not None
    facts = [failed.error[name] for name in ("class", "status", "delivered")]
    assert (facts, failed.attempts) == (["ServerError", 503, True], 3)


@pytest.mark.parametrize(("count", "attempts"), [(1, [3]), (10, [1, 1, 1])])
def test_a_service_that_was_never_there_ends_the_run_after_the_retries(
    count: int, attempts: List[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With each pause another row is tried where there is one, and all are told as what the service said of them."""
    monkeypatch.setattr(Backoff, "base_seconds", 0.01)
    results: List[BatchResult] = []
    with Timed(lambda text, sequence: BUSY) as service, pytest.raises(ServerError):
        for result in run_batch(Client(service.url, retries=0), rows(count), jobs=1, retries=2):
            results.append(result)
    assert len(service.arrivals) == 3
    assert [result.attempts for result in results] == attempts
    assert {(result.error["status"], result.outcome) for result in results if result.error} == {(503, "again")}


@pytest.mark.parametrize("retries", [3, 0])
def test_a_wait_beyond_patience_ends_the_run_at_once(retries: int) -> None:
    refusal = reply(429, b"{}", {"Retry-After": "86400"})
    source, results = rows(100), []  # type: Iterator[Any], List[BatchResult]
    with Timed(lambda text, sequence: refusal) as service, pytest.raises(RateLimited):
        results.extend(run_batch(Client(service.url, retries=0), source, jobs=2, retries=retries))
    assert len(service.arrivals) <= 2
    # every row that was drawn has a result, also one that was drawn only to see whether there is one
    assert sorted(result.id for result in results) == ["r{}".format(n) for n in range(100 - len(list(source)))]


def test_a_key_without_permission_ends_the_run(box: Sandbox) -> None:
    box.fail_next(status=403, times=100, body={"code": "PERMISSION_DENIED", "message": "not this key"})
    with pytest.raises(PermissionDenied):
        list(run_batch(Client(box.url), rows(100), jobs=4))
    assert box.requests_total <= 8


def test_a_run_that_is_complete_meets_no_deadline(box: Sandbox) -> None:
    assert sum(result.ok for result in run_batch(Client(box.url), rows(10), deadline=60)) == 10


# -- the rate


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


# fmt: off
@pytest.mark.parametrize(("rate", "per_second"), [
    (20, 20.0), ("20/s", 20.0), ("90/min", 1.5), ("90 / m", 1.5), ("1800/h", 0.5), ("2.5", 2.5),
    *((rate, None) for rate in ("", "fast", "20/day", "-1/s", "0/s", True, float("nan"), float("inf"), 10**400, None)),
])
# fmt: on
def test_a_rate_is_rows_per_second_and_nothing_else(rate: Any, per_second: Optional[float]) -> None:
    if per_second is None:
        with pytest.raises(InvalidInput, match="the rate must be above 0"):
            parse_rate(rate)
    else:
        assert parse_rate(rate) == per_second


def taken(bucket: TokenBucket) -> int:
    """How many rows may be sent now."""
    for number in itertools.count():
        if bucket.wait_seconds() > 1e-9:
            return number
        bucket.take()
    raise AssertionError


@pytest.mark.parametrize("per_second", [0.5, 7.0, 20.0, 1000.0])
def test_the_bucket_lets_through_its_rate_and_little_more(per_second: float) -> None:
    clock = Clock()
    bucket = TokenBucket(per_second, clock)
    sent = 0
    began = clock.now
    while clock.now - began < 100:
        sent += taken(bucket)
        clock.now += bucket.wait_seconds()
    assert 100 * per_second - 1 <= sent <= 100 * per_second + 2


def test_the_bucket_keeps_no_more_than_a_tenth_of_a_second() -> None:
    clock = Clock()
    bucket = TokenBucket(50, clock)
    found = [taken(bucket)]
    for seconds in (3600, 0.01, 0.01, 0.05):
        clock.now += seconds
        found.append(taken(bucket))
    assert found == [1, 5, 0, 1, 2]


def test_the_rate_bounds_a_run(box: Sandbox) -> None:
    began = time.monotonic()
    assert sum(result.ok for result in run_batch(Client(box.url), rows(21), rate="50/s")) == 21
    assert time.monotonic() - began >= 20 / 50.0 * 0.9


def test_the_pause_doubles_with_each_wave_and_ends_with_the_first_acceptance() -> None:
    clock = Clock()
    pause = Backoff(clock, jitter=lambda: 0.0)
    waits = []
    for _ in range(9):
        sent_at = clock.now
        pause.rejected(sent_at, None)
        pause.rejected(sent_at - 0.001, None)  # of the same wave: it was sent before the pause began
        waits.append(pause.wait_seconds())
        assert pause.is_half_open
        clock.now = pause.until + 1
    assert waits == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
    pause.accepted(100.0)  # an answer to what was sent before all that proves nothing
    assert pause.is_half_open
    pause.accepted(clock.now)
    assert not pause.is_half_open
    pause.rejected(clock.now, 7)
    assert pause.wait_seconds() == 7
