"""services: ask each service for something harmless, and say how it answers."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Dict, Iterator, List

from .. import config
from .._redact import one_line
from ..errors import (
    AuthenticationError,
    ConnectionFailed,
    HestiaError,
    NotFound,
    RequestTimeout,
)
from .machine import Finding
from .parser import Arguments

if TYPE_CHECKING:
    import requests

_SKEW_SECONDS = 10.0  # beyond this, dated Retry-After headers, tokens and logs begin to mislead
_CURES = (
    (AuthenticationError, "set {key} to a key of this service"),
    (ConnectionFailed, "check that the service runs and that {url} names it"),
    (RequestTimeout, "check the network on the way; --timeout gives it longer"),
    (HestiaError, "check that {url} names the service, and the service itself"),
)


def look_at_hestiaos(args: Arguments, settings: config.Settings) -> Iterator[Finding]:
    """Ask HestiaOS for its health, and look at how it answers."""
    import requests

    from ..client import Client
    from .buffering import look_at_stream

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
                yield _failed("service", error, settings.base_url, "--base-url", "HESTIAOS_API_KEY")
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
                look = look_at_stream(client, lambda: "Content-Length" in seen[-1].headers)
            except HestiaError as error:
                cure = "stream it by hand: hestiaos-lite -vv run --stream hello"
                yield Finding("problem", "stream", error.message, cure)
                return
            cure = "switch off buffering and compression for it in the proxy (nginx: proxy_buffering off)"
            level = {True: "problem", None: "note", False: "ok"}[look.is_held_back]
            yield Finding(level, "stream", look.text, "" if level == "ok" else cure)


def look_at_aegis(args: Arguments, settings: config.Settings) -> Iterator[Finding]:
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
    with AegisClient(settings.base_url, api_key=settings.api_key or "", **options) as client:
        started = time.monotonic()
        try:
            client.get_status(unknown)
        except NotFound as error:
            took_ms = (time.monotonic() - started) * 1000
            found = Finding("ok", "aegis", "{} answers in {:.0f} ms".format(settings.base_url, took_ms))
            # no words, or those that FastAPI has for a path it does not know, may be anybody's
            if not isinstance(error.details, dict) or error.details == {"detail": "Not Found"}:
                text = "{}, but its 404 may be of any web server".format(found.text)
                found = Finding("note", "aegis", text, "check that AEGIS_BASE_URL names the service")
            yield found
        except HestiaError as error:
            yield _failed("aegis", error, settings.base_url, "AEGIS_BASE_URL", "AEGIS_API_KEY")
        else:
            text = "{} knows a request that was never made".format(settings.base_url)
            yield Finding("problem", "aegis", text, "check that AEGIS_BASE_URL names the service")


def _failed(check: str, error: HestiaError, url: str, url_setting: str, key_setting: str) -> Finding:
    if error.status is not None and 300 <= error.status < 400:
        return Finding("problem", "redirect", error.message, "set the base URL to where it is")
    if error.status == 404 and url.endswith("/api/v1"):
        return Finding("problem", check, error.message, "leave /api/v1 out of the base URL")
    if error.code == "GATEWAY":
        cure = "check that {} names the service".format(url_setting)
        return Finding("problem", check, error.message, cure)
    cure = next(cure for cls, cure in _CURES if isinstance(error, cls))
    return Finding("problem", check, error.message, cure.format(url=url_setting, key=key_setting))


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
    return Finding("problem", "clock", text, "let both keep time by NTP (timedatectl set-ntp true)")
