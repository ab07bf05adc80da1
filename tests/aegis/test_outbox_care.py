"""Looking after an outbox: list, counts, drop, requeue, prune, close."""

from __future__ import annotations

import os

import pytest

from hestiaos_lite import errors
from hestiaos_lite.aegis.answers import ServerAnswer
from hestiaos_lite.aegis.delivery import FlushReport
from hestiaos_lite.aegis.outbox import Outbox
from hestiaos_lite.aegis.rows import STATES

from .outbox_kit import LEASE_MS, NOON, accept, bring_to, decision, flushed, record

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
    assert box.complete(before, ServerAnswer(202)) is False
    assert box.get(2).state == "queued"


def test_requeue_gives_a_dead_row_another_chance(box, clock):
    record(box)
    bring_to(box, 1, "dead")
    clock.now += 5
    assert box.requeue(1)
    assert (box.get(1).state, box.get(1).ended_ms, box.get(1).reason) == ("queued", None, "no")
    assert flushed(box, accept) == FlushReport(sent=1)
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
        box.record(decision("new"))
        assert [row.idempotency_key for row in box.list()] == ["k0", "k1", "k3", "k4", "new"]
        clock.now += 2
        assert box.prune() == 1


def test_close_is_final_and_twice_does_no_harm(path):
    with Outbox(path) as box:
        record(box)
    box.close()
    for act in (box.list, lambda: record(box), lambda: flushed(box, accept)):
        with pytest.raises(errors.HestiaError, match="it was closed; open it again") as caught:
            act()
        assert caught.value.code == "OUTBOX"
    assert sorted(os.listdir(str(path.parent))) == [path.name]  # the log is folded in
