"""What comes out of a batch: the result that every row gets, and the facts by which a result line tells an error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Mapping, Optional

from .. import errors
from ..errors import HestiaError
from .rows import RowId

OK, BLOCKED, REFUSED, AGAIN, UNKNOWN = OUTCOMES = ("ok", "blocked", "refused", "again", "unknown")
AGENT_FAILED = "AGENT_FAILED"  # code of a failure that a good answer tells

# Exit codes that say "nothing was done, and it is not this row's fault": the service is not there, or busy; the
# credentials or a setting have to be mended first.
_LATER = (69, 75)
_ELSEWHERE = (77, 78)


@dataclass(frozen=True)
class BatchResult:
    """What became of one row.

    Attributes:
        id: the row's own; None if it has none.
        ok: the service did it and its answer is in ``response``.
        response: the answer's ``to_dict()``, or None.
        error: ``class``, ``code``, ``message``, ``status``, ``trace_id``, ``delivered`` and ``effect`` of what went wrong,
            or None. Where a good answer's content says no (BLOCK, an agent that FAILED) there is a response as well.
        attempts: how many times the request was tried; 0 when it was never sent.
        seconds: time spent in calls for this row, its repetitions included, pauses between them not.
        request_id: the ``X-Request-Id`` of the last request that failed, by which an unknown row may be looked up; else None.
    """

    id: Optional[RowId]
    ok: bool
    response: Optional[Dict[str, Any]] = None
    error: Optional[Dict[str, Any]] = None
    attempts: int = 0
    seconds: float = 0.0
    request_id: Optional[str] = None

    @property
    def outcome(self) -> str:
        """One word for what the result means to its reader.

        - ``ok``: done.
        - ``blocked``: governance refused it; nothing was executed.
        - ``refused``: the service, an agent or this library said no for good (400, 404, 422, a redirect, FAILED).
        - ``again``: it failed without effect (429, 503, never connected); it may be sent again.
        - ``unknown``: it may have been executed and there is no usable answer: none came, it broke off, it made no
          sense, or it was a 5xx other than 503, which the service may give after it has done the work.
        """
        return outcome_of(self.error)

    def to_dict(self) -> Dict[str, Any]:
        """The line of the result file: ``id``, ``ok``, ``response`` or ``error``, ``attempts``, ``seconds``, ``request_id``."""
        line: Dict[str, Any] = {"id": self.id, "ok": self.ok}
        if self.error is not None:
            line["error"] = self.error
        if self.response is not None:
            line["response"] = self.response
        line["attempts"] = self.attempts
        line["seconds"] = round(self.seconds, 3)
        if self.request_id is not None:
            line["request_id"] = self.request_id
        return line


def error_facts(error: HestiaError) -> Dict[str, Any]:
    """An error as a result line tells it."""
    return {
        "class": type(error).__name__,
        "code": error.code,
        "message": error.message,
        "status": error.status,
        "trace_id": error.trace_id,
        "delivered": error.delivered,
        "effect": error.effect,
    }


def error_of(facts: Mapping[str, Any]) -> HestiaError:
    """Make the error again that a result line tells.

    Its effect is the graver of what the line says and what its other facts say: a line of an earlier version, or of
    another program, is never read as less than it may be.
    """
    cls = getattr(errors, str(facts.get("class")), None)
    if not (isinstance(cls, type) and issubclass(cls, HestiaError)):
        cls = HestiaError
    status, delivered = facts.get("status"), facts.get("delivered")
    return cls(
        code=str(facts.get("code")),
        message=str(facts.get("message")),
        status=status if type(status) is int else None,
        delivered=delivered if isinstance(delivered, bool) else None,
        earlier_effect=facts["effect"] if facts.get("effect") in errors.EFFECTS else errors.NONE,
    )


def outcome_of(facts: Optional[Mapping[str, Any]]) -> str:
    """`BatchResult.outcome` from a result line's ``error``."""
    if facts is None:
        return OK
    error = error_of(facts if isinstance(facts, Mapping) else {})
    if error.code == AGENT_FAILED:  # its whole answer is there: nothing is in doubt
        return REFUSED
    if error.effect != errors.NONE:
        return UNKNOWN
    if isinstance(error, errors.GovernanceBlock):
        return BLOCKED
    return AGAIN if error.exit_code in _LATER + _ELSEWHERE else REFUSED


def was_rejected(error: HestiaError) -> bool:
    """True for what certainly had no effect, for a reason that passes: 429, 503, no connection."""
    return error.effect == errors.NONE and error.exit_code in _LATER and not error.is_final


def concerns_every_row(error: HestiaError) -> bool:
    """True for what no other row would fare better with: credentials, permission, a setting, a certificate."""
    return error.exit_code in _ELSEWHERE or error.is_final
