"""A clock that was wrong once does not matter once it is right."""

from __future__ import annotations

from typing import Any, Iterator

import pytest

from hestiaos_lite import FlushReport, Outbox
from hestiaos_lite.aegis.rows import CLOCK_SLACK_MS

from ..aegis.outbox_kit import NOON, Clock, accept, claimed, decision, flushed, record

DAY = 86400.0
AHEAD = [120.0, 3600.0, DAY, 400 * DAY]


@pytest.fixture(name="clock")
def _clock() -> Clock:
    return Clock()


@pytest.fixture(name="box")
def _box(tmp_path: Any, clock: Clock) -> Iterator[Outbox]:
    with Outbox(tmp_path / "outbox.db", clock=clock) as opened:
        yield opened


@pytest.mark.parametrize("seconds", AHEAD)
def test_a_row_never_tried_is_due_whenever_it_was_recorded(box: Outbox, clock: Clock, seconds: float) -> None:
    clock.now = NOON + seconds
    record(box, "k1")
    record(box, "k2")
    clock.now = NOON
    assert flushed(box, accept) == FlushReport(sent=2)


@pytest.mark.parametrize("seconds", AHEAD)
@pytest.mark.parametrize("delay_seconds", [0.0, 30.0])
def test_a_delay_of_a_clock_that_was_ahead_is_over(
    box: Outbox, clock: Clock, seconds: float, delay_seconds: float
) -> None:
    record(box, "k1")
    record(box, "k2")
    clock.now = NOON + seconds
    box.release(claimed(box, 1), "busy", delay_seconds)
    clock.now = NOON
    assert flushed(box, accept) == FlushReport(sent=2)


@pytest.mark.parametrize("seconds", AHEAD)
def test_a_lease_of_a_clock_that_was_ahead_is_over(box: Outbox, clock: Clock, seconds: float) -> None:
    for key in ("k1", "k2", "k3"):
        record(box, key)
    clock.now = NOON + seconds
    claimed(box, 1)
    clock.now = NOON
    assert box.drop(1) is not None
    clock.now = NOON + seconds
    claimed(box, 2)
    clock.now = NOON
    assert flushed(box, accept) == FlushReport(sent=2)


def test_a_dead_row_of_a_clock_that_was_ahead_is_sent_once_requeued(box: Outbox, clock: Clock) -> None:
    clock.now = NOON + DAY
    record(box)
    box.fail(claimed(box, 1), "no", 422)
    assert box.requeue(1)
    clock.now = NOON
    assert flushed(box, accept) == FlushReport(sent=1)


def test_a_clock_that_is_put_back_a_little_frees_no_claim(box: Outbox, clock: Clock) -> None:
    """As time services do all day; the holder of the lease is likely to be alive."""
    record(box)
    claimed(box, 1)
    clock.now = NOON - CLOCK_SLACK_MS / 1000
    assert box.record(decision()).entry is None
    clock.now -= 0.001
    assert box.record(decision()).entry is not None


def test_a_clock_that_is_put_back_a_little_ends_no_wait(box: Outbox, clock: Clock) -> None:
    record(box)
    box.release(claimed(box, 1), "quota", delay_seconds=3600)
    clock.now = NOON - CLOCK_SLACK_MS / 1000
    assert flushed(box, accept) == FlushReport(queued=1)
    clock.now = NOON + 3600
    assert flushed(box, accept) == FlushReport(sent=1)


def test_a_clock_that_was_behind_leaves_what_it_did_long_past(box: Outbox, clock: Clock) -> None:
    clock.now = 0.0
    record(box, "k1")
    box.release(claimed(box, 1), "busy", 30.0)
    record(box, "k2", "U")
    claimed(box, 2)
    clock.now = NOON
    assert flushed(box, accept) == FlushReport(sent=2)
