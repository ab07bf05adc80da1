"""Outbox: real files, real processes, real kills. The service here is an append-only file that says what was sent."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest

from hestiaos_lite import errors
from hestiaos_lite.aegis.outbox import STATES, Answer, Delivery, FlushReport, Outbox, Row
from hestiaos_lite.aegis.rows import MOVES, SCHEMA, SCHEMA_VERSION

NOON = 1800000000.0  # seconds since the epoch
NOON_MS = 1800000000000
LEASE_MS = 60000
PACKAGE_PARENT = str(Path(__file__).resolve().parent.parent.parent)

posix_only = pytest.mark.skipif(os.name != "posix", reason="needs POSIX processes")


class Clock:
    """A clock that stands until it is told to go."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture()
def clock():
    return Clock()


@pytest.fixture()
def path(tmp_path):
    return tmp_path / "outbox.db"


@pytest.fixture()
def box(path, clock):
    with Outbox(path, clock=clock) as opened:
        yield opened


def record(box: Outbox, key: str = "key-1", thread_id: str = "T", **changes: Any) -> Row:
    action = changes.pop("action", "approve")
    changes = dict({"tenant_id": "acme", "request_id": "req-" + key, "payload": {"n": 1}}, **changes)
    return box.record(action, key, thread_id=thread_id, **changes)


def accept(row: Row) -> Answer:
    return Answer(202, {"request_id": row.request_id})


def claimed(box: Outbox, row_id: int) -> Row:
    row = box.claim(row_id)
    assert row is not None
    return row


class Service:
    """A ``send`` that remembers what came, and answers each key by what it was told to; 202 otherwise."""

    def __init__(self, **faults: Any) -> None:
        self.faults = faults
        self.keys: List[str] = []

    def __call__(self, row: Row) -> Answer:
        self.keys.append(row.idempotency_key)
        fault = self.faults.get(row.idempotency_key, Answer(202))
        if isinstance(fault, BaseException):
            raise fault
        return fault


@pytest.fixture()
def script():
    """Start Python processes on some code, with every warning an error; none outlives its test."""
    with contextlib.ExitStack() as running:

        def start(code: str, *arguments: Any, **options: Any) -> subprocess.Popen:
            process = subprocess.Popen(
                [sys.executable, "-W", "error", "-c", textwrap.dedent(code)] + [str(a) for a in arguments],
                env=dict(os.environ, PYTHONPATH=PACKAGE_PARENT),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                universal_newlines=True,
                **options,
            )
            running.enter_context(process)
            running.callback(process.kill)
            return process

        yield start


def killed(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL


def finished(process: subprocess.Popen) -> str:
    """Wait for a process that must succeed without a word on standard error; give its standard output."""
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    return out


# Recording


def test_a_recorded_row(box):
    row = record(box, "key-1", payload={"b": (1, 2), "a": "é"}, base_url="http://h:1")
    assert row == Row(
        id=1,
        state="queued",
        action="approve",
        idempotency_key="key-1",
        tenant_id="acme",
        thread_id="T",
        payload={"a": "é", "b": [1, 2]},
        payload_digest=hashlib.sha256('{"a":"é","b":[1,2]}'.encode()).hexdigest(),
        request_id="req-key-1",
        base_url="http://h:1",
        attempts=0,
        recorded_ms=NOON_MS,
        next_attempt_ms=NOON_MS,
        owner=None,
        lease_until_ms=None,
        ended_ms=None,
        status_code=None,
        answer=None,
        reason=None,
    )
    assert "é" not in repr(row)


def test_a_record_is_on_disk_before_anybody_closes(box, path):
    record(box)
    other = sqlite3.connect(str(path))
    try:
        assert other.execute("SELECT idempotency_key FROM decision").fetchall() == [("key-1",)]
    finally:
        other.close()


SECOND_RECORDS = {
    "the same": ({}, 1),
    "another request id": ({"request_id": "other"}, 1),
    "keys in another order": ({"payload": {"y": [1], "x": 1.5}}, 1),
    "tuple for list": ({"payload": {"x": 1.5, "y": (1,)}}, 1),
    "another tenant": ({"tenant_id": "other"}, 2),
    "hosted": ({"tenant_id": None}, 2),
    "another thread": ({"thread_id": "U"}, 2),
    "another action": ({"action": "reject"}, "action: approve"),
    "another payload": ({"payload": {"x": 1.5, "y": [2]}}, "payload"),
    "a number of another kind": ({"payload": {"x": 1.5, "y": [1.0]}}, "payload"),
    "no payload": ({"payload": None}, "payload"),
}


@pytest.mark.parametrize(("changes", "expected"), SECOND_RECORDS.values(), ids=SECOND_RECORDS.keys())
@pytest.mark.parametrize("state", STATES)
def test_a_key_recorded_twice(box, changes, expected, state):
    record(box, payload={"x": 1.5, "y": [1]})
    bring_to(box, 1, state)
    before = box.get(1)
    again = dict({"payload": {"x": 1.5, "y": [1]}}, **changes)
    if isinstance(expected, str):
        with pytest.raises(errors.IdempotencyConflict) as caught:
            record(box, **again)
        assert "the idempotency key 'key-1' stands for another {} (row 1 of".format(expected) in str(
            caught.value
        )
        assert caught.value.delivered is False
    elif expected == 1:
        assert record(box, **again) == before
    else:
        assert record(box, **again).id == 2
    assert box.get(1) == before
    assert len(box.list()) == (2 if expected == 2 else 1)


def test_no_payload_is_an_empty_object(box):
    assert record(box, payload=None).payload == {}
    assert record(box, payload={}).id == 1


def loop() -> Dict[str, Any]:
    value: Dict[str, Any] = {}
    value["self"] = value
    return value


def deep() -> Dict[str, Any]:
    value: Dict[str, Any] = {}
    for _ in range(200000):
        value = {"v": value}
    return value


BAD_RECORDS = {
    "NaN": ({"payload": {"x": float("nan")}}, "payload"),
    "infinity": ({"payload": {"x": [float("inf")]}}, "payload"),
    "object": ({"payload": {"x": object()}}, "payload"),
    "bytes": ({"payload": {"x": b"1"}}, "payload"),
    "list": ({"payload": [1]}, "must be a JSON object, not list"),
    "text": ({"payload": "{}"}, "must be a JSON object, not str"),
    "cycle": ({"payload": loop()}, "payload"),
    "too deep": ({"payload": deep()}, "payload"),
    "surrogate in the payload": ({"payload": {"x": "\ud800"}}, "payload"),
    "two keys that are one": ({"payload": {1: "a", "1": "b"}}, "two of its keys are the same"),
    "no key": ({"key": ""}, "idempotency_key must be"),
    "key not text": ({"key": 1}, "idempotency_key must be"),
    "surrogate in the key": ({"key": "\udc80"}, "idempotency_key has a lone surrogate"),
    "no action": ({"action": ""}, "action must be"),
    "no thread": ({"thread_id": None}, "thread_id must be"),
    "no request id": ({"request_id": ""}, "request_id must be"),
    "tenant not text": ({"tenant_id": 7}, "tenant_id must be"),
}


@pytest.mark.parametrize(("changes", "message"), BAD_RECORDS.values(), ids=BAD_RECORDS.keys())
def test_what_cannot_be_recorded(box, changes, message):
    with pytest.raises(errors.InvalidInput) as caught:
        box.record(
            changes.get("action", "approve"),
            changes.get("key", "key-1"),
            tenant_id=changes.get("tenant_id", "acme"),
            thread_id=changes.get("thread_id", "T"),
            request_id=changes.get("request_id", "r"),
            payload=changes.get("payload"),
        )
    assert message in str(caught.value)
    assert box.list() == []


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["lease_seconds", "keep_days", "busy_seconds"])
def test_durations_must_be_positive_numbers(path, name, value):
    with pytest.raises(errors.InvalidInput, match=name):
        Outbox(path, **{name: value})
    assert not path.exists()


