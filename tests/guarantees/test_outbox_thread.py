"""Many approvals at once on one thread id: each waits for the older ones and goes out in its own call."""

from __future__ import annotations

import subprocess
import threading
import time
from typing import Any, Dict, List

import pytest

from hestiaos_lite import ActionResult, AegisClient, Outbox
from hestiaos_lite.sandbox import Sandbox

from ..aegis.kit import leave_claimed, queue
from ..cli_call import call, command, environment

FACTS = {"tenant_id": "acme", "thread_id": "T"}
SENDER = ("--tenant", "acme", "--thread", "T")


def at_once(count: int, act: Any) -> List[Any]:
    start = threading.Barrier(count)
    results: Dict[int, Any] = {}

    def work(number: int) -> None:
        start.wait()
        results[number] = act(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == count
    return [results[number] for number in range(count)]


def test_twenty_threads(box: Sandbox, outbox: Outbox) -> None:
    with AegisClient(box.url, outbox=outbox, timeout=30, **FACTS) as client:
        results: List[ActionResult] = at_once(20, lambda number: client.approve("k{}".format(number)))
    assert [result.status_code for result in results] == [202] * 20
    in_order = [row.idempotency_key for row in outbox.list()]
    assert [action["idempotency_key"] for action in box.actions()] == in_order


@pytest.mark.parametrize("count", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_as_many_processes(box: Sandbox, tmp_path: Any, count: int) -> None:
    options = ["-u", box.url, *SENDER, "--outbox", str(tmp_path / "o.db"), "--timeout", "30"]
    processes = [
        subprocess.Popen(
            command("hitl", "approve", "k{}".format(number), *options),
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for number in range(count)
    ]
    ends = []
    for process in processes:
        out, err = process.communicate(timeout=120)
        ends.append((process.returncode, out.split()[0], err))
    assert ends == [(0, b"accepted", b"")] * count
    with Outbox(tmp_path / "o.db") as outbox:
        in_order = [row.idempotency_key for row in outbox.list()]
    assert [action["idempotency_key"] for action in box.actions()] == in_order


def test_the_same_key_twenty_times_is_accepted_once(box: Sandbox, outbox: Outbox) -> None:
    box.delay_next(0.2)
    with AegisClient(box.url, outbox=outbox, timeout=30, **FACTS) as client:
        results = at_once(20, lambda number: client.approve("k"))
    assert sorted(result.status_code for result in results) == [202] + [409] * 19
    assert box.requests_total == 1


def test_it_waits_no_longer_than_the_deadline(box: Sandbox, outbox: Outbox) -> None:
    """Somebody holds an older one and has perhaps been killed."""
    queue(outbox, "older", base_url=box.url)
    leave_claimed(outbox, 1, time.time() + 60)
    with AegisClient(box.url, outbox=outbox, timeout=0.3, **FACTS) as client:
        started = time.monotonic()
        result = client.approve("k")
        assert time.monotonic() - started >= 0.3
    assert result.queued
    words = "row 1, an older decision of its thread, has not been sent yet"
    assert result.extra["reason"] == words + ": no time was left to send it"
    assert box.requests == []
    options = ["-u", box.url, *SENDER, "--outbox", outbox.path, "--timeout", "0.1"]
    called = call("hitl", "approve", "k2", *options)
    assert (called.code, words in called.err) == (75, True)


def test_what_is_not_due_is_not_waited_for_and_says_why(box: Sandbox, outbox: Outbox) -> None:
    with AegisClient(box.url, outbox=outbox, timeout=30, **FACTS) as client:
        box.fail_next(429, retry_after=3600, body={"message": "quota exceeded"})
        results = [client.approve(key) for key in ("older", "older", "k")]
    assert [result.queued for result in results] == [True] * 3
    first, again, newer = (result.extra["reason"] for result in results)
    assert first == again
    assert first.startswith("[RATE_LIMITED] quota exceeded")
    assert "HTTP 429" in first
    assert newer == "row 1, an older decision of its thread, has not been sent yet: " + first
    assert box.requests_total == 1
