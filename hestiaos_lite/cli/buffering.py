"""buffering: does a stream arrive as it is sent, or does something on the way hold it back?"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Callable, List, NamedTuple, Optional, Sequence

if TYPE_CHECKING:
    from ..client import Client
    from ..models.event import StreamEvent

_CLOCK = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ]([0-9]{2}):([0-9]{2}):([0-9]{2}(?:\.[0-9]{1,9})?)")
_LONG_ENOUGH_SECONDS = 0.2  # a stream that was sent faster says nothing
_HALF_A_DAY_SECONDS = 43200.0  # timestamps this far apart are of two days
_IN_ONE_PIECE = "a stream arrives in one piece: something on the way holds it back ({})"


class Look(NamedTuple):
    """What one stream showed: ``is_held_back`` is True, False, or None where it cannot be told."""

    is_held_back: Optional[bool]
    text: str


def look_at_stream(client: Client, has_length: Callable[[], bool]) -> Look:
    """Stream one harmless run, and judge by what its events say and when they came.

    Args:
        has_length: tells whether the last answer came with a Content-Length.

    Raises:
        HestiaError: the stream failed.
    """
    arrived: List[float] = []
    events: List[StreamEvent] = []
    started = time.monotonic()
    with client.run_stream("hello", timeout=client.timeout) as stream:
        for event in stream:
            arrived.append(time.monotonic())
            events.append(event)
    sent_seconds, came_seconds = sent_within(events), arrived[-1] - arrived[0]
    waited_seconds, took_seconds = arrived[0] - started, arrived[-1] - started
    if has_length():
        return Look(True, _IN_ONE_PIECE.format("it has a Content-Length"))
    if sent_seconds is None:
        if came_seconds < 0.05 and waited_seconds > 1.0 and len(events) > 3:
            return Look(None, "{} events came at once after {:.1f} s".format(len(events), waited_seconds))
    elif sent_seconds > _LONG_ENOUGH_SECONDS:
        if came_seconds < sent_seconds / 4:
            facts = "sent over {:.1f} s, arrived within {:.2f} s".format(sent_seconds, came_seconds)
            return Look(True, _IN_ONE_PIECE.format(facts))
        return Look(False, "arrives live ({} events in {:.2f} s)".format(len(events), took_seconds))
    return Look(False, "arrives, too fast to tell whether anything would hold it back")


def sent_within(events: Sequence[StreamEvent]) -> Optional[float]:
    """Return the seconds between the first and the last event by their own timestamps, or None where they have none."""
    found = [_CLOCK.match(event.timestamp) for event in events]
    clocks = [int(m.group(1)) * 3600 + int(m.group(2)) * 60 + float(m.group(3)) for m in found if m]
    if not clocks or len(clocks) < len(found):
        return None
    spread_seconds = max(clocks) - min(clocks)
    return spread_seconds if spread_seconds < _HALF_A_DAY_SECONDS else None
