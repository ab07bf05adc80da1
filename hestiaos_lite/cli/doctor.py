"""doctor: check, without being told what to look for, what keeps a job from working; one line and one cure a finding.

The checks of this machine (settings, files, environment) come first and send nothing. Then the service is asked for its
health; where it answers, one harmless run ("hello") shows whether a stream arrives live.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, NamedTuple, Optional
from urllib.parse import urlsplit

from .. import config
from ..errors import AuthenticationError, ConnectionFailed, HestiaError, InvalidInput, RequestTimeout
from .exits import DONE, REFUSED
from .output import Output
from .parser import Arguments, Parser

if TYPE_CHECKING:
    import requests

    from ..client import Client
    from ..models import StreamEvent

_SKEW_SECONDS = 10.0  # beyond this, dated Retry-After headers, tokens and logs begin to mislead
_CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


class Finding(NamedTuple):
    """One line: ``level`` is ok, note (works, but know it) or problem; ``cure`` says what to do, or is empty."""

    level: str
    check: str
    text: str
    cure: str = ""


def declare(parser: Parser) -> None:
    """Declare ``doctor``."""
    parser.description = """\
Check settings, key files, network variables, packages and the service, with a cure for each finding.
When the service is healthy, one run of the text "hello" is streamed to see whether events arrive as they are sent.
Exit 0, or 1 when there is a problem."""
    parser.add_argument("--no-stream", action="store_true", help='do not run "hello" to look at the stream')
    parser.set_defaults(execute=_doctor)


def _doctor(args: Arguments, output: Output) -> int:
    findings: List[Finding] = []
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
    packages = _packages()
    yield packages
    yield from _key_files(args)
    try:
        from .connect import api_key

        settings = config.resolve(
            base_url=args.base_url, api_key=api_key(args), timeout=args.timeout, profile=args.profile
        )
    except InvalidInput as error:
        yield Finding(
            "problem", "settings", error.message, "put that setting right; nothing else can be checked before"
        )
        return
    key = "with" if settings.api_key else "without"
    text = "{} {} an API key, timeout {:g} s".format(settings.base_url, key, settings.timeout_seconds)
    yield Finding("ok", "settings", text)
    yield from _exposure(settings)
    yield from _netrc(settings)
    yield from _certificates(settings.base_url)
    yield from _proxies(settings.base_url)
    if packages.level == "ok":
        yield from _service(args, settings)


def _packages() -> Finding:
    try:
        from .. import sse  # noqa: F401 - it refuses the wrong package
    except ImportError as error:
        text, _, cure = str(error).partition("; cure: ")
        return Finding("problem", "packages", text, cure or "pip install --force-reinstall sseclient-py")
    import requests
    import urllib3

    text = "requests {}, urllib3 {}, sseclient-py".format(requests.__version__, vars(urllib3)["__version__"])
    return Finding("ok", "packages", text)


def _key_files(args: Arguments) -> Iterator[Finding]:
    """Look at the mode of every file that may hold a key."""
    exposed = config.exposed_key_file()
    if exposed is not None:
        text = "others can read {}, which holds an API key".format(exposed)
        yield Finding("problem", "key file", text, "chmod 600 " + exposed)
    files = {args.api_key_file, os.environ.get("HESTIAOS_API_KEY_FILE"), os.environ.get("AEGIS_API_KEY_FILE")}
    try:
        section = config.read_profile(args.profile)
        files.update([section.get("api_key_file"), section.get("aegis_api_key_file")])
    except InvalidInput:
        pass  # the settings' own check reports it
    checked = False
    for path in sorted(path for path in files if path):
        try:
            mode = os.stat(path).st_mode
        except OSError as error:
            yield Finding(
                "problem", "key file", "{}: {}".format(path, error.strerror), "name a file that can be read"
            )
            continue
        checked = True
        if os.name == "posix" and mode & 0o044:
            yield Finding("problem", "key file", "others can read {}".format(path), "chmod 600 " + path)
    if checked and exposed is None:
        yield Finding("ok", "key file", "the key files were looked at")
    if args.api_key is not None:
        text = "everybody on this machine sees a key of the command line in ps"
        yield Finding("note", "key", text, "use HESTIAOS_API_KEY or --api-key-file")


def _exposure(settings: config.Settings) -> Iterator[Finding]:
    from ..wire.network import is_loopback

    if settings.api_key and settings.base_url.startswith("http://") and not is_loopback(settings.base_url):
        text = "the API key goes over plain http: anyone on the way can read it"
        yield Finding("problem", "key", text, "use an https URL")


def _netrc(settings: config.Settings) -> Iterator[Finding]:
    """Name an entry of ~/.netrc for this host: requests would send it, this library never does."""
    from requests.utils import get_netrc_auth

    host = urlsplit(settings.base_url).hostname
    if get_netrc_auth(settings.base_url) is None:
        yield Finding("ok", "netrc", "no entry for {}".format(host))
        return
    text = "~/.netrc has an entry for {}, which is never sent by this library".format(host)
    cure = "" if settings.api_key else "if it is meant for this service, set HESTIAOS_API_KEY"
    yield Finding("note", "netrc", text, cure)


def _certificates(base_url: str) -> Iterator[Finding]:
    """Say which certificate authorities are trusted, and by what."""
    if not base_url.startswith("https://"):
        yield Finding("ok", "certificates", "not used: the base URL is http")
        return
    name = next((name for name in _CA_VARIABLES if os.environ.get(name)), None)
    if name is None:
        from requests.utils import DEFAULT_CA_BUNDLE_PATH

        yield Finding("ok", "certificates", "those of {}".format(DEFAULT_CA_BUNDLE_PATH))
    elif os.path.exists(os.environ[name]):
        yield Finding(
            "note",
            "certificates",
            "{} names {}".format(name, os.environ[name]),
            "unset it if that is not meant",
        )
    else:
        text = "{} names {}, which does not exist".format(name, os.environ[name])
        yield Finding("problem", "certificates", text, "name an existing file, or unset " + name)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        if os.environ.get(name):
            yield Finding(
                "note", "certificates", "{} has no effect on requests".format(name), "use REQUESTS_CA_BUNDLE"
            )


def _proxies(base_url: str) -> Iterator[Finding]:
    """Name the proxy that the environment sends this URL through."""
    from requests.utils import get_environ_proxies, select_proxy

    from .._redact import bare_url
    from ..wire.network import is_loopback

    proxy = select_proxy(base_url, get_environ_proxies(base_url))
    host = urlsplit(base_url).hostname
    if proxy is None:
        yield Finding("ok", "proxy", "none for {}".format(host))
    elif is_loopback(base_url):
        yield Finding("ok", "proxy", "{} is this machine: the environment's proxy is not used".format(host))
    else:
        text = "the environment sends requests for {} through {}".format(host, bare_url(proxy))
        yield Finding("note", "proxy", text, "NO_PROXY={} goes past it".format(host))


def _service(args: Arguments, settings: config.Settings) -> Iterator[Finding]:
    """Ask for the service's health, and look at how it answers."""
    import requests

    from ..client import Client

    seen: List[requests.Response] = []
    with requests.Session() as session:
        session.hooks["response"].append(lambda response, *_, **__: seen.append(response))
        options: Dict[str, Any] = {
            "timeout": settings.timeout_seconds,
            "retries": args.retries or 0,
            "session": session,
        }
        with Client(settings.base_url, settings.api_key, **options) as client:
            started = time.monotonic()
            try:
                health = client.health()
            except HestiaError as error:
                yield _failed_health(error)
                if seen:
                    yield _skew(seen[-1])
                return
            took_ms = (time.monotonic() - started) * 1000
            text = "{} answered {} in {:.0f} ms".format(settings.base_url, health.status, took_ms)
            cure = "" if health.ok else "look at its status: hestiaos-lite status"
            yield Finding("ok" if health.ok else "problem", "service", text, cure)
            yield _skew(seen[-1])
            if health.ok and not args.no_stream:
                del seen[:]
                yield _stream(client, seen)