# Moves


def bring_to(box: Outbox, row_id: int, state: str) -> None:
    if state == "queued":
        return
    row = claimed(box, row_id)
    if state == "settled":
        box.settle(row, 202, {"seen": True})
    elif state == "dead":
        box.bury(row, "no", 422)


def steal(box: Outbox, row: Row) -> Row:
    """Let the lease run out and another sender take the row."""
    box._clock.now += LEASE_MS / 1000  # type: ignore[attr-defined]
    return claimed(box, row.id)


ACTS: Dict[str, Callable[[Outbox, Row], Any]] = {
    "claim": lambda box, row: box.claim(row.id) is not None,
    "release": lambda box, row: box.release(row, "later"),
    "bury": lambda box, row: box.bury(row, "no"),
    "settle": lambda box, row: box.settle(row, 409),
    "requeue": lambda box, row: box.requeue(row.id),
}


@pytest.mark.parametrize("move", list(MOVES))
@pytest.mark.parametrize("state", STATES)
def test_every_move_from_every_state(box, state, move):
    record(box)
    bring_to(box, 1, state)
    row = box.get(1)
    starts, end = MOVES[move]
    if (state, move) == ("claimed", "claim"):
        assert ACTS[move](box, row) is False  # the lease still runs
        box._clock.now += LEASE_MS / 1000
    legal = state in starts
    assert ACTS[move](box, row) is legal
    assert box.get(1).state == (end if legal else state)


def test_the_table_of_moves():
    assert {start: {end for starts, end in MOVES.values() if start in starts} for start in STATES} == {
        "queued": {"claimed", "settled"},
        "claimed": {"claimed", "queued", "settled", "dead"},
        "settled": set(),
        "dead": {"queued", "settled"},
    }


LATE = {  # what became of a row after its lease ran out, what its first owner then says, and what stands in the end
    ("queued", "settle"): "settled",
    ("queued", "release"): "queued",
    ("queued", "bury"): "queued",
    ("claimed", "settle"): "settled",
    ("claimed", "release"): "claimed",
    ("claimed", "bury"): "claimed",
    ("settled", "settle"): "settled",
    ("settled", "release"): "settled",
    ("settled", "bury"): "settled",
    ("dead", "settle"): "settled",
    ("dead", "release"): "dead",
    ("dead", "bury"): "dead",
}


