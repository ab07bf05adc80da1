"""An outbox through its clients: what is recorded, what an answer makes of a row, in which order rows go, and their care."""

from __future__ import annotations

import os
import sqlite3
import threading
from typing import Any, Dict, List

import pytest
import requests

from hestiaos_lite import (
    AuthenticationError,
    Conflict,
    FlushReport,
    HestiaError,
    IdempotencyConflict,
    InvalidInput,
    InvalidResponse,
    NotFound,
    Outbox,
)

from .kit import (
    LEASE_SECONDS,
    NOON,
    NOON_MS,
    URL,
    Service,
    client_of,
    flushed,
    leave_claimed,
    nobody_there,
    queue,
)

RESET = requests.ConnectionError("reset")


def states(box: Outbox) -> Any:
    return [(row.idempotency_key, row.state) for row in box.list()]


# Recording


def test_a_row_is_on_disk_and_claimed_before_it_is_sent(box, path):
    service = Service()
    seen = []
    service.meanwhile = lambda key: seen.extend([box.get(1), sqlite_rows(path)])
    with client_of(box, service) as client:
        result = client.approve("k", payload={"b": (1, 2), "a": "é"})
    row, on_disk = seen
    assert on_disk == [("k", "claimed")]
    assert len(row.owner) == 32
    assert dict(vars(row), owner="") == {
        "id": 1, "state": "claimed", "service": URL + "/api/v1", "action": "approve", "idempotency_key": "k",
        "tenant_id": "acme", "thread_id": "T", "payload": {"a": "é", "b": [1, 2]},
        "payload_digest": "9cfb1f938a87f2b8f3b8cc429c7a09116d54f048322742d4c23d4767b85f85da",
        "request_id": result.request_id, "attempts": 1, "recorded_ms": NOON_MS, "changed_ms": NOON_MS,
        "next_attempt_ms": NOON_MS, "owner": "", "lease_until_ms": NOON_MS + 60000, "ended_ms": None,
        "status_code": None, "answer": None, "confirmed": True, "reason": None,
    }  # fmt: skip
    assert "é" not in repr(row)


def sqlite_rows(path: Any) -> Any:
    other = sqlite3.connect(str(path))
    try:
        return other.execute("SELECT idempotency_key, state FROM decision").fetchall()
    finally:
        other.close()


# What differs from the first approval of a key -> "again" (it is that decision), "new", or what it is refused for.
# fmt: off
SECOND: Dict[str, Any] = {
    "the same":                   ({}, "again"),
    "keys in another order":      ({"payload": {"y": [1], "x": 1.5}}, "again"),
    "tuple for list":             ({"payload": {"x": 1.5, "y": (1,)}}, "again"),
    "another service":            ({"base_url": "http://127.0.0.1:2"}, "new"),
    "another tenant":             ({"tenant_id": "other"}, "new"),
    "hosted":                     ({"tenant_id": None, "api_key": "s3cr3t"}, "new"),
    "another thread":             ({"thread_id": "U"}, "new"),
    "another action":             ({"action": "reject"}, "another action: approve (row 1 of"),
    "another payload":            ({"payload": {"x": 1.5, "y": [2]}}, "another payload (row 1 of"),
    "a number of another kind":   ({"payload": {"x": 1.5, "y": [1.0]}}, "another payload (row 1 of"),
    "no payload":                 ({"payload": None}, "another payload (row 1 of"),
}
# fmt: on


@pytest.mark.parametrize("first", [202, 422, 503])
@pytest.mark.parametrize(("changes", "expected"), SECOND.values(), ids=SECOND.keys())
def test_a_key_recorded_twice(box, changes, expected, first):
    changes = dict(changes)
    given = {"payload": changes.pop("payload", {"x": 1.5, "y": [1]})}
    action = changes.pop("action", "approve")
    service = Service(k=first)
    with client_of(box, service) as client:
        try:
            client.approve("k", payload={"x": 1.5, "y": [1]})
        except InvalidInput:
            assert first == 422
    before, service.answers = box.list(), {}
    with client_of(box, service, **changes) as client:
        if expected not in ("again", "new"):
            with pytest.raises(IdempotencyConflict) as caught:
                client.execute(action, "k", **given)
            assert "the idempotency key 'k' was used for " + expected in str(caught.value)
            assert (caught.value.delivered, box.list(), len(service.keys)) == (False, before, 1)
        elif expected == "again" and first == 422:
            with pytest.raises(Conflict, match="row 1 of the outbox .* holds this decision as dead"):
                client.execute(action, "k", **given)
            assert (box.list(), len(service.keys)) == (before, 1)
        else:
            result = client.execute(action, "k", **given)
            is_sent = expected == "new" or first == 503
            assert (result.duplicate, len(service.keys)) == (not is_sent, 1 + is_sent)
            assert (result.attempts == 0) is (not is_sent)
            assert (result.request_id == before[0].request_id) is (expected == "again")
            assert len(box.list()) == (2 if expected == "new" else 1)


