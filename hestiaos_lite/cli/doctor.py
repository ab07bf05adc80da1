"""doctor: check what keeps a job from working; one line and one cure a finding.

The checks of this machine (packages, settings, files, network variables) come first and send nothing. Then each service
is asked for something harmless.
"""

from __future__ import annotations

import os
import platform
import re
import time
import warnings
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence
from urllib.parse import urlsplit

from .. import config
from .._redact import bare_url, one_line
from .._version import __version__
from ..errors import (
    AuthenticationError,
    ConnectionFailed,
    HestiaError,
    InvalidInput,
    NotFound,
    RequestTimeout,
)
from .connect import settings_of
from .exits import DONE, REFUSED
from .output import Output
from .parser import Arguments, Parser

if TYPE_CHECKING:
    import requests

    from ..client import Client
    from ..models.event import StreamEvent

Names = Mapping[str, str]  # setting -> what names it: a variable, an option, a line of the file

_SAFE_URLLIB3 = (1, 26, 5)  # an older one has known vulnerabilities that a hostile service can use
_NEW_OPENSSL = (1, 1, 1)  # an older one has no TLS 1.3, and is not maintained
_SKEW_SECONDS = 10.0  # beyond this, dated Retry-After headers, tokens and logs begin to mislead
_CLOCK = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ]([0-9]{2}):([0-9]{2}):([0-9]{2}(?:\.[0-9]{1,9})?)")
_LONG_ENOUGH_SECONDS = 0.2  # a stream that was sent faster says nothing
_HALF_A_DAY_SECONDS = 43200.0  # timestamps this far apart are of two days
_NAMES_IT = "check that {base_url} names the service"
_CURES = (
    (AuthenticationError, "set {api_key} to a key of this service"),
    (ConnectionFailed, "check that the service runs and that {base_url} names it"),
    (RequestTimeout, "check the network in between; --timeout allows more time"),
    (HestiaError, _NAMES_IT + ", and the service itself"),
)
_NO_BUFFERING = "switch off buffering and compression for it in the proxy (nginx: proxy_buffering off)"


class Finding(NamedTuple):
    """One line: ``level`` is ok, note (works, but know it) or problem; ``cure`` says what to do, or is empty."""

    level: str
    check: str
    text: str
    cure: str = ""


def declare(parser: Parser) -> None:
    parser.description = """\
Check packages, settings, key files, network variables and both services, with a cure for each finding.
HestiaOS is asked for its health; if it is healthy, one run of the text "hello" is streamed to see whether events arrive as
they are sent. AEGIS, if a setting names it, is asked for a request id that cannot exist. Exit 0, or 1 when there is a
problem."""
    parser.add_argument("--no-stream", action="store_true", help='do not run "hello" to check the stream')
    parser.set_defaults(execute=_doctor)


def _doctor(args: Arguments, output: Output) -> int:
    findings: List[Finding] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what other commands warn of is a finding here
        for finding in _examine(args):
            if finding in findings:
                continue  # both services have it
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
    found = list(_packages())
    yield from found
    if args.api_key is not None:
        text = "everybody on this machine can see a key on the command line with ps"
        yield Finding("note", "key", text, "use HESTIAOS_API_KEY or --api-key-file")
    for service, probe in (("hestiaos", _probe_hestiaos), ("aegis", _probe_aegis)):
        settings = None
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                settings = config.resolve(service, **_options(service, args))
            except InvalidInput as error:
                fault = _problem_of(service, error.message)
        # what its commands would warn of or end with
        yield from (_problem_of("file", warning.message) for warning in warned)
        if settings is None:
            yield fault
            continue
        if service == "aegis" and set(settings.sources.values()) <= {"default", "argument"}:
            yield Finding("ok", "aegis", "not set up: no setting names it")
            continue
        yield Finding("ok", service, _described(settings))
        if found[0].level == "problem":
            continue  # without its packages nothing can be asked
        names = {  # of each setting what names it, or what would
            name: {
                "argument": "--" + name.replace("_", "-"),
                "default": "{}_{}".format(service, name).upper(),
            }.get(source, source)
            for name, source in settings.sources.items()
        }
        yield from _way_to(settings, names["api_key"])
        yield from probe(args, settings, names)


# -- the environment


def _problem_of(check: str, message: object) -> Finding:
    """Part a message of ours, which may name its own cure."""
    text, _, cure = str(message).partition("; cure: ")
    return Finding("problem", check, text, cure)


