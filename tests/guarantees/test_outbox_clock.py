"""A clock that was wrong once does not matter once it is right."""

from __future__ import annotations

from typing import Any, Iterator

import pytest

from hestiaos_lite import FlushReport, Outbox

from ..aegis.kit import LEASE_SECONDS, NOON, Clock, Service, client_of, flushed, leave_claimed, queue

DAY = 86400.0
SLACK_SECONDS = 60.0  # as time services put a clock back all day: by less it counts as right
AHEAD = [120.0, 3600.0, DAY, 400 * DAY]
BUSY = (503, None, {"Retry-After": "30"})


@pytest.fixture(name="clock")
def _clock() -> Clock:
    return Clock()


@pytest.fixture(name="box")
def _box(tmp_path: Any, clock: Clock) -> Iterator[Outbox]:
    with Outbox(tmp_path / "outbox.db", clock=clock) as opened:
        yield opened


@pytest.mark.parametrize("seconds", AHEAD)
@pytest.mark.parametrize("answer", [None, 503, BUSY])
def test_a_wait_of_a_clock_that_was_ahead_is_over(
    box: Outbox, clock: Clock, seconds: float, answer: Any
) -> None:
    clock.now = NOON + seconds
    queue(box, "k1", "k2")  # of these only the first was tried
    if answer is not None:
        flushed(box, Service(k1=answer))
    clock.now = NOON
    assert flushed(box, Service()) == FlushReport(sent=2)


@pytest.mark.parametrize("seconds", AHEAD)
def test_a_lease_of_a_clock_that_was_ahead_is_over(box: Outbox, clock: Clock, seconds: float) -> None:
    clock.now = NOON + seconds
    for key in ("k1", "k2"):
        queue(box, key, thread_id=key)
    for row_id in (1, 2):
        leave_claimed(box, row_id, clock.now + LEASE_SECONDS)
    clock.now = NOON
    assert box.drop(1) is not None
    assert flushed(box, Service()) == FlushReport(sent=1)


def test_a_dead_row_of_a_clock_that_was_ahead_is_sent_once_requeued(box: Outbox, clock: Clock) -> None:
    clock.now = NOON + DAY
    queue(box, "k")
    assert flushed(box, Service(k=422)).dead == 1
    assert box.requeue(1)
    clock.now = NOON
    assert flushed(box, Service()) == FlushReport(sent=1)


def test_a_clock_that_is_put_back_a_little_frees_no_claim(box: Outbox, clock: Clock) -> None:
    """Its holder is likely to be alive."""
    queue(box, "k")
    leave_claimed(box, 1, NOON + LEASE_SECONDS)
    clock.now = NOON - SLACK_SECONDS
    assert flushed(box, Service()) == FlushReport(queued=1)
    clock.now -= 0.001
    assert flushed(box, Service()) == FlushReport(sent=1)


def test_a_clock_that_is_put_back_a_little_delays_nothing(box: Outbox, clock: Clock) -> None:
    queue(box, "k")
    clock.now = NOON - SLACK_SECONDS / 2
    assert flushed(box, Service()) == FlushReport(sent=1)


def test_a_clock_that_is_put_back_a_little_ends_no_wait(box: Outbox, clock: Clock) -> None:
    queue(box, "k")
    flushed(box, Service(k=(429, None, {"Retry-After": "3600"})))
    for now, report in (
        (-SLACK_SECONDS, FlushReport(queued=1)),
        (3599.999, FlushReport(queued=1)),
        (3600, FlushReport(sent=1)),
    ):
        clock.now = NOON + now
        assert flushed(box, Service()) == report


def test_a_clock_that_was_behind_leaves_what_it_did_long_past(box: Outbox, clock: Clock) -> None:
    clock.now = 0.0
    with client_of(box, Service(k1=BUSY, k2=BUSY)) as client:
        for key in ("k1", "k2"):
            assert client.approve(key, thread_id=key).queued
    leave_claimed(box, 2, LEASE_SECONDS)
    clock.now = NOON
    assert flushed(box, Service()) == FlushReport(sent=2)