def _failed_health(error: HestiaError) -> Finding:
    if error.status is not None and 300 <= error.status < 400:
        return Finding("problem", "redirect", error.message, "set the base URL to where it is")
    cures = (
        (AuthenticationError, "set HESTIAOS_API_KEY to a key of this service"),
        (ConnectionFailed, "check that the service runs and that --base-url names it"),
        (RequestTimeout, "check the network on the way; --timeout gives it longer"),
        (HestiaError, "check that --base-url names the service, and the service itself"),
    )
    return Finding(
        "problem", "service", error.message, next(cure for cls, cure in cures if isinstance(error, cls))
    )


def _skew(response: requests.Response) -> Finding:
    """Compare this machine's clock with the service's Date header, which has a resolution of one second."""
    from email.utils import parsedate_to_datetime

    try:
        theirs = parsedate_to_datetime(response.headers["Date"]).timestamp()
    except (KeyError, TypeError, ValueError, IndexError, OverflowError):
        return Finding("note", "clock", "the service sends no readable Date header to compare with")
    ahead_seconds = time.time() - theirs
    if abs(ahead_seconds) <= _SKEW_SECONDS:
        return Finding("ok", "clock", "agrees with the service's to {:.0f} s".format(abs(ahead_seconds)))
    where = "ahead of" if ahead_seconds > 0 else "behind"
    text = "this clock is {:.0f} s {} the service's".format(abs(ahead_seconds), where)
    return Finding("problem", "clock", text, "let both keep time by NTP (timedatectl set-ntp true)")


