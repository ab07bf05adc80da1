"""The exit code of a failure (API.md, "Command line"): one table by class, and one rule where no whole answer came."""

from __future__ import annotations

from typing import Sequence, Tuple, Type

from .. import errors

DONE = 0
REFUSED = 1  # the service said no, or is unhealthy
USAGE = 2
UNKNOWN = 3  # sent, and no answer came
BAD_DATA = 65
UNAVAILABLE = 69
INTERNAL = 70  # sysexits' EX_SOFTWARE: a bug of ours
TRY_LATER = 75
BROKEN_CONTRACT = 76
DENIED = 77
CONFIGURATION = 78

_BY_CLASS: Sequence[Tuple[Type[errors.HestiaError], int]] = (
    (errors.GovernanceBlock, REFUSED),
    (errors.NotFound, REFUSED),
    (errors.Conflict, REFUSED),
    (errors.IdempotencyConflict, REFUSED),
    (errors.InvalidInput, USAGE),
    (errors.ServerError, UNAVAILABLE),
    (errors.RateLimited, TRY_LATER),
    (errors.InvalidResponse, BROKEN_CONTRACT),
    (errors.StreamInterrupted, BROKEN_CONTRACT),
    (errors.AuthenticationError, DENIED),
    (errors.PermissionDenied, DENIED),
)

# A setting or a file is at fault, whatever the class: they are to be put right before it is worth another try.
_CONFIGURATION_CODES = ("CONFIGURATION", "OUTBOX")


class BadData(errors.InvalidInput):
    """A file given as input (a policy, a batch) holds what it must not."""

    default_code = "BAD_DATA"


def exit_code(error: BaseException, *, changes: bool) -> int:
    """Return the exit code for a failure.

    Args:
        changes: the call changes something, so that it matters whether it arrived.
    """
    if not isinstance(error, errors.HestiaError):
        # A dependency that is missing or another package of that name, a folder that cannot be written: this machine's.
        return CONFIGURATION if isinstance(error, (ImportError, OSError)) else INTERNAL
    if isinstance(error, BadData):
        return BAD_DATA
    if error.code in _CONFIGURATION_CODES and error.status is None:
        return CONFIGURATION
    if isinstance(error, (errors.ConnectionFailed, errors.RequestTimeout)):
        return _without_answer(error, changes)
    if changes and error.status in (502, 504):
        return (
            UNKNOWN  # a gateway's word that its service did not answer: the request may have been carried out
        )
    return next((code for cls, code in _BY_CLASS if isinstance(error, cls)), INTERNAL)


def _without_answer(error: errors.HestiaError, changes: bool) -> int:
    """Judge a failed connection and a deadline by whether the request arrived and whether that matters.

    ===================  =========================  ======================================
    the request          of a call that changes     of a call that only looks
    ===================  =========================  ======================================
    never arrived        69                         69, a deadline that passed included
    may have arrived     3                          69, or 75 when the deadline passed
    its answer broke off 76: look first             69
    its answer was slow  3                          75
    ===================  =========================  ======================================
    """
    late = isinstance(error, errors.RequestTimeout)
    if error.delivered is False:
        return UNAVAILABLE
    if not changes:
        return TRY_LATER if late else UNAVAILABLE
    return BROKEN_CONTRACT if error.delivered and not late else UNKNOWN
