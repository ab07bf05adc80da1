"""A clock that was wrong once does not matter once it is right; one that is put back a little, as time services do, is right."""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

import pytest

from hestiaos_lite import FlushReport, Outbox

from ..aegis.kit import LEASE_SECONDS, NOON, Clock, Service, flushed, leave_claimed, queue

DAY = 86400.0
SLACK_SECONDS = 60.0
BUSY = (503, None, {"Retry-After": "30"})
QUOTA = (429, None, {"Retry-After": "3600"})

# What the clock said when it was queued, in seconds from noon, and what was done to it then: sent and answered so, or
# claimed by one that is killed; at which moments by the right clock a flush finds it due.
# fmt: off
CASES: Dict[str, Tuple[float, Any, List[Tuple[float, bool]]]] = {
    **{"{}, {:g} s ahead".format(did, ahead): (ahead, did, [(0, True)])
       for ahead in (120.0, 3600.0, DAY, 400 * DAY) for did in (None, 503, BUSY, QUOTA, 422, "claimed")},
    # the holder of a claim is likely to be alive
    "claimed, put back a little":     (0, "claimed", [(-SLACK_SECONDS, False), (-SLACK_SECONDS - 0.001, True)]),
    "never tried, put back a little": (0, None, [(-SLACK_SECONDS / 2, True)]),
    "waits, put back a little":       (0, QUOTA, [(-SLACK_SECONDS, False), (3599.999, False), (3600, True)]),
    "waits, was behind":              (-NOON, BUSY, [(0, True)]),
    "claimed, was behind":            (-NOON, "claimed", [(0, True)]),
}
# fmt: on


@pytest.mark.parametrize(("queued_at", "did", "moments"), CASES.values(), ids=CASES.keys())
def test_what_is_due(tmp_path: Any, queued_at: float, did: Any, moments: Any) -> None:
    clock = Clock(NOON + queued_at)
    with Outbox(tmp_path / "outbox.db", clock=clock) as box:
        queue(box, "k")
        if did == "claimed":
            leave_claimed(box, 1, clock.now + LEASE_SECONDS)
        elif did is not None:
            flushed(box, Service(k=did))
            assert box.requeue_all() == (did == 422)
        for seconds, is_due in moments:
            clock.now = NOON + seconds
            report = FlushReport(sent=1) if is_due else FlushReport(queued=1)
            assert flushed(box, Service()) == report


def test_a_claim_of_a_clock_that_was_ahead_keeps_no_row_from_being_dropped(tmp_path: Any) -> None:
    clock = Clock(NOON + DAY)
    with Outbox(tmp_path / "outbox.db", clock=clock) as box:
        queue(box, "k")
        leave_claimed(box, 1, clock.now + LEASE_SECONDS)
        clock.now = NOON
        assert box.drop(1) is not None
