"""What goes into a batch and what comes out: the fields of a row, and the result that every row gets."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Callable, Dict, Mapping, NamedTuple, Optional, Tuple, Union

from ..errors import InvalidInput

RowId = Union[str, int]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_milliseconds(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**11


_KINDS: Mapping[str, Tuple[Callable[[Any], bool], str]] = {
    "text": (_is_text, "a string"),
    "object": (_is_mapping, "an object"),
    "ms": (_is_milliseconds, "a whole number of milliseconds above 0"),
}


class _Form(NamedTuple):
    """What one call takes: its required and optional fields, and the field that ``input`` may stand for."""

    required: Mapping[str, str]
    optional: Mapping[str, str]
    main: str


FORMS: Mapping[str, _Form] = {
    "run": _Form(
        {"input": "text"},
        {"session_id": "text", "agent_id": "text", "mode_hint": "text", "timeout_ms": "ms"},
        "input",
    ),
    "chat": _Form({"message": "text"}, {"session_id": "text"}, "message"),
    "agent": _Form({"agent_id": "text", "task": "text"}, {"config": "object"}, "task"),
}


class Row(NamedTuple):
    """A row that can be sent: its id, and the call's arguments as plain JSON values."""

    id: RowId
    arguments: Dict[str, Any]


AGENT_FAILED = "AGENT_FAILED"  # code of an agent's own failure, told in a good answer
OK, BLOCKED, REFUSED, AGAIN, UNKNOWN = OUTCOMES = ("ok", "blocked", "refused", "again", "unknown")


@dataclass(frozen=True)
class BatchResult:
    """What became of one row.

    Attributes:
        id: the row's own; None where it had none.
        ok: the service did it and its answer is in ``response``.
        response: the answer's ``to_dict()``, or None.
        error: ``class``, ``code``, ``message``, ``status``, ``trace_id`` and ``delivered`` of what went wrong, or None.
            Where a good answer's content says no (a decision BLOCK, an agent that FAILED) there is a response as well.
        attempts: how many times the request was tried; 0 when it was never sent.
        seconds: time spent in calls for this row, its repetitions included, pauses between them not.
    """

    id: Optional[RowId]
    ok: bool
    response: Optional[Dict[str, Any]] = None
    error: Optional[Dict[str, Any]] = None
    attempts: int = 0
    seconds: float = 0.0

    @property
    def outcome(self) -> str:
        """One word for what it means to whoever reads the result.

        - ``ok``: done.
        - ``blocked``: governance refused it; nothing was executed.
        - ``refused``: the service, an agent or this library said no for good (400, 404, 422, a redirect, FAILED).
        - ``again``: it failed without effect (429, 5xx of the service itself, never connected); it may be sent again.
        - ``unknown``: it may have been executed and there is no answer to show for it: none came, it broke off, it made no
          sense, or a gateway spoke in the service's place (502, 504).
        """
        return outcome_of(self.error)

    def to_dict(self) -> Dict[str, Any]:
        """The line of the result file: ``id``, ``ok``, ``response`` or ``error``, ``attempts``, ``seconds``."""
        line: Dict[str, Any] = {"id": self.id, "ok": self.ok}
        if self.error is not None:
            line["error"] = self.error
        if self.response is not None:
            line["response"] = self.response
        line["attempts"] = self.attempts
        line["seconds"] = round(self.seconds, 3)
        return line


def outcome_of(error: Optional[Mapping[str, Any]]) -> str:
    """`BatchResult.outcome` from a result line's ``error``."""
    if error is None:
        return OK
    status, delivered = error.get("status"), error.get("delivered")
    if error.get("class") == "GovernanceBlock":
        return BLOCKED
    if error.get("code") == AGENT_FAILED:
        return REFUSED
    if delivered is False:
        return REFUSED if error.get("class") == "InvalidInput" else AGAIN
    if delivered is None or status is None:
        return UNKNOWN
    if status < 300 or status in (502, 504):
        return UNKNOWN
    return AGAIN if status >= 500 or status in (401, 403, 429) else REFUSED


def check_call(call: Any) -> str:
    """Return the name of a call, or raise InvalidInput."""
    if call not in FORMS:
        raise InvalidInput("call must be one of {}, not {!r}".format(", ".join(FORMS), call))
    return str(call)


def check_row(row: Any, call: str) -> Row:
    """Check one row against its call.

    ``input`` may stand for ``message`` and ``task``, so that one file serves every call. A field that is null counts as
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
    elif isinstance(row_id, bool) or not isinstance(row_id, (str, int)) or row_id == "":
        faults.append("id must be a string that is not empty, or a whole number")
    elif not _is_encodable(row_id):
        faults.append("id is not valid text")
    if form.main != "input" and "input" in values:
        if form.main in values:
            faults.append("input stands for {}, so only one of them may be given".format(form.main))
        values[form.main] = values.pop("input")
    for name in form.required:
        if name not in values:
            faults.append("{} is missing".format(name))
    for name, value in values.items():
        kind = form.required.get(name) or form.optional.get(name)
        if kind is None:
            faults.append("unknown field {}".format(json.dumps(str(name))))
            continue
        fits, wanted = _KINDS[kind]
        if not fits(value):
            faults.append("{} must be {}".format(name, wanted))
        elif kind == "text" and not _is_encodable(value):
            faults.append("{} is not valid text".format(name))
        elif kind == "object":
            try:
                # what crosses to a worker is plain, whatever mapping the caller has made it of
                values[name] = json.loads(json.dumps(dict(value), allow_nan=False))
            except (TypeError, ValueError, RecursionError):
                faults.append("{} cannot be sent as JSON".format(name))
    if faults or row_id is None:
        raise InvalidInput("; ".join(faults))
    return Row(row_id, values)


def id_key(row_id: RowId) -> str:
    """Spell an id so that 1 and "1" stay two: its JSON."""
    return json.dumps(row_id)


def digest(call: str, row: Row) -> str:
    """Sixteen hexadecimal digits that change with what is sent, to tell that a row is no longer the one that was sent."""
    content = json.dumps([call, row.arguments], sort_keys=True).encode("ascii")
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def _is_encodable(value: Union[str, int]) -> bool:
    """False for a lone surrogate, which JSON can spell and UTF-8 cannot."""
    try:
        str(value).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
