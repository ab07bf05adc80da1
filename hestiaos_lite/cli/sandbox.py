"""sandbox: HestiaOS and AEGIS on this machine, until Ctrl-C."""

from __future__ import annotations

import errno

from ..errors import ConnectionFailed, InvalidInput
from .connect import api_key
from .exits import DONE
from .output import Output
from .parser import Arguments, Parser, count, number, seconds

_POLICY = """\
A policy file holds a JSON list of rules; the first one whose pattern is found in the text decides, and
if none is found the text is allowed. "pattern" (a regular expression, in any case) and "decision"
(ALLOW, THROTTLE or BLOCK) are required, "severity" (none, low, medium, high, critical), "policy", "reason"
and "budget" (0 to 1) have defaults. A pattern repeats one character or class, and within a bound: write
.{0,200} instead of .*

  [{"pattern": "\\\\bpayroll\\\\b", "decision": "BLOCK", "policy": "payroll", "reason": "payroll is not for agents"}]

With --fault a request meets one of these faults with the probability --fault-rate: a status (400 to 599) is
answered and nothing is done; drop: the connection is closed and nothing is done; lose: it is done, but the
answer is lost.
"""
_FOR_EVER = 10**9  # requests


def declare(parser: Parser) -> None:
    parser.takes = ("api_key", "api_key_file", "quiet", "verbose")
    parser.epilog = _POLICY

    add = parser.add_argument
    add("--host", help="address to listen on; other machines need --api-key", default="127.0.0.1")
    add("--port", help="port to listen on (default 8000; 0 takes a free one)", type=count, default=8000)
    add("--db", help="SQLite file that keeps traces, secrets and actions across restarts", metavar="FILE")
    add("--policy", help="JSON file with governance rules instead of the default ones", metavar="FILE")
    for name, help in (
        ("--hitl-delay", "how long an AEGIS action stays PENDING"),
        ("--token-delay", "pause before each token of a stream"),
        ("--delay", "how long each request waits before it is handled"),
    ):
        add(name, help=help + " (default 0)", type=_delay, default=0.0, metavar="SECONDS")
    help = "AEGIS actions a tenant may have before 429 (default: no limit)"
    add("--hitl-quota", help=help, type=count, metavar="N")
    help = "a fault that requests meet: 503, 429 or another status, drop, lose; may be repeated"
    add("--fault", help=help, action="append", default=[], metavar="KIND")
    help = "the probability of a fault, above 0 and at most 1 (default 0.1)"
    add("--fault-rate", help=help, type=_rate, default=0.1, metavar="RATE")
    parser.set_defaults(execute=_serve)


def _serve(args: Arguments, output: Output) -> int:
    from ..sandbox import Sandbox
    from ..sandbox.policy import load_policy

    try:
        load_policy(args.policy)
    except ValueError as error:
        raise InvalidInput(str(error), code="BAD_DATA") from error
    try:
        box = Sandbox(
            args.host,
            args.port,
            db=args.db,
            policy=args.policy,
            api_key=api_key(args),
            hitl_delay_seconds=args.hitl_delay,
            hitl_quota=args.hitl_quota,
            token_delay_seconds=args.token_delay,
        )
        if args.fault:
            box.random_faults(args.fault_rate, kinds=args.fault)
    except ValueError as error:
        raise InvalidInput(str(error)) from error
    if args.delay:
        box.delay_next(args.delay, times=_FOR_EVER)
    try:
        box.start()
    except ValueError as error:
        raise InvalidInput(str(error), code="CONFIGURATION") from error
    except OSError as error:
        message = "cannot listen on {} port {}: {}".format(args.host, args.port, error.strerror or error)
        if error.errno == errno.EADDRINUSE:  # it may be free the next time
            raise ConnectionFailed(message, delivered=False) from error
        raise InvalidInput(message, code="CONFIGURATION") from error
    try:
        output.notice("HestiaOS and AEGIS sandbox at {} (Ctrl-C ends it)".format(box.url))
        box.serve_forever()
    finally:
        box.stop()
    return DONE


def _rate(text: str) -> float:
    return number(text, 1.0, "a number above 0 and at most 1")


def _delay(text: str) -> float:
    return 0.0 if text == "0" else seconds(text)