def _packages() -> Iterator[Finding]:
    """Look at this package, Python and the dependencies; the first finding says whether a service can be asked at all."""
    try:
        import requests
        import urllib3

        from .. import sse  # noqa: F401 - it refuses the wrong package
    except ImportError as error:
        found = _problem_of("packages", error)
        is_missing = isinstance(error, ModuleNotFoundError)  # any other error says itself what is wrong
        yield found._replace(cure="pip install requests sseclient-py") if is_missing else found
        return
    try:
        from importlib.metadata import version

        sseclient = version("sseclient-py")
    except ImportError:  # Python 3.7; or a package that is there without having been installed
        sseclient = "of an unknown version"
    installed = str(vars(urllib3)["__version__"])
    text = "hestiaos-lite {}, Python {}, requests {}, urllib3 {}, sseclient-py {}"
    versions = (__version__, platform.python_version(), requests.__version__, installed, sseclient)
    yield Finding("ok", "packages", text.format(*versions))
    if tuple(int(part) for part in installed.split(".") if part.isdecimal()) < _SAFE_URLLIB3:
        text = "urllib3 {} has known vulnerabilities that a hostile service can exploit".format(installed)
        yield Finding("problem", "packages", text, "pip install 'urllib3>=1.26.5'")
    try:
        import ssl
    except ImportError:
        yield Finding("note", "tls", "this Python has no ssl: https cannot be used", "use another Python")
        return
    if ssl.OPENSSL_VERSION_INFO[:3] < _NEW_OPENSSL:
        cure = "use a Python that is built with OpenSSL 1.1.1 or later"
        yield Finding("problem", "tls", "{} is old, and has no TLS 1.3".format(ssl.OPENSSL_VERSION), cure)
    else:
        yield Finding("ok", "tls", ssl.OPENSSL_VERSION)


def _options(service: str, args: Arguments) -> Dict[str, Any]:
    """Return what the arguments set for a service: -u and -k are HestiaOS's here, since one cannot mean both services."""
    if service == "hestiaos":
        return settings_of(args)
    return {name: getattr(args, name) for name in ("timeout", "profile") if getattr(args, name) is not None}


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


