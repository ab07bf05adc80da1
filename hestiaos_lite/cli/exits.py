"""The exit codes that commands return, and the one of an exception (docs/reference.md, "Exit codes")."""

from __future__ import annotations

from .. import errors

DONE = 0
REFUSED = 1  # the service said no, or is unhealthy
USAGE = 2
UNKNOWN = 3  # sent, and the outcome is unknown
BAD_DATA = 65
UNAVAILABLE = 69
INTERNAL = 70  # sysexits' EX_SOFTWARE: a bug of ours
NOT_WRITTEN = 74  # sysexits' EX_IOERR: a result could not be written
TRY_LATER = 75
BROKEN_CONTRACT = 76
DENIED = 77
CONFIGURATION = 78


class BadData(errors.InvalidInput):
    """A file given as input (a policy, a batch) holds what it must not."""

    default_code = "BAD_DATA"


def exit_code(error: BaseException) -> int:
    """Return the exit code of an exception; an error of ours has its own."""
    if isinstance(error, errors.HestiaError):
        return error.exit_code
    # A dependency that is missing or another package of that name, a folder that cannot be written: this machine's.
    return CONFIGURATION if isinstance(error, (ImportError, OSError)) else INTERNAL