def loop() -> Dict[str, Any]:
    value: Dict[str, Any] = {}
    value["self"] = value
    return value


def deep() -> Dict[str, Any]:
    value: List[Any] = []
    for _ in range(200000):
        value = [value]
    return {"v": value}


# fmt: off
UNSENDABLE: Dict[str, Any] = {
    "NaN":                ({"x": float("nan")}, "cannot be sent as JSON"),
    "infinity":           ({"x": [float("inf")]}, "cannot be sent as JSON"),
    "an object":          ({"x": object()}, "cannot be sent as JSON"),
    "bytes":              ({"x": b"1"}, "cannot be sent as JSON"),
    "a cycle":            (loop(), "cannot be sent as JSON"),
    "too deep":           (deep(), "cannot be sent as JSON"),
    "a lone surrogate":   ({"x": "\ud800"}, "cannot be sent as JSON"),
    "two keys in one":    ({1: "a", "1": "b"}, "cannot be sent as JSON: an object names '1' twice"),
    "a list":             ([1], "payload must be a mapping, not list"),
    "text":               ("{}", "payload must be a mapping, not str"),
}
# fmt: on


@pytest.mark.parametrize(("payload", "words"), UNSENDABLE.values(), ids=UNSENDABLE.keys())
def test_what_cannot_be_sent_is_not_recorded(box, payload, words):
    service = Service()
    with client_of(box, service) as client, pytest.raises(InvalidInput, match=words):
        client.approve("k", payload=payload)
    assert (box.list(), service.keys) == ([], [])


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["lease_seconds", "keep_days", "busy_seconds"])
def test_durations_must_be_positive_numbers(path, name, value):
    with pytest.raises(InvalidInput, match=name):
        Outbox(path, **{name: value})
    assert not path.exists()


# What an answer makes of a row

# The answer -> the row's state, status, wait in milliseconds; what approve makes of it.
# fmt: off
ANSWERS: Dict[str, Any] = {
    "202":                      ((202, {"id": 1}), ("settled", 202, 0), "accepted"),
    "409":                      ((409, {"action": "approve"}), ("settled", 409, 0), "duplicate"),
    "409 that says nothing":    (409, ("settled", 409, 0), "duplicate"),
    "no answer":                (RESET, ("queued", None, 0), "queued"),
    "503 with a wait":          ((503, None, {"Retry-After": "7"}), ("queued", 503, 7000), "queued"),
    "429":                      (429, ("queued", 429, 0), "queued"),
    "429 with a wait":          ((429, None, {"Retry-After": "90"}), ("queued", 429, 90000), "queued"),
    "429 with an absurd wait":  ((429, None, {"Retry-After": "9999999"}), ("queued", 429, 86400000), "queued"),
    "no object":                ((202, [1]), ("queued", 202, 0), "queued"),
    "408":                      (408, ("queued", 408, 0), "queued"),
    "404 that is explained":    ((404, {"code": "NO_THREAD"}), ("dead", 404, 0), NotFound),
    "422":                      (422, ("dead", 422, 0), InvalidInput),
    "409 of another action":    ((409, {"action": "reject"}), ("dead", 409, 0), IdempotencyConflict),
    "202 of another action":    ((202, {"action": "reject"}), ("dead", 202, 0), IdempotencyConflict),
    # the caller's fault: any other row would fail alike
    "401":                      (401, ("queued", 401, 0), AuthenticationError),
    "404 of a path":            (404, ("queued", 404, 0), NotFound),
    "a redirect":               ((302, None, {"Location": "/"}), ("queued", 302, 0), InvalidResponse),
    # nobody's
    "interrupted":              (KeyboardInterrupt(), ("queued", None, 0), KeyboardInterrupt),
    "ended":                    (SystemExit(1), ("queued", None, 0), SystemExit),
    "a bug":                    (ZeroDivisionError(), ("queued", None, 0), ZeroDivisionError),
}
# fmt: on


