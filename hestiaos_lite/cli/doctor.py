"""doctor: check, without being told what to look for, what keeps a job from working; one line and one cure a finding.

The checks of this machine (packages, settings, files, network variables) come first and send nothing. Then each service
is asked for something harmless.
"""

from __future__ import annotations

import os
import time
import warnings
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Optional, Tuple

from .. import config
from .._redact import one_line
from ..errors import (
    AuthenticationError,
    ConnectionFailed,
    HestiaError,
    InvalidInput,
    NotFound,
    RequestTimeout,
)
from .exits import DONE, REFUSED
from .machine import Finding, finding_of, packages, way_to
from .output import Output
from .parser import Arguments, Parser

if TYPE_CHECKING:
    import requests

_SKEW_SECONDS = 10.0  # beyond this, dated Retry-After headers, tokens and logs begin to mislead
_CURES = (
    (AuthenticationError, "set {key} to a key of this service"),
    (ConnectionFailed, "check that the service runs and that {url} names it"),
    (RequestTimeout, "check the network on the way; --timeout gives it longer"),
    (HestiaError, "check that {url} names the service, and the service itself"),
)


def declare(parser: Parser) -> None:
    """Declare ``doctor``."""
    parser.description = """\
Check packages, settings, key files, network variables and both services, with a cure for each finding.
HestiaOS is asked for its health; when it is well, one run of the text "hello" is streamed to see whether events arrive as
they are sent. AEGIS, where a setting names it, is asked for a request that it cannot know. Exit 0, or 1 when there is a
problem."""
    parser.add_argument("--no-stream", action="store_true", help='do not run "hello" to look at the stream')
    parser.set_defaults(execute=_doctor)


def _doctor(args: Arguments, output: Output) -> int:
    findings: List[Finding] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what other commands warn of is a finding here
        for finding in _examine(args):
            findings.append(finding)
            if not output.json:
                cure = "; cure: " + finding.cure if finding.cure else ""
                output.piece("{:<8} {:<12} {}{}\n".format(finding.level, finding.check, finding.text, cure))
    problems = sum(finding.level == "problem" for finding in findings)
    if output.json:
        output.document({"ok": not problems, "findings": [finding._asdict() for finding in findings]})
    if problems:
        output.complain("{} problem{}".format(problems, "" if problems == 1 else "s"))
        return REFUSED
    return DONE


def _examine(args: Arguments) -> Iterator[Finding]:
    found = list(packages())
    yield from found
    if args.api_key is not None:
        text = "everybody on this machine sees a key of the command line in ps"
        yield Finding("note", "key", text, "use HESTIAOS_API_KEY or --api-key-file")
    known: List[Finding] = []
    ways: List[Tuple[str, bool]] = []
    for service, look in (("hestiaos", _hestiaos), ("aegis", _aegis)):
        settings, problems = _settings(service, args)
        yield from (finding for finding in problems if finding not in known)
        known += problems
        if settings is None:
            continue
        if service == "aegis" and set(settings.sources.values()) == {"default"}:
            yield Finding("ok", "aegis", "not set up: no setting names it")
            continue
        yield Finding("ok", service, _described(settings))
        if found[0].level == "problem":
            continue  # without its packages nothing can be asked
        way = (settings.base_url, bool(settings.api_key))
        if way not in ways:
            yield from way_to(*way)
            ways.append(way)
        yield from look(args, settings)


def _settings(service: str, args: Arguments) -> Tuple[Optional[config.Settings], List[Finding]]:
    """Resolve a service's settings as its commands do; what they would warn of or end with is a problem."""
    from .connect import common_options

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            # -u and -k are HestiaOS's here: both services cannot be meant by one
            options = common_options(args) if service == "hestiaos" else {"profile": args.profile}
            settings: Optional[config.Settings] = config.resolve(service, **options)
            problems = []
        except InvalidInput as error:
            settings, problems = None, [finding_of("problem", service, error.message)]
    return settings, [finding_of("problem", "file", warning.message) for warning in warned] + problems


def _described(settings: config.Settings) -> str:
    """Say what is set, and where: a setting that surprises is found by its source."""
    shown = {
        "base_url": settings.base_url,
        "api_key": "API key" if settings.api_key else "no API key",
        "timeout": "timeout {:g} s".format(settings.timeout_seconds),
        "tenant_id": "tenant {}".format(settings.tenant_id),
        "thread_id": "thread {}".format(settings.thread_id),
    }
    of_both = ("base_url", "api_key", "timeout")
    named = [name for name in shown if name in of_both or settings.sources.get(name, "default") != "default"]
    return ", ".join("{} ({})".format(shown[name], settings.sources[name]) for name in named)


def _hestiaos(args: Arguments, settings: config.Settings) -> Iterator[Finding]:
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
                yield _failed("service", error, "--base-url", "HESTIAOS_API_KEY")
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


def _aegis(args: Arguments, settings: config.Settings) -> Iterator[Finding]:
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
        except NotFound:
            took_ms = (time.monotonic() - started) * 1000
            yield Finding("ok", "aegis", "{} answers in {:.0f} ms".format(settings.base_url, took_ms))
        except HestiaError as error:
            yield _failed("aegis", error, "AEGIS_BASE_URL", "AEGIS_API_KEY")
        else:
            text = "{} knows a request that was never made".format(settings.base_url)
            yield Finding("problem", "aegis", text, "check that AEGIS_BASE_URL names the service")


def _failed(check: str, error: HestiaError, url_setting: str, key_setting: str) -> Finding:
    if error.status is not None and 300 <= error.status < 400:
        return Finding("problem", "redirect", error.message, "set the base URL to where it is")
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
