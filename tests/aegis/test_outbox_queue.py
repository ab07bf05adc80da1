"""The queue of the outbox: recording, claiming, and every move a row may make."""

from __future__ import annotations

import hashlib
import sqlite3
from typing import Any, Callable, Dict, List, Optional

import pytest

from hestiaos_lite import errors
from hestiaos_lite.aegis.answers import ServerAnswer
from hestiaos_lite.aegis.outbox import _FIRST_PENDING, Outbox
from hestiaos_lite.aegis.rows import STATES, Entry

from .outbox_kit import LANE, LEASE_MS, NOON_MS, SERVICE, bring_to, claimed, decision, record

# Recording


def test_a_recorded_row(box):
    own, claimed_row, blocked_by = box.record(decision(payload={"b": (1, 2), "a": "é"}))
    assert own == claimed_row == box.get(1)
    assert blocked_by is None
    assert own == Entry(
        id=1,
        state="claimed",
        service=SERVICE,
        action="approve",
        idempotency_key="key-1",
        tenant_id="acme",
        thread_id="T",
        payload={"a": "é", "b": [1, 2]},
        payload_digest=hashlib.sha256('{"a":"é","b":[1,2]}'.encode()).hexdigest(),
        request_id="req-key-1",
        attempts=1,
        recorded_ms=NOON_MS,
        changed_ms=NOON_MS,
        next_attempt_ms=NOON_MS,
        owner=own.owner,
        lease_until_ms=NOON_MS + LEASE_MS,
    )
    assert "é" not in repr(own)


def test_a_record_is_on_disk_before_anybody_closes(box, path):
    box.record(decision())
    other = sqlite3.connect(str(path))
    try:
        assert other.execute("SELECT idempotency_key FROM decision").fetchall() == [("key-1",)]
    finally:
        other.close()


SECOND_RECORDS = {
    "the same": ({}, 1),
    "another request id": ({"request_id": "other"}, 1),
    "another service": ({"service": "http://127.0.0.1:2/api/v1"}, 2),
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
    again = decision(**dict({"payload": {"x": 1.5, "y": [1]}}, **changes))
    if isinstance(expected, str):
        with pytest.raises(errors.IdempotencyConflict) as caught:
            box.record(again)
        words = "the idempotency key 'key-1' was used for another {} (row 1 of".format(expected)
        assert words in str(caught.value)
        assert caught.value.delivered is False
    elif expected == 1 and state == "queued":
        assert box.record(again).own == box.get(1)
        box.release(box.get(1), "later")
        before = box.get(1)
    elif expected == 1:
        assert box.record(again).own == before
    else:
        assert box.record(again).own.id == 2
    assert box.get(1) == before
    assert len(box.list()) == (2 if expected == 2 else 1)


def test_no_payload_is_an_empty_object(box):
    assert box.record(decision(payload=None)).own.payload == {}
    assert box.record(decision(payload={})).own.id == 1


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
    "list": ({"payload": [1]}, "payload must be a mapping, not list"),
    "text": ({"payload": "{}"}, "payload must be a mapping, not str"),
    "cycle": ({"payload": loop()}, "payload"),
    "too deep": ({"payload": deep()}, "payload"),
    "surrogate in the payload": ({"payload": {"x": "\ud800"}}, "payload"),
    "two keys that are one": ({"payload": {1: "a", "1": "b"}}, "two of its keys are the same"),
}


@pytest.mark.parametrize(("changes", "message"), BAD_RECORDS.values(), ids=BAD_RECORDS.keys())
def test_what_cannot_be_recorded(box, changes, message):
    changes = dict(changes)
    with pytest.raises(errors.InvalidInput) as caught:
        box.record(decision(changes.pop("key", "key-1"), **changes))
    assert message in str(caught.value)
    assert box.list() == []


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["lease_seconds", "keep_days", "busy_seconds"])
def test_durations_must_be_positive_numbers(path, name, value):
    with pytest.raises(errors.InvalidInput, match=name):
        Outbox(path, **{name: value})
    assert not path.exists()


# Moves

MOVES = {
    "claim": (("queued", "claimed"), "claimed"),
    "release": (("claimed",), "queued"),
    "fail": (("claimed",), "dead"),
    "complete": (("queued", "claimed", "dead"), "settled"),
    "requeue": (("dead",), "queued"),
}


def steal(box: Outbox, row: Entry) -> Entry:
    """Let the lease run out and another sender take the row."""
    box._clock.now += LEASE_MS / 1000  # type: ignore[attr-defined]
    return claimed(box, row.id)


ACTS: Dict[str, Callable[[Outbox, Entry], Any]] = {
    "claim": lambda box, row: box.claim_first(row.partition, row.id) is not None,
    "release": lambda box, row: box.release(row, "later"),
    "fail": lambda box, row: box.fail(row, "no", None),
    "complete": lambda box, row: box.complete(row, ServerAnswer(409)),
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
    ("queued", "complete"): "settled",
    ("queued", "release"): "queued",
    ("queued", "fail"): "queued",
    ("claimed", "complete"): "settled",
    ("claimed", "release"): "claimed",
    ("claimed", "fail"): "claimed",
    ("settled", "complete"): "settled",
    ("settled", "release"): "settled",
    ("settled", "fail"): "settled",
    ("dead", "complete"): "settled",
    ("dead", "release"): "dead",
    ("dead", "fail"): "dead",
}