@pytest.mark.parametrize(("meanwhile", "late"), list(LATE))
def test_a_late_word_of_an_owner_whose_lease_ran_out(box, meanwhile, late):
    record(box)
    first = claimed(box, 1)
    second = steal(box, first)
    if meanwhile == "queued":
        box.release(second, "busy")
    elif meanwhile == "settled":
        box.settle(second, 409)
    elif meanwhile == "dead":
        box.bury(second, "no", 422)
    before = box.get(1)
    changed = ACTS[late](box, first)
    after = box.get(1)
    assert after.state == LATE[meanwhile, late]
    assert changed is (before != after) is (late == "settle" and meanwhile != "settled")
    if meanwhile == "claimed" and late == "settle":
        assert box.release(second, "refused") is False  # the new owner learns that it is over
        assert box.get(1) == after


def test_a_late_word_counts_while_nobody_else_took_the_row(box, clock):
    record(box)
    row = claimed(box, 1)
    clock.now += 3600
    assert box.bury(row, "no", 422)
    assert box.get(1).state == "dead"


# Claims


def test_a_claim_holds_until_its_lease_ends(box, clock):
    record(box)
    first = claimed(box, 1)
    assert (first.state, first.attempts, first.lease_until_ms) == ("claimed", 1, NOON_MS + LEASE_MS)
    clock.now += LEASE_MS / 1000 - 0.001
    assert box.claim(1) is None
    clock.now += 0.001
    second = claimed(box, 1)
    assert (second.attempts, second.owner == first.owner) == (2, False)


def test_a_row_waits_for_the_older_ones_of_its_thread(box, clock):
    for key, thread_id, tenant_id in (
        ("a1", "A", "acme"),
        ("a2", "A", "acme"),
        ("b1", "B", "acme"),
        ("x1", "A", None),
    ):
        record(box, key, thread_id, tenant_id=tenant_id)
    assert box.claim(2) is None  # a1 is queued
    a1 = claimed(box, 1)
    assert box.claim(2) is None  # a1 is being sent
    box.release(a1, "later", delay_seconds=30)
    assert box.claim(2) is None  # a1 backs off
    assert box.claim(1) is None
    assert box.claim(3) is not None  # another thread
    assert box.claim(4) is not None  # the same thread id of another tenant
    clock.now += 30
    box.bury(claimed(box, 1), "no", 422)
    assert box.claim(2) is not None  # the dead do not hold back the living


def test_claiming_what_is_not_there(box):
    for row_id in (1, 0, -1, 2**63, 2**200):
        with pytest.raises(errors.NotFound, match="there is no row {} in the outbox".format(row_id)):
            box.claim(row_id)


# One delivery

DELIVERIES = {
    "202": (Answer(202, {"id": 1}), "settled", 202, 0),
    "200": (Answer(200), "settled", 200, 0),
    "409": (Answer(409, "seen"), "settled", 409, 0),
    "409 raised": (errors.Conflict("seen", status=409), "settled", 409, 0),
    "no connection": (errors.ConnectionFailed("refused", delivered=False), "queued", None, 0),
    "no answer": (errors.ConnectionFailed("reset", delivered=None), "queued", None, 0),
    "timeout": (errors.RequestTimeout(), "queued", None, 0),
    "500": (errors.ServerError(status=500), "queued", 500, 0),
    "503 with a wait": (errors.ServerError(status=503, retry_after=7.5), "queued", 503, 7500),
    "429": (errors.RateLimited(status=429), "queued", 429, 0),
    "429 with a wait": (errors.RateLimited(status=429, retry_after=90), "queued", 429, 90000),
    "429 with an absurd wait": (errors.RateLimited(status=429, retry_after=1e300), "queued", 429, 86400000),
    "429 with no number": (errors.RateLimited(status=429, retry_after=float("nan")), "queued", 429, 0),
    "not JSON": (errors.InvalidResponse(status=202), "queued", 202, 0),
    "400": (errors.InvalidInput("bad", status=400), "dead", 400, 0),
    "401": (errors.AuthenticationError(status=401), "dead", 401, 0),
    "403": (errors.PermissionDenied(status=403), "dead", 403, 0),
    "404": (errors.NotFound("gone", status=404), "dead", 404, 0),
    "422": (errors.InvalidInput("field required", status=422), "dead", 422, 0),
    "cannot be sent": (errors.InvalidInput("no such header"), "dead", None, 0),
}


@pytest.mark.parametrize(
    ("outcome", "state", "status", "delay_ms"), DELIVERIES.values(), ids=DELIVERIES.keys()
)
def test_what_an_outcome_makes_of_a_row(box, outcome, state, status, delay_ms):
    record(box)
    delivery = box.deliver(claimed(box, 1), Service(**{"key-1": outcome}))
    row = box.get(1)
    assert (row.state, row.status_code, row.next_attempt_ms) == (state, status, NOON_MS + delay_ms)
    if state == "settled":
        answer = outcome if isinstance(outcome, Answer) else Answer(409, None)
        assert delivery == Delivery("settled", answer)
        assert (row.answer, row.reason, row.ended_ms) == (answer.data, None, NOON_MS)
    else:
        assert delivery == Delivery(state, error=outcome)
        assert row.reason == str(outcome)


NOT_THE_ROWS_FAULT = {
    "a setting": errors.InvalidInput("no such certificate", code="CONFIGURATION"),
    "interrupted": KeyboardInterrupt(),
    "exit": SystemExit(1),
    "a bug": ZeroDivisionError(),
    "an answer that is none": Answer(500),
}


