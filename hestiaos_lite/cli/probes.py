"""probes: ask each service for something harmless, say how it answers, and whether a stream arrives as it is sent."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence

from .. import config
from .._redact import one_line
from ..errors import (
    AuthenticationError,
    ConnectionFailed,
    HestiaError,
    NotFound,
    RequestTimeout,
)
from .environment import Finding
from .parser import Arguments

if TYPE_CHECKING:
    import requests

    from ..client import Client
    from ..models.event import StreamEvent

_SKEW_SECONDS = 10.0  # beyond this, dated Retry-After headers, tokens and logs begin to mislead
_CLOCK = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ]([0-9]{2}):([0-9]{2}):([0-9]{2}(?:\.[0-9]{1,9})?)")
_LONG_ENOUGH_SECONDS = 0.2  # a stream that was sent faster says nothing
_HALF_A_DAY_SECONDS = 43200.0  # timestamps this far apart are of two days
_IN_ONE_PIECE = "a stream arrives in one piece: something on the way holds it back ({})"
_CURES = (
    (AuthenticationError, "set {key} to a key of this service"),
    (ConnectionFailed, "check that the service runs and that {url} names it"),
    (RequestTimeout, "check the network in between; --timeout allows more time"),
    (HestiaError, "check that {url} names the service, and the service itself"),
)


def probe_hestiaos(args: Arguments, settings: config.Settings) -> Iterator[Finding]:
    """Ask HestiaOS for its health, and look at how it answers."""
    import requests

    from ..client import Client

    seen: List[requests.Response] = []
    with requests.Session() as session:
        session.hooks["response"].append(lambda response, *_, **__: seen.append(response))
        options: Dict[str, Any] = {
            "timeout": settings.timeout_seconds,
            "retries": args.retries or 0,
            "profile": args.profile,
        }
        with Client(settings.base_url, settings.api_key or "", session=session, **options) as client:
            started = time.monotonic()
            try:
                health = client.health()
            except HestiaError as error:
                yield _failed("service", error, settings, "HESTIAOS")
                health = None
            if health is not None:
                took_ms = (time.monotonic() - started) * 1000
                text = "{} answered {} in {:.0f} ms".format(
                    settings.base_url, one_line(health.status), took_ms
                )
                cure = "" if health.ok else "look at its status: hestiaos-lite status"
                yield Finding("ok" if health.ok else "problem", "service", text, cure)
            if seen:
                yield _skew(seen[-1])
            if health is None or not health.ok or args.no_stream:
                return
            try:
                look = _look_at_stream(client, lambda: "Content-Length" in seen[-1].headers)
            except HestiaError as error:
                cure = "stream it by hand: hestiaos-lite -vv run --stream hello"
                yield Finding("problem", "stream", error.message, cure)
                return
            cure = "switch off buffering and compression for it in the proxy (nginx: proxy_buffering off)"
            level = {True: "problem", None: "note", False: "ok"}[look.is_held_back]
            yield Finding(level, "stream", look.text, "" if level == "ok" else cure)


def probe_aegis(args: Arguments, settings: config.Settings) -> Iterator[Finding]:
    """Ask AEGIS for a request that it cannot know: 404 is what a service that is well says."""
    from ..aegis.client import AegisClient

    for name in ("tenant", "thread"):
        if not getattr(settings, name + "_id") and not (name == "tenant" and settings.api_key):
            text = "no {} is set: each decision has to name one".format(name)
            yield Finding("note", "aegis", text, "set AEGIS_{}_ID".format(name.upper()))
    options: Dict[str, Any] = {
        "timeout": settings.timeout_seconds,
        "max_retries": args.retries or 0,
        "profile": args.profile,
    }
    unknown = "hestiaos-lite-doctor-{}".format(os.getpid())
    misled = "check that {} names the service".format(_source(settings, "AEGIS", "base_url"))
    with AegisClient(settings.base_url, api_key=settings.api_key or "", **options) as client:
        started = time.monotonic()
        try:
            client.get_status(unknown)
        except NotFound as error:
            took_ms = (time.monotonic() - started) * 1000
            found = Finding("ok", "aegis", "{} answers in {:.0f} ms".format(settings.base_url, took_ms))
            # no words, or those that FastAPI has for a path it does not know, may be anybody's
            if not isinstance(error.details, dict) or error.details == {"detail": "Not Found"}:
                text = "{}, but any web server might answer with its 404".format(found.text)
                found = Finding("note", "aegis", text, misled)
            yield found
        except HestiaError as error:
            yield _failed("aegis", error, settings, "AEGIS")
        else:
            text = "{} knows a request that was never made".format(settings.base_url)
            yield Finding("problem", "aegis", text, misled)


def _failed(check: str, error: HestiaError, settings: config.Settings, prefix: str) -> Finding:
    if error.status is not None and 300 <= error.status < 400:
        return Finding("problem", "redirect", error.message, "set the base URL to where it is")
    if error.status == 404 and settings.base_url.endswith("/api/v1"):
        return Finding("problem", check, error.message, "leave /api/v1 out of the base URL")
    if error.code == "GATEWAY":
        return Finding(
            "problem",
            check,
            error.message,
            "check that {} names the service".format(_source(settings, prefix, "base_url")),
        )
    cure = next(cure for cls, cure in _CURES if isinstance(error, cls))
    return Finding(
        "problem",
        check,
        error.message,
        cure.format(url=_source(settings, prefix, "base_url"), key=_source(settings, prefix, "api_key")),
    )


def _source(settings: config.Settings, prefix: str, name: str) -> str:
    """Return what names a setting, or what would."""
    named = {"argument": "--" + name.replace("_", "-"), "default": "{}_{}".format(prefix, name.upper())}
    return named.get(settings.sources[name], settings.sources[name])


def _skew(response: requests.Response) -> Finding:
    """Compare this machine's clock with the service's Date header, which has a resolution of one second."""
    from email.utils import parsedate_to_datetime

    try:
        ahead_seconds = time.time() - parsedate_to_datetime(response.headers["Date"]).timestamp()
    except (KeyError, TypeError, ValueError, IndexError, OverflowError):
        return Finding("note", "clock", "the service sends no readable Date header to compare with")
    if abs(ahead_seconds) <= _SKEW_SECONDS:
        return Finding("ok", "clock", "agrees with the service's to {:.0f} s".format(abs(ahead_seconds)))
    where = "ahead of" if ahead_seconds > 0 else "behind"
    text = "this clock is {:.0f} s {} the service's".format(abs(ahead_seconds), where)
    return Finding("problem", "clock", text, "synchronise both clocks with NTP (timedatectl set-ntp true)")


class _Stream(NamedTuple):
    """What one stream showed: ``is_held_back`` is True, False, or None where that is unknown."""

    is_held_back: Optional[bool]
    text: str


def _look_at_stream(client: Client, has_length: Callable[[], bool]) -> _Stream:
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
    sent_seconds, came_seconds = _sent_within(events), arrived[-1] - arrived[0]
    waited_seconds, took_seconds = arrived[0] - started, arrived[-1] - started
    if has_length():
        return _Stream(True, _IN_ONE_PIECE.format("it has a Content-Length"))
    if sent_seconds is None:
        if came_seconds < 0.05 and waited_seconds > 1.0 and len(events) > 3:
            return _Stream(None, "{} events came at once after {:.1f} s".format(len(events), waited_seconds))
    elif sent_seconds > _LONG_ENOUGH_SECONDS:
        if came_seconds < sent_seconds / 4:
            facts = "sent over {:.1f} s, arrived within {:.2f} s".format(sent_seconds, came_seconds)
            return _Stream(True, _IN_ONE_PIECE.format(facts))
        return _Stream(False, "arrives live ({} events in {:.2f} s)".format(len(events), took_seconds))
    return _Stream(False, "arrives, too fast to tell whether anything would hold it back")


def _sent_within(events: Sequence[StreamEvent]) -> Optional[float]:
    """Return the seconds between the first and the last event by their own timestamps, or None where they have none."""
    found = [_CLOCK.match(event.timestamp) for event in events]
    clocks = [int(m.group(1)) * 3600 + int(m.group(2)) * 60 + float(m.group(3)) for m in found if m]
    if not clocks or len(clocks) < len(found):
        return None
    spread_seconds = max(clocks) - min(clocks)
    return spread_seconds if spread_seconds < _HALF_A_DAY_SECONDS else None