@pytest.mark.parametrize(("meanwhile", "late"), list(LATE))
def test_a_late_word_of_an_owner_whose_lease_ran_out(box, meanwhile, late):
    record(box)
    first = claimed(box, 1)
    second = steal(box, first)
    if meanwhile == "queued":
        box.release(second, "busy")
    elif meanwhile == "settled":
        box.complete(second, ServerAnswer(409))
    elif meanwhile == "dead":
        box.fail(second, "no", 422)
    before = box.get(1)
    changed = ACTS[late](box, first)
    after = box.get(1)
    assert after.state == LATE[meanwhile, late]
    assert changed is (before != after) is (late == "complete" and meanwhile != "settled")
    if meanwhile == "claimed" and late == "complete":
        assert box.release(second, "refused") is False  # the new owner learns that it is over
        assert box.get(1) == after


def test_a_late_word_counts_while_nobody_else_took_the_row(box, clock):
    record(box)
    row = claimed(box, 1)
    clock.now += 3600
    assert box.fail(row, "no", 422)
    assert box.get(1).state == "dead"


# Claims


def test_a_claim_holds_until_its_lease_ends(box, clock):
    record(box)
    first = claimed(box, 1)
    assert (first.state, first.attempts, first.lease_until_ms) == ("claimed", 1, NOON_MS + LEASE_MS)
    clock.now += LEASE_MS / 1000 - 0.001
    assert claim(box, 1) is None
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
    assert claim(box, 2) is None  # a1 is queued
    a1 = claimed(box, 1)
    assert claim(box, 2) is None  # a1 is being sent
    box.release(a1, "later", delay_seconds=30)
    assert claim(box, 2) is None  # a1 backs off
    assert claim(box, 1) is None
    assert claim(box, 3) is not None  # another thread
    assert claim(box, 4) is not None  # the same thread id of another tenant
    clock.now += 30
    box.fail(claimed(box, 1), "no", 422)
    assert claim(box, 2) is not None  # the dead do not hold back the living


def test_what_is_not_there(box):
    for row_id in (1, 0, -1, 2**63, 2**200):
        with pytest.raises(errors.NotFound, match="there is no row {} in the outbox".format(row_id)):
            box.get(row_id)
    assert box.claim_first(LANE, 9) is None


def test_a_turn_claims_the_oldest_row_or_says_what_is_in_its_way(box, clock):
    first = box.record(decision("k1"))
    assert first.entry is not None
    second = box.record(decision("k2"))
    assert (second.entry, second.blocked_by) == (None, box.get(1))
    assert box.claim_next(second.own) == second  # somebody else is sending k1
    box.release(first.entry, "later", delay_seconds=5)
    assert box.claim_next(second.own) == (second.own, None, box.get(1))  # k1 is not due
    clock.now += 5
    again = box.claim_next(second.own)
    assert (again.own, again.entry) == (second.own, box.get(1))
    assert again.entry is not None
    box.complete(again.entry, ServerAnswer(202))
    last = box.claim_next(second.own)
    assert last.own == last.entry == box.get(2)
    box.complete(last.own, ServerAnswer(409))
    assert box.claim_next(last.own) == (box.get(2), None, None)


def test_a_row_is_decoded_once_and_written_in_one_transaction(box):
    statements: List[str] = []
    with box._file.transaction(write=False) as connection:
        connection.set_trace_callback(lambda statement: statements.append(statement.split()[0]))
    statements.clear()
    own = box.record(decision()).own
    box.complete(own, ServerAnswer(202))
    # beside the first call's pruning
    assert statements == [
        "BEGIN",
        "DELETE",
        "SELECT",
        "INSERT",
        "SELECT",
        "UPDATE",
        "COMMIT",
        "BEGIN",
        "UPDATE",
        "COMMIT",
    ]


def test_the_oldest_row_of_a_lane_is_found_by_index(box):
    with box._file.transaction(write=False) as connection:
        statements: List[str] = []
        connection.set_trace_callback(lambda statement: statements.append(statement))
        connection.execute(_FIRST_PENDING, LANE).fetchone()
        connection.set_trace_callback(None)
        plan = connection.execute("EXPLAIN QUERY PLAN " + statements[0]).fetchall()
    assert len(plan) == 1
    assert "USING INDEX decision_open" in plan[0][-1]


def claim(box: Outbox, row_id: int) -> Optional[Entry]:
    row = box.get(row_id)
    first = min(other.id for other in box.list(["queued", "claimed"]) if other.partition == row.partition)
    return box.claim_first(row.partition, row_id) if first == row_id else None