@pytest.mark.parametrize(("answer", "expected", "outcome"), ANSWERS.values(), ids=ANSWERS.keys())
def test_what_an_answer_makes_of_a_row(box, answer, expected, outcome):
    state, status, wait_ms = expected
    with client_of(box, Service(k=answer)) as client:
        if isinstance(outcome, str):
            result = client.approve("k")
            assert [name for name in ("accepted", "duplicate", "queued") if getattr(result, name)] == [
                outcome
            ]
            assert (result.confirmed, result.attempts) == (answer != 409, 1)
        else:
            with pytest.raises(outcome) as caught:
                client.approve("k")
            if state == "queued" and isinstance(caught.value, HestiaError):
                assert "it stays queued in the outbox {}".format(box.path) in str(caught.value)
    row = box.get(1)
    assert (row.state, row.status_code, row.next_attempt_ms - NOON_MS) == expected
    assert (row.owner, row.lease_until_ms, row.attempts) == (None, None, 1)
    assert row.ended_ms == (None if state == "queued" else NOON_MS)
    if state == "settled":
        body = answer[1] if isinstance(answer, tuple) else None
        assert (row.answer, row.confirmed, row.reason) == (body, answer != 409, None)
    elif isinstance(answer, (int, tuple)):
        assert "HTTP {}".format(status) in row.reason
    elif answer is not RESET:
        assert row.reason == "interrupted by " + type(answer).__name__


@pytest.mark.parametrize("status", [422, 503])
def test_a_long_reason_is_cut(box, status):
    queue(box, "k")
    flushed(box, Service(k=(status, {"code": "C" * 600, "message": "m" * 10000, "trace_id": "t" * 190})))
    assert len(box.get(1).reason) == 500


# A late answer: a sender's lease runs out while it sends, another takes the row, and only then the first is answered.
# fmt: off
LATE: Dict[Any, Any] = {  # the other's answer, the first's -> the state in the end
    (202, 202): "settled",  (202, 503): "settled",  (202, 422): "settled",
    (503, 202): "settled",  (503, 503): "queued",   (503, 422): "queued",
    (422, 202): "settled",  (422, 503): "dead",     (422, 422): "dead",
    ("sends", 202): "settled",  ("sends", 503): "claimed",  ("sends", 422): "claimed",
    ("nobody", 202): "settled", ("nobody", 503): "queued",  ("nobody", 422): "dead",  # its lease ran out, and no more
}
# fmt: on


@pytest.mark.parametrize(("other", "first"), LATE, ids=str)
def test_a_late_word_counts_only_where_the_service_has_the_decision(box, clock, other, first):
    queue(box, "k")
    slow = Service(k=(first, {"who": "first"}))

    def meanwhile(key: str) -> None:
        clock.now += LEASE_SECONDS
        if other == "sends":
            leave_claimed(box, 1, clock.now + LEASE_SECONDS)
        elif other != "nobody":
            flushed(box, Service(k=(other, {"who": "other"})))
        before.append(box.get(1))

    before: Any = []
    slow.meanwhile = meanwhile
    flushed(box, slow)
    assert slow.keys == ["k"]  # whoever lost a claim does not come back to it
    row = box.get(1)
    assert row.state == LATE[other, first]
    assert (row == before[0]) is (other != "nobody" and (first != 202 or other == 202))
    if row.state == "settled":
        assert row.answer == {"who": "other" if other == 202 else "first"}


def test_a_claim_holds_until_its_lease_ends(box, clock):
    queue(box, "k")
    slow, other = Service(), Service()

    def meanwhile(key: str) -> None:
        clock.now = NOON + LEASE_SECONDS - 0.001
        assert flushed(box, other) == FlushReport(queued=1)
        clock.now = NOON + LEASE_SECONDS
        assert flushed(box, other) == FlushReport(sent=1)

    slow.meanwhile = meanwhile
    flushed(box, slow)
    assert (slow.keys, other.keys, box.get(1).attempts) == (["k"], ["k"], 3)


def test_a_decision_that_there_is_no_time_to_send_is_queued(box):
    service = Service()
    with client_of(box, service, timeout=1e-7) as client:
        result = client.approve("k")
    assert (result.queued, result.extra["reason"]) == (True, "no time was left to send it")
    assert (states(box), service.keys) == ([("k", "queued")], [])
    assert flushed(box, service) == FlushReport(sent=1)


def test_one_that_waits_for_an_older_one_looks_now_and_then(path):
    """And not as fast as it can."""
    looks = []
    with Outbox(path, clock=lambda: looks.append(None) or NOON) as box:
        queue(box, "older")
        leave_claimed(box, 1, NOON + LEASE_SECONDS)
        looks.clear()
        with client_of(box, Service(), timeout=0.4) as client:
            assert client.approve("k").queued
    assert len(looks) < 50


