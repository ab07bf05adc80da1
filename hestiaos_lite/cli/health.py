"""health, for people and, with ``--nagios``, for a monitoring system."""

from __future__ import annotations

import time
from typing import Sequence

from .._redact import one_line
from ..errors import ConnectionFailed, HestiaError, InvalidInput, RequestTimeout, ServerError
from .connect import open_client
from .exits import DONE, REFUSED
from .output import Output
from .parser import Arguments, Parser, report_usage_error, seconds

_OK, _WARNING, _CRITICAL, _UNKNOWN = range(4)  # the exit codes of the Monitoring Plugins guidelines
_NAMES = ("OK", "WARNING", "CRITICAL", "UNKNOWN")
_LONGEST_UPTIME_SECONDS = 1e12  # more is no uptime, but NaN, infinity or a number that no float holds
_STATES = {
    **dict.fromkeys(("ok", "healthy"), _OK),
    **dict.fromkeys(("degraded", "warning"), _WARNING),
    **dict.fromkeys(("error", "critical", "unhealthy", "down", "failed"), _CRITICAL),
}


def declare(parser: Parser) -> None:
    help = "one status line with performance data; exit 0 ok, 1 warning, 2 critical or unreachable, 3 unknown"
    parser.add_argument("--nagios", action="store_true", help=help)
    for level in ("warning", "critical"):
        help = "with --nagios: an answer as slow as this is {}".format(level)
        parser.add_argument("--" + level, type=seconds, metavar="SECONDS", help=help)
    parser.on_usage_error = _usage_error
    parser.set_defaults(execute=_health)


def _usage_error(message: str, argv: Sequence[str], output: Output) -> int:
    """Report a usage error; to a monitoring system in one line of its own, as a check that could not look."""
    if "--nagios" in argv:
        output.text("HESTIAOS UNKNOWN - {}".format(_plain(message)))
        return _UNKNOWN
    return report_usage_error(message, argv, output)


def _health(args: Arguments, output: Output) -> int:
    if args.nagios:
        return _nagios(args, output)
    if args.warning or args.critical:
        raise InvalidInput("--warning and --critical need --nagios")
    with open_client(args) as client:
        health = client.health()
    output.fields(health.to_dict())
    if not health.ok:
        output.complain("the service reports its status as {}".format(health.status))
        return REFUSED
    return DONE


def _nagios(args: Arguments, output: Output) -> int:
    data = ""
    started = time.monotonic()
    try:
        with open_client(args) as client:
            started = time.monotonic()
            health = client.health()
    except Exception as error:  # noqa: BLE001 - whatever keeps the check from looking says nothing about health
        took_seconds = time.monotonic() - started
        is_down = isinstance(error, (ConnectionFailed, RequestTimeout, ServerError))
        state = _CRITICAL if is_down else _UNKNOWN
        text = str(error) if isinstance(error, HestiaError) else repr(error)
    else:
        took_seconds = time.monotonic() - started
        state, text = _STATES.get(health.status.lower(), _UNKNOWN), "status {}".format(health.status)
        if health.version:
            text += ", version {}".format(health.version)
        for limit, worse in ((args.critical, _CRITICAL), (args.warning, _WARNING)):
            if limit is not None and took_seconds >= limit and state < worse:
                text += ", answered in {:.3f} s (limit {:g} s)".format(took_seconds, limit)
                state = worse
        if health.uptime_seconds is not None and 0 <= health.uptime_seconds < _LONGEST_UPTIME_SECONDS:
            data = " uptime={:.0f}s;;;0".format(health.uptime_seconds)
    limits = ["" if limit is None else "{:g}".format(limit) for limit in (args.warning, args.critical)]
    data = "time={:.3f}s;{};{};0".format(took_seconds, *limits) + data
    output.text("HESTIAOS {} - {} | {}".format(_NAMES[state], _plain(text), data))
    return state


def _plain(text: str) -> str:
    """Return the text as it may be before the performance data."""
    return one_line(text.replace("|", "/"), limit=1000)