@pytest.mark.parametrize("outcome", NOT_THE_ROWS_FAULT.values(), ids=NOT_THE_ROWS_FAULT.keys())
def test_what_is_not_the_rows_fault_frees_it_and_goes_on(box, outcome):
    record(box)
    raised = type(outcome) if isinstance(outcome, BaseException) else ValueError
    with pytest.raises(raised):
        box.flush(Service(**{"key-1": outcome}))
    row = box.get(1)
    assert (row.state, row.owner, row.next_attempt_ms, row.attempts) == ("queued", None, NOON_MS, 1)
    assert raised.__name__ in row.reason or row.reason == str(outcome)
    assert box.flush(accept) == FlushReport(sent=1)


def test_long_reasons_are_cut(box):
    record(box)
    box.bury(claimed(box, 1), "x" * 10000)
    assert box.get(1).reason == "x" * 500


# Flushing


def test_flush_sends_oldest_first_and_reports(box):
    for key, thread_id in (
        ("a1", "A"),
        ("b1", "B"),
        ("a2", "A"),
        ("c1", "C"),
        ("b2", "B"),
        ("c2", "C"),
        ("d1", "D"),
    ):
        record(box, key, thread_id)
    service = Service(
        a1=Answer(409),
        b1=errors.ServerError(status=500),
        c1=errors.InvalidInput("no", status=422),
    )
    assert box.flush(service) == FlushReport(sent=3, duplicate=1, queued=2, dead=1)
    assert service.keys == ["a1", "b1", "a2", "c1", "c2", "d1"]  # b2 waits for b1
    service = Service()
    assert box.flush(service) == FlushReport(sent=2)
    assert service.keys == ["b1", "b2"]
    assert box.flush(service) == FlushReport()
    assert box.counts() == {"queued": 0, "claimed": 0, "settled": 6, "dead": 1}


def test_flush_leaves_alone_what_is_held_or_not_due(box, clock):
    for key, thread_id in (("a1", "A"), ("a2", "A"), ("b1", "B"), ("b2", "B"), ("c1", "C")):
        record(box, key, thread_id)
    box.release(claimed(box, 1), "quota", delay_seconds=100)
    clock.now += 50
    claimed(box, 3)
    service = Service()
    assert box.flush(service) == FlushReport(sent=1, queued=4)
    clock.now += 50
    assert box.flush(service) == FlushReport(sent=2, queued=2)
    clock.now += 10
    assert box.flush(service) == FlushReport(sent=2)
    assert service.keys == ["c1", "a1", "a2", "b1", "b2"]


def test_flush_leaves_what_is_recorded_meanwhile(box):
    record(box, "k1")

    def send(row: Row) -> Answer:
        number = int(row.idempotency_key[1:]) + 1
        record(box, "k{}".format(number))  # in the same thread: without a bound this would go on for ever
        return Answer(202)

    assert box.flush(send) == FlushReport(sent=1, queued=1)


def test_flush_gives_up_when_nobody_answers(box):
    for n in range(10):
        record(box, "k{}".format(n), "T{}".format(n))
    down = errors.ConnectionFailed("refused", delivered=False)
    service = Service(k0=down, k1=down, k3=down, k4=errors.RequestTimeout(), k5=down)
    assert box.flush(service) == FlushReport(sent=1, queued=9)
    assert service.keys == ["k0", "k1", "k2", "k3", "k4", "k5"]  # k2 was answered, so the count began anew


def test_flush_until_a_row_drains_its_thread_up_to_there(box):
    for key, thread_id in (("a1", "A"), ("b1", "B"), ("a2", "A"), ("a3", "A")):
        record(box, key, thread_id)
    service = Service()
    assert box.flush(service, until=box.get(3)) == FlushReport(sent=2)
    assert service.keys == ["a1", "a2"]
    assert [row.idempotency_key for row in box.list(["queued"])] == ["b1", "a3"]


def test_a_service_down_for_a_whole_run_then_back(box):
    keys = ["{}{}".format(thread_id, n) for n in range(20) for thread_id in "ABC"]
    down = Service(**{key: errors.ConnectionFailed("refused", delivered=False) for key in keys})
    for key in keys:
        record(box, key, key[0])
        assert box.flush(down).sent == 0
    service = Service()
    assert box.flush(service) == FlushReport(sent=60)
    assert service.keys == keys


# Looking after the file


def test_list_and_counts(box):
    for n, state in enumerate(STATES):
        record(box, state, "T{}".format(n))
        bring_to(box, n + 1, state)
    assert [row.state for row in box.list()] == list(STATES)
    assert [row.state for row in box.list(("dead", "queued"))] == ["queued", "dead"]
    assert box.list([]) == []
    assert box.counts() == dict.fromkeys(STATES, 1)
    with pytest.raises(
        errors.InvalidInput, match="no state 'done': there are queued, claimed, settled, dead"
    ):
        box.list(["done"])


@pytest.mark.parametrize("state", STATES)
def test_drop(box, clock, state):
    record(box)
    bring_to(box, 1, state)
    before = box.get(1)
    if state == "claimed":
        with pytest.raises(errors.Conflict, match="row 1 of the outbox .* is being sent"):
            box.drop(1)
        clock.now += LEASE_MS / 1000
    assert box.drop(1) == before
    with pytest.raises(errors.NotFound, match="there is no row 1 in the outbox"):
        box.drop(1)
    assert record(box).id == 2  # an id is never used again: a late answer for 1 must not settle 2
    assert box.settle(before, 202) is False
    assert box.get(2).state == "queued"


