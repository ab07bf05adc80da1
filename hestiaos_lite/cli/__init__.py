"""The command line, ``hestiaos-lite``: parse, run one command, and turn whatever happens into an exit code.

The parser needs argparse alone; the module of a command is loaded when that command is chosen, and it loads the client only
when it runs. So ``--help`` costs no more than a Python that parses arguments, and a one-shot call no more than its request.
"""

from __future__ import annotations

import sys
from typing import Any, List, Optional

from .output import Output, OutputClosed
from .parser import Answered, Arguments, UsageError, parse

__all__ = ["main"]

_INTERRUPTED = 130  # 128 + SIGINT
_BROKEN_PIPE = 141  # 128 + SIGPIPE, what a shell sees of any other tool whose reader went away


def main(argv: Optional[List[str]] = None) -> int:
    """Run one command and return its exit code (docs/reference.md, "Exit codes").

    Args:
        argv: the arguments, without the program's name; default those of the process.
    """
    output = Output()
    try:
        return _run(sys.argv[1:] if argv is None else argv, output)
    except OutputClosed as error:
        if error.is_broken_pipe:
            return _BROKEN_PIPE
        from .exits import NOT_WRITTEN

        output.complain("cannot write to standard output: {}".format(error))
        return NOT_WRITTEN
    except KeyboardInterrupt:
        return _INTERRUPTED


def _run(argv: List[str], output: Output) -> int:
    args = Arguments(verbose=0)
    try:
        if argv[:1] == ["__complete"]:  # what the shells' completion scripts ask
            from .help import complete

            output.piece("".join(line + "\n" for line in complete(argv[1:])))
            return 0
        args = parse(argv)
        from .exits import BROKEN_CONTRACT, handling  # here: --help does without it

        output.configure(json=args.json, quiet=args.quiet, field=args.get)
        with handling(_terminate, "SIGTERM"), output.listening(args.verbose):
            code = args.execute(args, output)
        if output.missing_field is not None and code == 0:
            fault = "the result has no field {!r}; --json shows what it has"
            output.complain(fault.format(output.missing_field))
            code = BROKEN_CONTRACT
        # guard becomes its command only now: what is ignored, handled or open here would be inherited
        return int(code() if callable(code) else code)
    except SystemExit as end:  # SIGTERM
        output.leave_line()
        return end.code if isinstance(end.code, int) else 2
    except Answered as answer:
        output.text(str(answer))
        return 0
    except UsageError as error:
        line = "error: {} (see {} --help)".format(error, error.parser.prog)
        return error.parser.on_usage_error(line, argv, output)
    except (OutputClosed, KeyboardInterrupt):
        output.leave_line()
        raise
    except Exception as error:  # noqa: BLE001 - the last frame: a known error gets its exit code, any other is our bug
        from .exits import report

        output.leave_line()
        return report(error, args, output)


def _terminate(number: int, frame: Any) -> None:
    """End the command as Ctrl-C does: connections are closed, the sandbox is stopped."""
    raise SystemExit(128 + number)