def _stream(client: Client, seen: List[Any]) -> Finding:
    """Stream one harmless run, and judge by what the events say and when they came whether something holds them back."""
    arrived: List[float] = []
    events: List[StreamEvent] = []
    started = time.monotonic()
    try:
        with client.run_stream("hello", timeout=client.timeout) as stream:
            for event in stream:
                arrived.append(time.monotonic())
                events.append(event)
    except HestiaError as error:
        return Finding(
            "problem", "stream", error.message, "stream it by hand: hestiaos-lite -vv run --stream hello"
        )
    sent_seconds = _sent_within(events)
    came_seconds = arrived[-1] - arrived[0]
    headers = seen[-1].headers if seen else {}
    buffered = "a stream arrives in one piece: something on the way holds it back"
    cure = "switch off buffering and compression for it in the proxy (nginx: proxy_buffering off)"
    if "Content-Length" in headers:
        return Finding("problem", "stream", buffered + " (it has a Content-Length)", cure)
    if sent_seconds is not None and sent_seconds > 0.2 and came_seconds < sent_seconds / 4:
        facts = " (sent over {:.1f} s, arrived within {:.2f} s)".format(sent_seconds, came_seconds)
        return Finding("problem", "stream", buffered + facts, cure)
    if sent_seconds is None and came_seconds < 0.05 and arrived[0] - started > 1.0 and len(events) > 3:
        text = "{} events came at once after {:.1f} s: something on the way may hold them back"
        return Finding("note", "stream", text.format(len(events), arrived[0] - started), cure)
    live = sent_seconds is not None and sent_seconds > 0.2
    text = (
        "arrives live"
        if live
        else "arrives; it was sent too fast to tell whether anything would hold it back"
    )
    return Finding(
        "ok", "stream", "{} ({} events in {:.2f} s)".format(text, len(events), arrived[-1] - started)
    )


def _sent_within(events: List[StreamEvent]) -> Optional[float]:
    """Return the seconds between the first and the last event by their own timestamps, or None where they have none."""
    from datetime import datetime

    times = []
    for event in events:
        try:
            times.append(
                datetime.strptime(event.timestamp[:19].replace(" ", "T"), "%Y-%m-%dT%H:%M:%S").timestamp()
            )
        except ValueError:
            return None
        fraction = event.timestamp[19:].partition(".")[2]
        digits = fraction[: next((n for n, char in enumerate(fraction) if not char.isdigit()), len(fraction))]
        times[-1] += float("0." + digits) if digits else 0.0
    return max(times) - min(times) if times else None
