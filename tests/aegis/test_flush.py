"""Sending what an outbox holds: what an outcome makes of a row, and in which order rows go out."""

from __future__ import annotations

import sqlite3
import threading

import pytest

from hestiaos_lite import errors
from hestiaos_lite.aegis.answers import ServerAnswer
from hestiaos_lite.aegis.delivery import FlushReport
from hestiaos_lite.aegis.rows import Entry
from hestiaos_lite.deadline import Deadline

from .outbox_kit import NOON_MS, Service, accept, claimed, delivered, flushed, record

# One delivery

DELIVERIES = {
    "202": (ServerAnswer(202, {"id": 1}), "settled", 202, 0),
    "409": (ServerAnswer(409, "seen"), "settled", 409, 0),
    "409, unconfirmed": (ServerAnswer(409, confirmed=False), "settled", 409, 0),
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
    "404 of a thread": (errors.NotFound("gone", status=404, code="NO_THREAD"), "dead", 404, 0),
    "413": (errors.InvalidInput("too large", status=413), "dead", 413, 0),
    "408": (errors.RequestTimeout("slow", status=408), "queued", 408, 0),
    "used for another action": (errors.IdempotencyConflict("no", status=409), "dead", 409, 0),
    "422": (errors.InvalidInput("field required", status=422), "dead", 422, 0),
    "cannot be sent": (errors.InvalidInput("no such header"), "dead", None, 0),
}


@pytest.mark.parametrize(
    ("outcome", "state", "status", "delay_ms"), DELIVERIES.values(), ids=DELIVERIES.keys()
)
def test_what_an_outcome_makes_of_a_row(box, outcome, state, status, delay_ms):
    record(box)
    delivery = delivered(box, claimed(box, 1), Service(**{"key-1": outcome}))
    row = box.get(1)
    assert (row.state, row.status_code, row.next_attempt_ms) == (state, status, NOON_MS + delay_ms)
    assert delivery.state == state
    if state == "settled":
        assert (delivery.answer, delivery.error) == (outcome, None)
        assert (row.answer, row.confirmed, row.reason) == (outcome.body, outcome.confirmed, None)
        assert row.ended_ms == NOON_MS
    else:
        assert (delivery.answer, delivery.error) == (None, outcome)
        assert row.reason == str(outcome)


NOT_THE_ROWS_FAULT = {
    "a setting": errors.InvalidInput("no such certificate", code="CONFIGURATION"),
    "interrupted": KeyboardInterrupt(),
    "exit": SystemExit(1),
    "a bug": ZeroDivisionError(),
    "401": errors.AuthenticationError(status=401),
    "a wrong path": errors.NotFound(status=404),
}


@pytest.mark.parametrize("outcome", NOT_THE_ROWS_FAULT.values(), ids=NOT_THE_ROWS_FAULT.keys())
def test_what_is_not_the_rows_fault_frees_it_and_goes_on(box, outcome):
    record(box)
    raised = type(outcome)
    is_ours = isinstance(outcome, errors.HestiaError)
    reason = str(outcome) if is_ours else "interrupted by {}".format(raised.__name__)
    with pytest.raises(raised):
        flushed(box, Service(**{"key-1": outcome}))
    row = box.get(1)
    assert (row.state, row.owner, row.next_attempt_ms, row.attempts) == ("queued", None, NOON_MS, 1)
    assert row.reason == reason
    assert flushed(box, accept) == FlushReport(sent=1)


def test_long_reasons_are_cut(box):
    record(box)
    box.fail(claimed(box, 1), "x" * 10000, 422)
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
        a1=ServerAnswer(409),
        b1=errors.ServerError(status=500),
        c1=errors.InvalidInput("no", status=422),
    )
    assert flushed(box, service) == FlushReport(sent=3, duplicate=1, queued=2, dead=1)
    assert service.keys == ["a1", "a2", "b1", "c1", "c2", "d1"]  # b2 waits for b1
    service = Service()
    assert flushed(box, service) == FlushReport(sent=2)
    assert service.keys == ["b1", "b2"]
    assert flushed(box, service) == FlushReport()
    assert box.counts() == {"queued": 0, "claimed": 0, "settled": 6, "dead": 1}


def test_flush_leaves_alone_what_is_held_or_not_due(box, clock):
    for key, thread_id in (("a1", "A"), ("a2", "A"), ("b1", "B"), ("b2", "B"), ("c1", "C")):
        record(box, key, thread_id)
    box.release(claimed(box, 1), "quota", delay_seconds=100)
    clock.now += 50
    claimed(box, 3)
    service = Service()
    assert flushed(box, service) == FlushReport(sent=1, queued=4)
    clock.now += 50
    assert flushed(box, service) == FlushReport(sent=2, queued=2)
    clock.now += 10
    assert flushed(box, service) == FlushReport(sent=2)
    assert service.keys == ["c1", "a1", "a2", "b1", "b2"]


def test_flush_leaves_what_is_recorded_meanwhile(box):
    record(box, "k1")

    def send(row: Entry, deadline: Deadline) -> ServerAnswer:
        number = int(row.idempotency_key[1:]) + 1
        record(box, "k{}".format(number))  # in the same thread: without a bound this would go on for ever
        return ServerAnswer(202)

    assert flushed(box, send) == FlushReport(sent=1, queued=1)


def test_flush_gives_up_when_nobody_answers(box):
    for n in range(10):
        record(box, "k{}".format(n), "T{}".format(n))
    down = errors.ConnectionFailed("refused", delivered=False)
    service = Service(k0=down, k1=down, k3=down, k4=errors.RequestTimeout(), k5=down)
    assert flushed(box, service) == FlushReport(sent=1, queued=9)
    assert service.keys == ["k0", "k1", "k2", "k3", "k4", "k5"]  # k2 was answered, so the count began anew


def test_a_service_down_for_a_whole_run_then_back(box):
    keys = ["{}{}".format(thread_id, n) for n in range(20) for thread_id in "ABC"]
    down = Service(**{key: errors.ConnectionFailed("refused", delivered=False) for key in keys})
    for key in keys:
        record(box, key, key[0])
        assert flushed(box, down).sent == 0
    service = Service()
    assert flushed(box, service) == FlushReport(sent=60)
    assert service.keys == sorted(keys, key=lambda key: key[0])


def test_a_flush_waits_for_the_lock_as_long_as_the_outbox_says(box, path):
    """Its rows have a deadline each; a neighbour that was stopped in the middle of writing must not end it."""
    record(box)
    other = sqlite3.connect(str(path), isolation_level=None, check_same_thread=False)

    def send(row: Entry, deadline: Deadline) -> ServerAnswer:
        other.execute("BEGIN IMMEDIATE")
        threading.Timer(1.5, lambda: other.execute("ROLLBACK")).start()
        return ServerAnswer(202)

    assert flushed(box, send, timeout_seconds=0.1) == FlushReport(sent=1)
    other.close()