@pytest.mark.parametrize(("timeout", "busy_seconds"), [(0.2, 10), (30, 0.1)], ids=["deadline", "patience"])
def test_a_file_that_is_locked_until_the_deadline_is_no_more_than_waiting(path, timeout, busy_seconds):
    """The decision is recorded; that the older one of its thread cannot be claimed leaves it queued. Before it is a failure."""
    other = sqlite3.connect(str(path), isolation_level=None, timeout=0.4)  # twice the deadline

    def clock() -> float:
        """The lease of the older one ends, and another program locks the file, once ours is recorded."""
        if "k" not in [key for key, _ in sqlite_rows(path)]:
            return NOON
        if not other.in_transaction:
            other.execute("BEGIN IMMEDIATE")
        return NOON + LEASE_SECONDS

    with Outbox(path, clock=lambda: NOON) as before:
        queue(before, "older")
        leave_claimed(before, 1, NOON + LEASE_SECONDS)
    with Outbox(path, clock=clock, busy_seconds=busy_seconds) as box:
        with client_of(box, Service(), timeout=timeout) as client:
            if timeout > busy_seconds:
                with pytest.raises(HestiaError, match="locked too long") as caught:
                    client.approve("k")
                assert caught.value.delivered is False
            else:
                result = client.approve("k")
                assert (result.queued, result.extra["reason"]) == (True, "no time was left to send it")
        assert states(box)[1] == ("k", "queued")
    other.close()


# The order of a flush


def test_a_flush_sends_oldest_first_in_each_thread_and_reports(box):
    threads = {"a": "z", "b": "y", "c": "x", "d": "w"}
    for key in ("a1", "b1", "a2", "c1", "b2", "c2", "d1"):
        queue(box, key, thread_id=threads[key[0]])
    queue(box, "e1", thread_id="z", tenant_id=None, api_key="s3cr3t")
    service = Service(a1=409, b1=500, c1=422)
    assert flushed(box, service) == FlushReport(sent=3, duplicate=1, queued=2, dead=1, elsewhere=1)
    assert service.keys == ["a1", "a2", "b1", "c1", "c2", "d1"]  # b2 waits for b1, c2 not for what is dead
    service = Service()
    assert flushed(box, service) == FlushReport(sent=2, elsewhere=1)
    assert service.keys == ["b1", "b2"]
    assert flushed(box, service) == FlushReport(elsewhere=1)
    assert box.counts() == {"queued": 1, "claimed": 0, "settled": 6, "dead": 1}


def test_a_flush_leaves_alone_what_is_held_or_not_due(box, clock):
    for key in ("a1", "a2", "b1", "b2", "c1"):
        queue(box, key, thread_id=key[0])
    waits = Service(a1=(429, None, {"Retry-After": "100"}), b1=503, c1=503)
    assert flushed(box, waits) == FlushReport(queued=5)
    leave_claimed(box, 3, NOON + 110)
    service = Service()
    for now, report in (
        (50, FlushReport(sent=1, queued=4)),
        (100, FlushReport(sent=2, queued=2)),
        (110, FlushReport(sent=2)),
    ):
        clock.now = NOON + now
        assert flushed(box, service) == report
    assert service.keys == ["c1", "a1", "a2", "b1", "b2"]


def test_a_flush_leaves_what_is_recorded_meanwhile(box):
    queue(box, "k1")
    service = Service()
    # in another thread of the same flush: without a bound it would go on for ever
    service.meanwhile = lambda key: queue(box, key + "1", thread_id="U", timeout=0.01)
    queue(box, "k5", thread_id="U")
    assert flushed(box, service).sent == 2
    assert service.keys == ["k1", "k5"]


def test_a_flush_gives_up_when_nobody_answers(box):
    for n in range(10):
        queue(box, "k{}".format(n), thread_id="T{}".format(n))
    service = Service(k0=RESET, k1=RESET, k3=RESET, k4=requests.ReadTimeout(), k5=RESET)
    assert flushed(box, service) == FlushReport(sent=1, queued=9)
    assert service.keys == ["k0", "k1", "k2", "k3", "k4", "k5"]  # k2 was answered, so the count began anew


