"""What a batch says of a row that may have been sent: never that it was not, whatever an executor, a limit or a signal does."""

from __future__ import annotations

import gc
import itertools
import os
import random
import signal
import sys
import time
from collections import Counter
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, Callable, Dict, Iterator, List

import pytest

from hestiaos_lite import BatchResult, Client, HestiaError, run_batch
from hestiaos_lite.sandbox import Sandbox

from ..batch.kit import Batch, executions, once, rows
from ..cli_call import ran

posix = pytest.mark.skipif(os.name != "posix", reason="limits and signals of POSIX")
WAIT_SECONDS = 30


class Wayward(Executor):
    """Threads whose futures say what dask's do, or whose ``submit`` raises after it has queued the row, as a full system's."""

    def __init__(self, *, raises_at: int = 0, raised: type = RuntimeError) -> None:
        self.pool = ThreadPoolExecutor(4)
        self._left = raises_at
        self._raised = raised

    def submit(self, fn: Any, *args: Any, **kwargs: Any) -> Future[Any]:  # type: ignore[override]
        inner = self.pool.submit(fn, *args, **kwargs)
        outer: Future[Any] = Future()

        def pass_on(done: Future[Any]) -> None:
            if not outer.cancelled():
                outer.set_result(done.result())

        inner.add_done_callback(pass_on)
        self._left -= 1
        if self._left == 0:
            raise self._raised("can't start new thread")
        return outer  # never "running", so cancel() returns True while the row is being executed


def test_a_row_whose_submit_raised_is_in_doubt(box: Sandbox) -> None:
    executor = Wayward(raises_at=3)
    results: List[BatchResult] = []
    with pytest.raises(HestiaError, match="the executor accepts no more rows: RuntimeError"):
        for result in run_batch(Client(box.url), rows(10), executor=executor, jobs=4):
            results.append(result)
    executor.pool.shutdown()
    assert executions(box) == {"row 0": 1, "row 1": 1, "row 2": 1}
    assert {result.id: result.outcome for result in results} == {"r0": "ok", "r1": "ok", "r2": "unknown"}
    sent = {request.json["input"]: request.headers["X-Request-Id"] for request in box.requests}
    assert {result.id: result.request_id for result in results} == {
        "r0": None,
        "r1": None,
        "r2": sent["row 2"],
    }


@pytest.mark.parametrize(
    "make_executor", [lambda: None, lambda: ThreadPoolExecutor(3), Wayward], ids=["own", "pool", "wayward"]
)
def test_endless_rows_are_not_read_ahead_and_a_run_left_early_waits_for_what_is_in_flight(
    box: Sandbox, make_executor: Callable[[], Any]
) -> None:
    """A lent executor is not believed about what it has cancelled."""
    box.delay_next(0.02, times=1000)
    drawn: List[int] = []
    told: List[BatchResult] = []

    def endless() -> Iterator[Dict[str, Any]]:
        for row in rows(10**9):
            drawn.append(len(drawn))
            yield row

    results = run_batch(Client(box.url), endless(), jobs=3, executor=make_executor(), on_result=told.append)
    taken = list(itertools.islice(results, 20))
    results.close()  # type: ignore[attr-defined]
    sent = box.requests_total
    assert len(drawn) <= 20 + 2 * 3  # the window, and what completed meanwhile
    assert told[:20] == taken
    assert Counter((result.id, result.outcome) for result in told) == Counter(
        ("r{}".format(n), "ok") for n in drawn
    )
    assert executions(box) == once(len(drawn))
    time.sleep(0.1)
    assert box.requests_total == sent


def test_a_row_that_a_lent_executor_calls_cancelled_is_in_doubt(box: Sandbox) -> None:
    executor = Wayward()
    results: List[BatchResult] = []

    def cancelling(fn: Any, *args: Any) -> Future[Any]:
        executor.pool.submit(fn, *args)
        future: Future[Any] = Future()
        future.cancel()
        return future

    executor.submit = cancelling  # type: ignore[method-assign,assignment]
    results.extend(run_batch(Client(box.url), rows(3), executor=executor))
    executor.pool.shutdown()
    assert [result.outcome for result in results] == ["unknown"] * 3
    assert len(executions(box)) == 3


def test_a_row_is_sent_as_soon_as_it_is_drawn(box: Sandbox) -> None:
    """A source that waits for what became of its last row would wait for ever otherwise."""
    arrived: List[int] = []

    def slow() -> Iterator[Dict[str, Any]]:
        for number, row in enumerate(rows(5)):
            deadline = time.monotonic() + 30
            while box.requests_total < number and time.monotonic() < deadline:
                time.sleep(0.005)
            arrived.append(box.requests_total)
            yield row

    assert sum(result.ok for result in run_batch(Client(box.url), slow(), jobs=8)) == 5
    assert arrived == [0, 1, 2, 3, 4]


class Interrupted(BaseException):
    """What a signal raises, at any moment, in the caller's thread."""