def test_requeue_gives_a_dead_row_another_chance(box, clock):
    record(box)
    bring_to(box, 1, "dead")
    clock.now += 5
    assert box.requeue(1)
    assert (box.get(1).state, box.get(1).ended_ms, box.get(1).reason) == ("queued", None, "no")
    assert box.flush(accept) == FlushReport(sent=1)
    assert not box.requeue(1)


def test_only_rows_settled_long_ago_are_pruned(path, clock):
    with Outbox(path, clock=clock, keep_days=2) as box:
        for n, state in enumerate(STATES + ("settled",)):
            clock.now = NOON + n
            record(box, "k{}".format(n), "T{}".format(n))
            bring_to(box, n + 1, state)
        clock.now = NOON + 2 + 2 * 86400  # k2 was settled exactly two days ago
        assert box.prune() == 0
        clock.now += 0.001
    with Outbox(path, clock=clock, keep_days=2) as box:
        assert len(box.list()) == 5  # reading prunes nothing
        record(box, "new")
        assert [row.idempotency_key for row in box.list()] == ["k0", "k1", "k3", "k4", "new"]
        clock.now += 2
        assert box.prune() == 1


def test_close_is_final_and_twice_does_no_harm(path):
    with Outbox(path) as box:
        record(box)
    box.close()
    for act in (box.list, lambda: record(box), lambda: box.flush(accept)):
        with pytest.raises(errors.HestiaError, match="it was closed; open it again") as caught:
            act()
        assert caught.value.code == "OUTBOX"
    assert sorted(os.listdir(str(path.parent))) == [path.name]  # the log is folded in


# Files that cannot be an outbox


def refused(act: Callable[[], Any], path: Path, *words: str) -> errors.HestiaError:
    """Run what must fail with the one error an outbox file may raise."""
    with pytest.raises(errors.HestiaError) as caught:
        act()
    error = caught.value
    assert (type(error), error.code) == (errors.HestiaError, "OUTBOX")
    for word in (str(path),) + words:
        assert word in str(error)
    return error


