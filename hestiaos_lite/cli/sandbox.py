"""sandbox: HestiaOS and AEGIS on this machine, until Ctrl-C."""

from __future__ import annotations

import errno

from ..errors import ConnectionFailed, InvalidInput
from .exits import DONE, BadData
from .output import Output
from .parser import Arguments, Parser, count, seconds


def declare(parser: Parser) -> None:
    """Declare ``sandbox``."""
    parser.takes = ("api_key", "api_key_file", "quiet", "verbose")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; other machines need --api-key"
    )
    parser.add_argument(
        "--port", type=count, default=8000, help="port to listen on (default 8000; 0 takes a free one)"
    )
    parser.add_argument(
        "--db", metavar="FILE", help="SQLite file that keeps traces, secrets and actions over a restart"
    )
    parser.add_argument(
        "--policy", metavar="FILE", help="JSON file with governance rules instead of the default ones"
    )
    parser.add_argument(
        "--hitl-delay",
        type=_delay,
        default=0.0,
        metavar="SECONDS",
        help="how long an AEGIS action stays PENDING (default 0)",
    )
    parser.add_argument(
        "--hitl-quota",
        type=count,
        metavar="N",
        help="AEGIS actions a tenant may have before 429 (default: no limit)",
    )
    parser.add_argument(
        "--token-delay",
        type=_delay,
        default=0.0,
        metavar="SECONDS",
        help="pause before each token of a stream (default 0)",
    )
    parser.set_defaults(execute=_serve)


def _serve(args: Arguments, output: Output) -> int:
    from ..sandbox import Sandbox
    from ..sandbox.governance import load_policy
    from .connect import api_key

    if args.policy is not None:
        try:
            load_policy(args.policy)
        except ValueError as error:
            raise BadData(str(error)) from error
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
    except ValueError as error:
        raise InvalidInput(str(error)) from error
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


def _delay(text: str) -> float:
    return 0.0 if text == "0" else seconds(text)