def _way_to(settings: config.Settings, names_the_key: str) -> Iterator[Finding]:
    """Look at what is between this machine and a URL: key in the clear, netrc, certificates, proxy."""
    from requests.utils import DEFAULT_CA_BUNDLE_PATH, get_environ_proxies, get_netrc_auth, select_proxy

    from ..wire.connections import is_loopback

    url = settings.base_url
    host, is_here = urlsplit(url).hostname, is_loopback(url)
    is_https, proxy = url.startswith("https://"), select_proxy(url, get_environ_proxies(url))
    variable = next(filter(os.environ.get, ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")), None)
    bundle = os.environ[variable] if variable else DEFAULT_CA_BUNDLE_PATH
    is_there = os.path.exists(bundle)
    trusted = "{} {}".format(variable + " names" if variable else "those of", bundle)
    # fmt: off
    checks = (
        (settings.api_key and url.startswith("http://") and not is_here, "problem", "key",
         "the API key goes over plain http: anyone on the way can read it", "use an https URL"),
        (get_netrc_auth(url) is not None, "note", "netrc",  # requests would send it
         "~/.netrc has an entry for {}, which this library never sends".format(host),
         "" if settings.api_key else "if it is meant for this service, set " + names_the_key),
        (is_https and not is_there, "problem", "certificates", trusted + ", which does not exist",
         "name an existing file, or unset " + variable if variable else "reinstall certifi"),
        (is_https and is_there, "note" if variable else "ok", "certificates", trusted, ""),
        *((is_https and os.environ.get(name), "note", "certificates", name + " has no effect on requests",
           "use REQUESTS_CA_BUNDLE") for name in ("SSL_CERT_FILE", "SSL_CERT_DIR")),
        (proxy and is_here, "ok", "proxy",
         "{} is this machine: the environment's proxy is not used".format(host), ""),
        (proxy and not is_here, "note", "proxy",
         "the environment sends requests for {} through {}".format(host, bare_url(proxy or "")),
         "NO_PROXY={} goes past it".format(host)),
    )
    # fmt: on
    yield from (Finding(*finding) for found, *finding in checks if found)


# -- the services


def _probe_hestiaos(args: Arguments, settings: config.Settings, names: Names) -> Iterator[Finding]:
    """Ask HestiaOS for its health, and look at how it answers."""
    import requests

    from ..client import Client

    seen: List[requests.Response] = []
    with requests.Session() as session:
        session.hooks["response"].append(lambda response, *_, **__: seen.append(response))
        with Client(session=session, retries=args.retries or 0, **settings_of(args)) as client:
            started, is_healthy = time.monotonic(), False
            try:
                health = client.health()
            except HestiaError as error:
                yield _failed("service", error, settings, names)
            else:
                is_healthy = health.ok
                facts = (settings.base_url, one_line(health.status), _ms_since(started))
                cure = "" if is_healthy else "look at its status: hestiaos-lite status"
                text = "{} answered {} in {:.0f} ms".format(*facts)
                yield Finding("ok" if is_healthy else "problem", "service", text, cure)
            if seen:
                yield _skew(seen[-1])
            if is_healthy and not args.no_stream:
                yield _probe_stream(client, seen)


def _probe_aegis(args: Arguments, settings: config.Settings, names: Names) -> Iterator[Finding]:
    """Ask AEGIS for a request that it cannot know: 404 is what a service that is well says."""
    from ..aegis.client import AegisClient

    for name in ("tenant", "thread"):
        if not getattr(settings, name + "_id") and not (name == "tenant" and settings.api_key):
            text = "no {} is set: each decision has to name one".format(name)
            yield Finding("note", "aegis", text, "set AEGIS_{}_ID".format(name.upper()))
    misled = _NAMES_IT.format_map(names)
    with AegisClient(max_retries=args.retries or 0, **_options("aegis", args)) as client:
        started = time.monotonic()
        try:
            client.get_status("hestiaos-lite-doctor-{}".format(os.getpid()))
        except NotFound as error:
            text = "{} answers in {:.0f} ms".format(settings.base_url, _ms_since(started))
            # no words, or those that FastAPI has for a path it does not know, may be anybody's
            if not isinstance(error.details, dict) or error.details == {"detail": "Not Found"}:
                text += ", but any web server might answer with its 404"
                yield Finding("note", "aegis", text, misled)
            else:
                yield Finding("ok", "aegis", text)
        except HestiaError as error:
            yield _failed("aegis", error, settings, names)
        else:
            text = "{} knows a request that was never made".format(settings.base_url)
            yield Finding("problem", "aegis", text, misled)


def _ms_since(started: float) -> float:
    return (time.monotonic() - started) * 1000


def _failed(check: str, error: HestiaError, settings: config.Settings, names: Names) -> Finding:
    if error.status is not None and 300 <= error.status < 400:
        return Finding("problem", "redirect", error.message, "set the base URL to where it is")
    if error.status == 404 and settings.base_url.endswith("/api/v1"):
        cure = "leave /api/v1 out of the base URL"
    elif error.code == "GATEWAY":
        cure = _NAMES_IT
    else:
        cure = next(cure for cls, cure in _CURES if isinstance(error, cls))
    return Finding("problem", check, error.message, cure.format_map(names))


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


def _probe_stream(client: Client, seen: Sequence[requests.Response]) -> Finding:
    """Stream one harmless run, and judge by what its events say and when they came; ``seen`` has its answer last."""
    arrived: List[float] = []
    events: List[StreamEvent] = []
    started = time.monotonic()
    try:
        with client.run_stream("hello", timeout=client.timeout) as stream:
            for event in stream:
                arrived.append(time.monotonic())
                events.append(event)
    except HestiaError as error:
        cure = "stream it by hand: hestiaos-lite -vv run --stream hello"
        return Finding("problem", "stream", error.message, cure)
    sent_seconds, came_seconds = _sent_within(events), arrived[-1] - arrived[0]
    held_back = "it has a Content-Length" if "Content-Length" in seen[-1].headers else ""
    if sent_seconds and sent_seconds > max(_LONG_ENOUGH_SECONDS, 4 * came_seconds) and not held_back:
        held_back = "sent over {:.1f} s, arrived within {:.2f} s".format(sent_seconds, came_seconds)
    if held_back:
        text = "a stream arrives in one piece: something on the way holds it back ({})".format(held_back)
        return Finding("problem", "stream", text, _NO_BUFFERING)
    if sent_seconds is None and came_seconds < 0.05 and arrived[0] - started > 1.0 and len(events) > 3:
        text = "{} events came at once after {:.1f} s".format(len(events), arrived[0] - started)
        return Finding("note", "stream", text, _NO_BUFFERING)
    text = "arrives, too fast to tell whether anything would hold it back"
    if sent_seconds and sent_seconds > _LONG_ENOUGH_SECONDS:
        text = "arrives live ({} events in {:.2f} s)".format(len(events), arrived[-1] - started)
    return Finding("ok", "stream", text)


def _sent_within(events: Sequence[StreamEvent]) -> Optional[float]:
    """Return the seconds between the first and the last event by their own timestamps, or None where they have none."""
    found = [_CLOCK.match(event.timestamp) for event in events]
    clocks = [int(m.group(1)) * 3600 + int(m.group(2)) * 60 + float(m.group(3)) for m in found if m]
    if not clocks or len(clocks) < len(found):
        return None
    spread_seconds = max(clocks) - min(clocks)
    return spread_seconds if spread_seconds < _HALF_A_DAY_SECONDS else None