def test_a_flush_waits_for_the_lock_as_long_as_the_outbox_says(box, path):
    """Its rows have a deadline each; another program that was stopped in the middle of writing must not end it."""
    queue(box, "k")
    other = sqlite3.connect(str(path), isolation_level=None, check_same_thread=False)
    service = Service()

    def meanwhile(key: str) -> None:
        other.execute("BEGIN IMMEDIATE")
        threading.Timer(1.5, lambda: other.execute("ROLLBACK")).start()

    service.meanwhile = meanwhile
    assert flushed(box, service, timeout=0.1) == FlushReport(sent=1)
    other.close()


# Looking after the file


@pytest.fixture(name="four")
def _four(box):
    """An outbox with a row in each state."""
    for key in ("queued", "claimed", "settled", "dead"):
        queue(box, key, thread_id=key)
    flushed(box, Service(queued=503, claimed=503, settled=202, dead=422))
    leave_claimed(box, 2, NOON + LEASE_SECONDS)
    return box


def test_list_and_counts(four):
    names = ["queued", "claimed", "settled", "dead"]
    assert states(four) == [(name, name) for name in names]
    assert [row.state for row in four.list(("dead", "queued"))] == ["queued", "dead"]
    assert four.list([]) == []
    assert four.counts() == dict.fromkeys(names, 1)
    with pytest.raises(InvalidInput, match="no state 'done': there are queued, claimed, settled, dead"):
        four.list(["done"])
    for row_id in (5, 0, -1, 2**63, 2**200):
        with pytest.raises(NotFound, match="there is no row {} in the outbox".format(row_id)):
            four.get(row_id)


@pytest.mark.parametrize("row_id", [1, 2, 3, 4])
def test_drop(four, clock, row_id):
    before = four.get(row_id)
    if before.state == "claimed":
        with pytest.raises(Conflict, match="row 2 of the outbox .* is being sent"):
            four.drop(row_id)
        clock.now += LEASE_SECONDS
    assert four.drop(row_id) == before
    with pytest.raises(NotFound, match="there is no row {} in the outbox".format(row_id)):
        four.drop(row_id)


def test_a_late_answer_to_a_dropped_row_settles_no_other(box, clock):
    queue(box, "k")
    slow = Service()

    def meanwhile(key: str) -> None:
        clock.now += LEASE_SECONDS
        box.drop(1)
        queue(box, "k2")

    slow.meanwhile = meanwhile
    flushed(box, slow)
    assert [(row.id, row.state) for row in box.list()] == [(2, "queued")]  # a number is never used again


def test_requeue_gives_a_dead_row_another_chance(four):
    assert [four.requeue(row_id) for row_id in (1, 2, 3, 4)] == [False, False, False, True]
    row = four.get(4)
    assert (row.state, row.ended_ms, row.next_attempt_ms) == ("queued", None, NOON_MS)
    assert "HTTP 422" in row.reason
    assert four.requeue_all() == 0
    service = Service(queued=422, dead=422)
    assert flushed(four, service).dead == 2
    assert four.requeue_all() == 2
    assert flushed(four, Service()) == FlushReport(sent=2, queued=1)


def test_only_rows_settled_long_ago_are_pruned(path, clock):
    with Outbox(path, clock=clock, keep_days=2) as box:
        for n, answer in enumerate((202, 202, 202, 202, 503, 422)):
            clock.now = NOON + n
            queue(box, "k{}".format(n), thread_id=str(n))
            flushed(box, Service(others=answer))
        clock.now = NOON + 2 * 86400  # k0 was settled exactly two days ago
        assert box.prune() == 0
        clock.now += 0.001
    with Outbox(path, clock=clock, keep_days=2) as box:
        assert len(box.list()) == 6  # reading prunes nothing
        queue(box, "new")
        assert [row.idempotency_key for row in box.list()] == ["k1", "k2", "k3", "k4", "k5", "new"]
        clock.now += 1  # a process that runs on
        queue(box, "later")
        assert [row.idempotency_key for row in box.list()] == ["k2", "k3", "k4", "k5", "new", "later"]
        clock.now += 1
        with client_of(box, nobody_there()) as client:
            client.flush()
        assert box.get(4).idempotency_key == box.list()[0].idempotency_key == "k3"
        clock.now += 1
        assert box.prune() == 1


def test_close_is_final_and_twice_does_no_harm(path):
    with Outbox(path) as box:
        queue(box, "k")
    box.close()
    for act in (box.list, lambda: queue(box, "k2"), lambda: flushed(box, nobody_there())):
        with pytest.raises(HestiaError, match="it was closed; open it again") as caught:
            act()
        assert caught.value.code == "OUTBOX"
    assert sorted(os.listdir(str(path.parent))) == [path.name]  # the log is folded in