def sqlite_file(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(str(path))
    for statement in statements:
        connection.execute(statement).fetchall()
    connection.commit()
    connection.close()


def snapshot(folder: Path) -> Dict[str, Any]:
    return {entry.name: entry.read_bytes() if entry.is_file() else "" for entry in sorted(folder.iterdir())}


def make_directory(path: Path) -> None:
    path.mkdir()


def make_text(path: Path) -> None:
    path.write_text("key,action\n" * 1000)


def make_short(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0")


def make_foreign(path: Path) -> None:
    sqlite_file(path, "CREATE TABLE decision (id INTEGER)", "PRAGMA user_version = 1")


def make_foreign_with_a_log(path: Path) -> None:
    """Leave a write-ahead log behind, as a killed program does: opening the file would fold it in."""
    source = path.parent.parent / "source.db"
    connection = sqlite3.connect(str(source))
    for statement in ("PRAGMA journal_mode = WAL", "CREATE TABLE t (x)", "INSERT INTO t VALUES (1)"):
        connection.execute(statement).fetchall()
    connection.commit()
    shutil.copy(str(source), str(path))
    shutil.copy(str(source) + "-wal", str(path) + "-wal")
    connection.close()


def make_newer(path: Path) -> None:
    sqlite_file(path, *(SCHEMA[:-1] + ("PRAGMA user_version = {}".format(SCHEMA_VERSION + 1),)))


def make_torn(path: Path) -> None:
    """A good header, and noise after it."""
    sqlite_file(path, *SCHEMA)
    content = path.read_bytes()
    path.write_bytes(content[:100] + bytes(range(256)) * (len(content) // 256))


UNUSABLE = {
    "directory": (make_directory, ["no regular file", "name another path"]),
    "not SQLite": (make_text, ["no SQLite file", "left as it is", "name another path"]),
    "cut in the header": (make_short, ["another program's SQLite file"]),
    "another program's": (make_foreign, ["another program's SQLite file", "left as it is"]),
    "another program's, with a log": (
        make_foreign_with_a_log,
        ["another program's SQLite file", "left as it is"],
    ),
    "newer schema": (make_newer, ["schema version 2", "knows 1", "upgrade hestiaos-lite"]),
    "torn": (make_torn, ["it is damaged", ".recover"]),
}


@pytest.mark.parametrize(("make", "words"), UNUSABLE.values(), ids=UNUSABLE.keys())
def test_a_file_that_is_no_outbox_is_refused_and_left_alone(tmp_path, make, words):
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "outbox.db"
    make(path)
    before = snapshot(folder)
    error = refused(lambda: Outbox(path), path, *words)
    assert error.delivered is False
    assert snapshot(folder) == before


def test_a_missing_folder(tmp_path):
    path = tmp_path / "no" / "such" / "outbox.db"
    refused(lambda: Outbox(path), path, "its folder does not exist", "mkdir -p {}".format(path.parent))


@posix_only
def test_a_named_pipe_is_refused_without_waiting(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(str(path))
    refused(lambda: Outbox(path), path, "no regular file")


@pytest.mark.parametrize("bad", [None, 7, "nul\0byte"])
def test_what_is_no_path_at_all(bad):
    with pytest.raises(errors.HestiaError, match="cannot be an outbox"):
        Outbox(bad)


@pytest.mark.parametrize("name", ["with space.db", "per%20cent?mode=ro#x.db", "grüße.db", ":memory:"])
def test_any_name_is_only_a_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(str(tmp_path))
    with Outbox(name) as box:
        record(box)
        monkeypatch.chdir("/")  # the path was made absolute when it was given
        assert record(box).id == 1
    assert os.listdir(str(tmp_path)) == [name]


@posix_only
def test_the_files_are_for_their_owner_only(tmp_path):
    path = tmp_path / "outbox.db"
    previous = os.umask(0)
    try:
        with Outbox(path) as box:
            record(box)
            modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in tmp_path.iterdir()}
    finally:
        os.umask(previous)
    assert modes == {"outbox.db": 0o600, "outbox.db-wal": 0o600, "outbox.db-shm": 0o600}


@posix_only
def test_a_file_that_is_there_keeps_its_mode(path):
    path.touch(mode=0o660)
    path.chmod(0o660)
    with Outbox(path) as box:
        record(box)
        assert stat.S_IMODE(path.stat().st_mode) == 0o660


def test_the_file_is_marked_as_ours_and_logs_ahead(box, path):
    header = path.read_bytes()[:100]
    assert (header[18:20], header[60:64], header[68:72]) == (b"\2\2", b"\0\0\0\1", b"HLOB")
    with box._file.transaction(write=False) as connection:
        assert connection.execute("PRAGMA synchronous").fetchall() == [(2,)]


def test_locked_too_long(path):
    Outbox(path).close()
    other = sqlite3.connect(str(path), isolation_level=None)
    try:
        with Outbox(path, busy_seconds=0.2) as box:
            other.execute("BEGIN IMMEDIATE")
            error = refused(
                lambda: record(box), path, "another program has held it too long", "database is locked"
            )
            assert error.delivered is False
            assert box.list() == []  # readers are not held up
            other.execute("ROLLBACK")
            assert record(box).id == 1
    finally:
        other.close()


def test_locked_while_it_is_being_made(path):
    path.touch()
    other = sqlite3.connect(str(path), isolation_level=None)
    try:
        other.execute("BEGIN EXCLUSIVE")
        refused(lambda: Outbox(path, busy_seconds=0.2), path, "another program has held it too long")
    finally:
        other.close()
    with Outbox(path) as box:
        assert record(box).id == 1


def test_the_switch_to_logging_waits_for_a_reader(path):
    sqlite_file(path, *SCHEMA)  # made, but its maker was killed before the switch
    other = sqlite3.connect(str(path), isolation_level=None, check_same_thread=False)
    try:
        other.execute("BEGIN")
        other.execute("SELECT * FROM decision").fetchall()
        refused(lambda: Outbox(path, busy_seconds=0.2), path, "another program has held it too long")
        threading.Timer(0.3, lambda: other.execute("ROLLBACK")).start()
        with Outbox(path, busy_seconds=30) as box:
            assert record(box).id == 1
    finally:
        other.close()


@pytest.mark.parametrize("replace", [False, True], ids=["removed", "replaced"])
def test_a_file_that_is_taken_away_while_open(box, path, replace):
    record(box)
    path.rename(path.with_name("away.db"))
    if replace:
        path.touch()
    refused(lambda: record(box, "key-2"), path, "replaced" if replace else "removed", "run again")


def test_a_damaged_row(box, path):
    record(box)
    sqlite_file(path, "UPDATE decision SET payload = '{'")
    refused(lambda: box.get(1), path, "it is damaged", "row 1 is malformed")


FILL = """
    import sys
    from hestiaos_lite.errors import HestiaError
    from hestiaos_lite.aegis.outbox import Outbox
    {setup}
    box = Outbox(sys.argv[1])
    recorded = 0
    try:
        while recorded < 1000:
            box.record("approve", "k%d" % recorded, tenant_id=None, thread_id="T", request_id="r",
                       payload={{"x": "y" * 5000}})
            recorded += 1
    except HestiaError as error:
        print(error.code, error.delivered, recorded, str(error), sep="|")
    {after}
    assert len(box.list()) == recorded, (len(box.list()), recorded)
    box.record("approve", "small", tenant_id=None, thread_id="T", request_id="r")
    box.close()
"""


@posix_only
def test_a_file_size_limit(path, script):
    setup = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (300000, resource.RLIM_INFINITY))"
    after = "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))"
    out = finished(script(FILL.format(setup=setup, after=after), path))
    code, delivered, recorded, message = out.strip().split("|")
    assert (code, delivered) == ("OUTBOX", "False")
    assert int(recorded) > 10
    assert str(path) in message
    assert "limits" in message
    with Outbox(path) as box:
        assert box.counts()["queued"] == int(recorded) + 1


@posix_only
def test_a_full_disk(tmp_path):
    mounted = "mount -t tmpfs -o size=400k tmpfs {}".format(tmp_path)
    if subprocess.call(["unshare", "-m", "sh", "-c", mounted], stderr=subprocess.DEVNULL) != 0:
        pytest.skip("may not mount a small file system")
    setup = "import os; open(os.path.dirname(sys.argv[1]) + '/ballast', 'wb').write(bytes(60000))"
    after = "os.remove(os.path.dirname(sys.argv[1]) + '/ballast')"
    code = textwrap.dedent(FILL.format(setup=setup, after=after))
    ran = subprocess.run(
        ["unshare", "-m", "sh", "-c", mounted + ' && exec "$0" -c "$1" "$2"', sys.executable, code]
        + [str(tmp_path / "outbox.db")],
        env=dict(os.environ, PYTHONPATH=PACKAGE_PARENT),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    code, delivered, recorded, message = ran.stdout.strip().split("|")
    assert (code, delivered) == ("OUTBOX", "False")
    assert int(recorded) > 10
    assert "the disk is full; make room" in message


READ_ONLY = """
    import os, sys
    import urllib.parse  # pathlib loads it late, when the other user may not read the standard library any more
    from hestiaos_lite.errors import HestiaError
    from hestiaos_lite.aegis.outbox import Outbox
    if os.getuid() == 0:
        os.setuid(65534)  # root may write anywhere
    try:
        with Outbox(sys.argv[1]) as box:
            box.record("approve", "k", tenant_id=None, thread_id="T", request_id="r")
    except HestiaError as error:
        print(error.code, error.delivered, str(error), sep="|")
"""


@posix_only
@pytest.mark.parametrize("case", ["file", "folder", "unreadable"])
def test_what_may_not_be_written(case, script):
    # Not tmp_path: another user may not enter it.
    folder = Path(tempfile.mkdtemp())
    path = folder / "outbox.db"
    try:
        if case != "folder":
            Outbox(path).close()
            path.chmod(0o444 if case == "file" else 0)
        folder.chmod(0o555)
        code, delivered, message = finished(script(READ_ONLY, path)).strip().split("|")
        assert (code, delivered) == ("OUTBOX", "False")
        assert "outbox {}: ".format(os.path.realpath(str(path))) in message
        assert "check the owner and mode of the file and of its folder" in message
        assert os.listdir(str(folder)) == ([] if case == "folder" else ["outbox.db"])
    finally:
        folder.chmod(0o700)
        shutil.rmtree(str(folder))


# Threads, processes, kills, forks

SEND_TO_FILE = """
    import os, sys, time
    from hestiaos_lite.aegis.outbox import Answer, Outbox

    log = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def send(row):
        os.write(log, (row.thread_id + " " + row.idempotency_key + "\\n").encode())
        return Answer(202)
"""


def test_threads_share_one_outbox(path):
    with Outbox(path) as box:
        service = Service()
        start = threading.Barrier(8)
        reports: List[FlushReport] = []
        ids: List[int] = []

        def work() -> None:
            start.wait()
            ids.extend(record(box, "k{}".format(n), "T{}".format(n % 10)).id for n in range(100))
            start.wait()
            reports.append(box.flush(service))

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(ids) == sorted(list(range(1, 101)) * 8)
        assert sum(report.sent for report in reports) == 100
        assert sorted(service.keys) == sorted("k{}".format(n) for n in range(100))
        for tail in range(10):
            sent = [int(key[1:]) for key in service.keys if int(key[1:]) % 10 == tail]
            assert sent == sorted(sent)


@posix_only
def test_four_processes_send_a_thousand_rows_once_each(tmp_path, path, script):
    with Outbox(path) as box:
        for n in range(1000):
            record(box, "k{:04}".format(n), "T{}".format(n * 7 % 25))
        log = tmp_path / "sent"
        flush = """
    with Outbox(sys.argv[1]) as box:
        print("ready", flush=True)
        sys.stdin.readline()
        print(box.flush(send).sent)
        """
        flushers = [script(SEND_TO_FILE + flush, path, log, stdin=subprocess.PIPE) for _ in range(4)]
        for flusher in flushers:
            assert flusher.stdout is not None
            assert flusher.stdout.readline() == "ready\n"
        for flusher in flushers:
            assert flusher.stdin is not None
            flusher.stdin.write("\n")
            flusher.stdin.flush()
        counts = [int(finished(flusher)) for flusher in flushers]
        sent = [line.split() for line in log.read_text().splitlines()]
        assert sorted(key for _, key in sent) == ["k{:04}".format(n) for n in range(1000)]
        for thread_id in {thread_id for thread_id, _ in sent}:
            keys = [key for thread, key in sent if thread == thread_id]
            assert keys == sorted(keys)
        assert sum(counts) == 1000
        assert box.counts() == {"queued": 0, "claimed": 0, "settled": 1000, "dead": 0}
        assert {row.attempts for row in box.list()} == {1}


@posix_only
def test_a_killed_senders_row_is_free_after_its_lease_and_not_before(path, clock, script):
    clock.now = time.time()
    with Outbox(path, clock=clock) as box:
        record(box, "k1")
        record(box, "k2")
        holder = script(
            """
            import sys, time
            from hestiaos_lite.aegis.outbox import Outbox
            Outbox(sys.argv[1], lease_seconds=45).flush(lambda row: (print(row.id, flush=True), time.sleep(60)))
            """,
            path,
        )
        assert holder.stdout is not None
        assert holder.stdout.readline() == "1\n"
        killed(holder)
        lease_until_ms = box.get(1).lease_until_ms
        assert lease_until_ms is not None
        clock.now = lease_until_ms / 1000 - 0.5
        service = Service()
        assert box.flush(service) == FlushReport(queued=2)
        clock.now = lease_until_ms / 1000 + 0.5
        assert box.flush(service) == FlushReport(sent=2)
        assert service.keys == ["k1", "k2"]
        assert [row.attempts for row in box.list()] == [2, 1]


@posix_only
@pytest.mark.parametrize("kills", [12, pytest.param(200, marks=pytest.mark.slow)])
def test_killed_at_random_moments_nothing_is_lost(tmp_path, path, kills, script):
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    log, acknowledged = tmp_path / "sent", tmp_path / "recorded"
    work = """
    recorded = os.open(sys.argv[3], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    first = int(sys.argv[4])
    box = Outbox(sys.argv[1], lease_seconds=0.001)
    print("ready", flush=True)
    for n in range(first, first + 100000):
        box.record("approve", "k%d" % n, tenant_id=None, thread_id="T%d" % (n % 3), request_id="r%d" % n)
        os.write(recorded, b"k%d\\n" % n)
        if n % 5 == 0:
            box.flush(send)
    """
    for kill in range(kills):
        process = script(SEND_TO_FILE + work, path, log, acknowledged, kill * 100000)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0, 0.05))
        killed(process)
    finished(script(SEND_TO_FILE + "    time.sleep(0.01); Outbox(sys.argv[1]).flush(send)", path, log))
    with Outbox(path) as box:
        rows = {row.idempotency_key: row for row in box.list()}
        assert {row.state for row in rows.values()} == {"settled"}
        assert set(acknowledged.read_text().split()) <= set(rows)
        sent = [line.split()[1] for line in log.read_text().splitlines()]
        assert set(sent) == set(rows)
        for key, row in rows.items():  # sent again only when a killed sender had claimed it
            assert 1 <= sent.count(key) <= row.attempts
        assert sum(row.attempts - 1 for row in rows.values()) <= kills
        check = sqlite3.connect(str(path))
        assert check.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        check.close()


FORK = """
    import os, sys, threading
    from hestiaos_lite.aegis.outbox import Answer, Outbox

    def record(box, key):
        return box.record("approve", key, tenant_id=None, thread_id=key, request_id="r")

    box = Outbox(sys.argv[1])
    record(box, "before")
    children = []
    for n in range(4):
        child = os.fork()
        if child == 0:
            for m in range(50):
                record(box, "child%d.%d" % (n, m))
            if n == 0:
                assert box.flush(lambda row: Answer(202)).sent >= 1
            sys.exit(0)  # not os._exit: what the parent left here must survive being torn down
        children.append(child)
        record(box, "parent%d" % n)
    box.close()  # as its own last user it folds the log in, and must see that the children still use it
    box = Outbox(sys.argv[1])
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    keys = {row.idempotency_key for row in box.list()}
    expected = {"before"} | {"parent%d" % n for n in range(4)}
    expected |= {"child%d.%d" % (n, m) for n in range(4) for m in range(50)}
    assert keys == expected, keys ^ expected
    with box._file.transaction() as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    box.close()
"""


@posix_only
def test_parent_and_forked_children_each_write(path, script):
    finished(script(FORK, path))


@posix_only
def test_a_fork_while_another_thread_writes(path, script):
    code = """
    import os, sys, threading, time, warnings
    warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 and later warn of every fork beside threads
    from hestiaos_lite.aegis.outbox import Outbox

    box = Outbox(sys.argv[1])
    done = threading.Event()

    def write():
        n = 0
        while not done.is_set():
            box.record("approve", "t%d" % n, tenant_id=None, thread_id="T", request_id="r")
            n += 1

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    for n in range(20):
        child = os.fork()
        if child == 0:
            box.record("approve", "child%d" % n, tenant_id=None, thread_id="T", request_id="r")
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    done.set()
    thread.join()
    assert {"child%d" % n for n in range(20)} <= {row.idempotency_key for row in box.list()}
    box.close()
    """
    finished(script(code, path))


@posix_only
def test_two_outboxes_of_one_process_keep_each_others_locks(path, script):
    """POSIX drops all of a process's locks on a file when any descriptor of it is closed; a second opening must not."""
    code = """
    import sys
    from hestiaos_lite.aegis.outbox import Outbox
    with Outbox(sys.argv[1]) as box:  # opened and closed by another process: the last one out would remove the log
        print(len(box.list()))
    """
    with Outbox(path) as one:
        record(one, "k1")
        with Outbox(path) as two:
            record(two, "k2")
        assert finished(script(code, path)) == "2\n"
        assert Path(str(path) + "-wal").exists()
        record(one, "k3")
        assert finished(script(code, path)) == "3\n"


@pytest.mark.parametrize(
    "ending", ["", "del box", "box.close()", "import gc; box.cycle = box; del box; gc.collect()"]
)
def test_an_outbox_left_open_is_closed_without_a_warning(path, ending, script):
    code = """
    import sys
    from hestiaos_lite.aegis.outbox import Outbox
    box = Outbox(sys.argv[1])
    box.record("approve", "k", tenant_id=None, thread_id="T", request_id="r")
    """
    finished(script(code + "\n    " + ending, path))
    assert os.listdir(str(path.parent)) == [path.name]
