"""How a command ends: the exit code of a failure (docs/reference.md, "Exit codes"), what is said of it, and what a signal does."""

from __future__ import annotations

import contextlib
from typing import Any, Callable, Iterator, Optional

from .. import errors
from .output import Output
from .parser import Arguments

DONE = 0
REFUSED = 1  # the service said no, or is unhealthy
USAGE = 2  # the parser ends with it, which loads nothing of this
UNKNOWN = 3  # sent, and the outcome is unknown
BAD_DATA = 65
UNAVAILABLE = 69
INTERNAL = 70  # sysexits' EX_SOFTWARE: a bug of ours
NOT_WRITTEN = 74  # sysexits' EX_IOERR: a result could not be written
TRY_LATER = 75
BROKEN_CONTRACT = 76
DENIED = 77
CONFIGURATION = 78

# What each call's path begins with: a base URL that ends in it asks for /api/v1/api/v1/run.
_BEGINNINGS = ("/api/v1", "/api")


def exit_code(error: BaseException) -> int:
    """Return the exit code of an exception; an error of ours has its own."""
    if isinstance(error, errors.HestiaError):
        return error.exit_code
    # A dependency that is missing or another package of that name, a folder that cannot be written: this machine's.
    return CONFIGURATION if isinstance(error, (ImportError, OSError)) else INTERNAL


def report(
    error: Exception, args: Arguments, output: Output, *, code: Optional[int] = None, text: str = ""
) -> int:
    """Report what ended a command, after what may cure it; return the exit code, which is ``code`` where one is given."""
    own_code = exit_code(error)
    code = own_code if code is None else code
    hint = _hint(error, args)
    if hint:
        output.notice(hint)
    if own_code != INTERNAL:
        output.report(error, exit_code=code, text=text)
        return code
    from .._check import named  # here: most commands end without a bug

    text = "this is a bug in hestiaos-lite, please report it: {}".format(named(error))
    if args.verbose > 1:
        output.traceback(error)
    else:
        text += " (-vv shows where)"
    output.report(error, exit_code=code, text=text, code="INTERNAL")
    return code


def _hint(error: Exception, args: Arguments) -> str:
    """Return the cure of a mistake that many make, and that the failure cannot know of; mostly there is none."""
    if getattr(error, "status", None) not in (404, 405):
        return ""
    url = getattr(args, "asked_url", "")
    for beginning in _BEGINNINGS:
        if url.endswith(beginning):
            hint = "the base URL {} ends in {}, which is added anyway: try -u {}"
            return hint.format(url, beginning, url[: -len(beginning)])
    return str(args.if_not_found) if isinstance(error, errors.NotFound) else ""


@contextlib.contextmanager
def handling(handler: Callable[[int, Any], None], *names: str) -> Iterator[None]:
    """Within the block give the signals of these names to a handler.

    Not one that is ignored, as nohup and ``trap ""`` ask for, or has a handler that is none of Python's, and could not be
    given back; nor in a thread, which may not ask for signals.
    """
    import signal  # here: --help does without it

    before = {}
    for number in (getattr(signal, name) for name in names):
        if signal.getsignal(number) not in (None, signal.SIG_IGN):
            with contextlib.suppress(ValueError):  # only the main thread may
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