@posix
@pytest.mark.parametrize("lent", [False, True], ids=["own threads", "ThreadPoolExecutor"])
@pytest.mark.parametrize(("rounds", "seed"), [(15, 91), pytest.param(2000, 92, marks=pytest.mark.slow)])
def test_an_interrupt_at_any_moment_loses_no_row_that_was_drawn(
    box: Sandbox, rounds: int, seed: int, lent: bool
) -> None:
    print("seed", seed)
    rng = random.Random(seed)
    client = Client(box.url)

    def interrupt(*_: Any) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    executor = ThreadPoolExecutor(3) if lent else None
    try:
        for _ in range(rounds):
            # it and what is made of it are C, so that it is interrupted before or after a row
            drawn = itertools.count()
            told: List[BatchResult] = []
            source = map(dict, zip(zip(itertools.repeat("id"), drawn), itertools.repeat(("input", "row"))))
            results = run_batch(client, source, jobs=3, executor=executor, on_result=told.append)
            gc.disable()  # Python drops what a handler raises inside a finalizer that the collector runs
            with pytest.raises(Interrupted):
                signal.setitimer(signal.ITIMER_REAL, 0.002 + rng.random() * 0.03)
                for _result in results:
                    pass
            results.close()  # type: ignore[attr-defined]
            gc.enable()
            assert sorted(result.id for result in told) == list(range(next(drawn)))
            assert signal.getsignal(signal.SIGALRM) is interrupt
    finally:
        gc.enable()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if executor is not None:
            executor.shutdown()


@posix
def test_an_interrupt_as_a_row_is_given_to_the_executor_waits_until_it_has_it(box: Sandbox) -> None:
    class Interrupting(Wayward):
        def submit(self, fn: Any, *args: Any, **kwargs: Any) -> Future[Any]:  # type: ignore[override]
            os.kill(os.getpid(), signal.SIGALRM)
            return super().submit(fn, *args, **kwargs)

    def interrupt(*_: Any) -> None:
        raise Interrupted

    told: List[BatchResult] = []
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(Interrupted):
            list(run_batch(Client(box.url), rows(20), executor=Interrupting(), on_result=told.append))
    finally:
        signal.signal(signal.SIGALRM, before)
    assert [(result.id, result.outcome) for result in told] == [("r0", "ok")]
    assert executions(box) == once(1)


@posix
@pytest.mark.parametrize("waits_in", ["the source", "the loop", "on_result"])
def test_an_interrupt_is_not_put_off_for_long(box: Sandbox, waits_in: str) -> None:
    """A source may wait for ever; what else the run does in the main thread ends by itself, or at the second Ctrl-C."""
    struck: List[str] = []

    def interrupt(*_: Any) -> None:
        struck.append("")
        raise Interrupted

    def wait(*_: Any) -> None:
        time.sleep(WAIT_SECONDS)

    def waiting() -> Iterator[Dict[str, Any]]:
        yield from rows(3)
        wait()

    if waits_in == "the loop":
        box.delay_next(WAIT_SECONDS, times=3)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        results = run_batch(
            Client(box.url),
            waiting() if waits_in == "the source" else rows(3),
            on_result=wait if waits_in == "on_result" else None,
        )
        began = time.monotonic()
        with pytest.raises(Interrupted):
            signal.setitimer(signal.ITIMER_REAL, 0.3, 0.3)
            for _result in results:
                pass
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert time.monotonic() - began < WAIT_SECONDS
        assert len(struck) >= 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


LIMITED = """
import ctypes, resource, sys
from hestiaos_lite.cli import main
import hestiaos_lite.batch.run, hestiaos_lite.batch.output, hestiaos_lite.client, requests
try:
    ctypes.CDLL("libgcc_s.so.1")  # glibc loads it when the first thread ends, and aborts the process where it cannot
except OSError:
    pass  # another C library
with open("/proc/self/statm") as file:
    size = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + int(sys.argv[1]) * 1024 * 1024, resource.RLIM_INFINITY))
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads its own size in Linux's /proc")
@pytest.mark.parametrize(
    "headroom_mib",
    [8, 20, *(pytest.param(mib, marks=pytest.mark.slow) for mib in (7, 9, 12, 16, 30, 40, 100))],
)
def test_with_too_little_memory_for_its_threads_no_row_is_sent_twice(
    box: Sandbox, tmp_path: Any, headroom_mib: int
) -> None:
    batch = Batch(tmp_path, box.url)
    batch.give_rows(60)
    first = ran([sys.executable, "-c", LIMITED, str(headroom_mib)] + batch.arguments("--jobs", "16"))
    assert first.returncode in (0, 1, 3, 75), first
    assert batch.go("--resume").code in (0, 3)
    batch.check_each_id_once(60)
    assert set(executions(box).values()) == {1}


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="gives itself to a user of few processes"
)
def test_with_too_few_threads_allowed_it_goes_on_with_fewer(box: Sandbox) -> None:
    code = """if True:
        import os, resource, sys
        from hestiaos_lite import Client, run_batch
        client = Client(sys.argv[1])
        client.run("before")
        os.setgid(54321); os.setuid(54321)
        resource.setrlimit(resource.RLIMIT_NPROC, (4, 4))
        print(sorted(result.outcome for result in run_batch(client, ({"id": n, "input": "x"} for n in range(9)))))
        resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
        list(run_batch(client, [{"id": 1, "input": "x"}]))
    """
    process = ran([sys.executable, "-c", code, box.url])
    assert process.stdout.decode() == "{}\n".format(["ok"] * 9), process
    assert b"[EXECUTOR] no thread can be started" in process.stderr
    assert box.requests_total == 10
