"""What goes into a batch and what comes out: a row's fields, by the call it is given to, and the result each row gets."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Callable, Dict, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from .. import errors
from .._check import check_optional_mapping, check_text, check_whole_number, is_encodable, quoted
from ..errors import HestiaError, InvalidInput

RowId = Union[str, int]

OK, BLOCKED, REFUSED, AGAIN, UNKNOWN = OUTCOMES = ("ok", "blocked", "refused", "again", "unknown")
MOST_JOBS = 10000
AGENT_FAILED = "AGENT_FAILED"  # code of a failure that a good answer tells

_LEAST_UNPRINTED = 10**4300  # Python 3.11 and later neither print nor read it

# Exit codes that say "nothing was done, and it is not this row's fault": the service is not there, or busy; the
# credentials or a setting have to be corrected first.
_LATER = (69, 75)
_ELSEWHERE = (77, 78)


class BatchRow(NamedTuple):
    """A row that can be sent: its id, and the call's arguments as plain JSON values."""

    id: RowId
    arguments: Dict[str, Any]


Sending = Tuple[BatchRow, str]  # a row that is about to be sent, and the request id that it is sent under


def _check_text(name: str, value: Any) -> str:
    if not is_encodable(check_text(name, value)):
        raise InvalidInput("{} is not valid text".format(name))
    return str(value)


def check_object(name: str, value: Any) -> Any:
    """Return it as plain JSON values: what crosses to a worker is plain, whatever mapping the caller has made it of."""
    try:
        text = json.dumps(check_optional_mapping(name, value), ensure_ascii=False, allow_nan=False)
        return json.loads(text.encode("utf-8").decode("utf-8"))
    except (TypeError, ValueError, RecursionError):  # also a lone surrogate
        raise InvalidInput("{} cannot be sent as JSON".format(name)) from None


def check_ms(name: str, value: Any) -> int:
    """Return a time in milliseconds."""
    return check_whole_number(name, value, least=1, below=10**11)


class Form(NamedTuple):
    """What one call takes: its fields with their checks, which are required, and the one that ``input`` may stand for."""

    checks: Mapping[str, Callable[[str, Any], Any]]
    required: Sequence[str]
    main: str


# fmt: off
FORMS: Mapping[str, Form] = {
    "run": Form({"input": _check_text, "session_id": _check_text, "agent_id": _check_text, "mode_hint": _check_text,
                 "timeout_ms": check_ms}, ["input"], "input"),
    "chat": Form({"message": _check_text, "session_id": _check_text}, ["message"], "message"),
    "agent": Form({"agent_id": _check_text, "task": _check_text, "config": check_object}, ["agent_id", "task"], "task"),
}
# fmt: on


def check_row(row: Any, call: str) -> BatchRow:
    """Check one row against its call.

    ``input`` may replace ``message`` and ``task``, so that one file serves every call. A field that is null counts as
    not given.

    Raises:
        InvalidInput: what is wrong, all of it in one sentence.
    """
    if not isinstance(row, Mapping):
        raise InvalidInput("a row must be an object, not {}".format(type(row).__name__))
    form = FORMS[call]
    faults = []
    values = {name: value for name, value in row.items() if value is not None}
    row_id = values.pop("id", None)
    if row_id is None:
        faults.append("id is missing")
    elif not is_row_id(row_id):
        faults.append("id must be a string that is not empty, or a whole number")
    elif isinstance(row_id, str) and not is_encodable(row_id):
        faults.append("id is not valid text")
    if form.main != "input" and "input" in values:
        if form.main in values:
            faults.append("input is short for {}, so only one of them may be given".format(form.main))
        values[form.main] = values.pop("input")
    faults.extend("{} is missing".format(name) for name in form.required if name not in values)
    for name, value in values.items():
        if name not in form.checks:
            faults.append(
                "unknown field {}".format(json.dumps(name if isinstance(name, str) else quoted(name)))
            )
            continue
        try:
            values[name] = form.checks[name](name, value)
        except InvalidInput as error:
            faults.append(error.message)
    if faults:
        raise InvalidInput("; ".join(faults))
    return BatchRow(row_id, values)


def is_row_id(value: Any) -> bool:
    """True for what may be a row's id: a string that is not empty, or a whole number (of no more digits than print)."""
    is_long = isinstance(value, int) and abs(value) >= _LEAST_UNPRINTED
    return isinstance(value, (str, int)) and not isinstance(value, bool) and value != "" and not is_long


def id_key(row_id: RowId) -> str:
    """Spell an id so that 1 and "1" are two: its JSON."""
    return json.dumps(row_id)


def digest(call: str, row: BatchRow) -> str:
    """Sixteen hexadecimal digits that change with what is sent, to tell that a row is no longer the one that was sent."""
    content = json.dumps([call, row.arguments], sort_keys=True).encode("ascii")
    return hashlib.blake2b(content, digest_size=8).hexdigest()


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
        request_id: the ``X-Request-Id`` of the last request that failed, or whose answer was lost, by which an unknown row
            may be looked up in the service's log; else None.
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
        facts = dict(vars(self), seconds=round(self.seconds, 3))
        names = ("id", "ok", "error", "response", "attempts", "seconds", "request_id")
        return {name: facts[name] for name in names if name == "id" or facts[name] is not None}


class Report(NamedTuple):
    """What became of one sending; both response and error where a good answer's content says no."""

    response: Optional[Dict[str, Any]]
    error: Optional[HestiaError]
    attempts: int
    seconds: float


def error_facts(error: HestiaError) -> Dict[str, Any]:
    """An error as a result line tells it."""
    names = ("code", "message", "status", "trace_id", "delivered", "effect")
    return dict({"class": type(error).__name__}, **{name: getattr(error, name) for name in names})


def outcome_of(facts: Optional[Mapping[str, Any]]) -> str:
    """`BatchResult.outcome` from a result line's ``error``, which is what `error_facts` gives."""
    if facts is None:
        return OK
    error: HestiaError = getattr(errors, facts["class"], HestiaError)(
        code=facts["code"],
        message=facts["message"],
        status=facts["status"],
        delivered=facts["delivered"],
        earlier_effect=facts["effect"],
    )
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
