"""What goes into a batch: the fields of a row, by the call it is given to."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Callable, Dict, Mapping, NamedTuple, Union

from .._check import check_optional_mapping, check_text, check_whole_number, is_encodable
from ..errors import InvalidInput

RowId = Union[str, int]


class BatchRow(NamedTuple):
    """A row that can be sent: its id, and the call's arguments as plain JSON values."""

    id: RowId
    arguments: Dict[str, Any]


class Form(NamedTuple):
    """What one call takes: its required and optional fields, and the field that ``input`` may stand for."""

    required: Mapping[str, str]
    optional: Mapping[str, str]
    main: str


FORMS: Mapping[str, Form] = {
    "run": Form(
        {"input": "text"},
        {"session_id": "text", "agent_id": "text", "mode_hint": "text", "timeout_ms": "ms"},
        "input",
    ),
    "chat": Form({"message": "text"}, {"session_id": "text"}, "message"),
    "agent": Form({"agent_id": "text", "task": "text"}, {"config": "object"}, "task"),
}


def check_call(call: Any) -> str:
    """Return the name of a call, or raise InvalidInput."""
    if call not in FORMS:
        raise InvalidInput("call must be one of {}, not {!r}".format(", ".join(FORMS), call))
    return str(call)


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
    elif not is_encodable(str(row_id)):
        faults.append("id is not valid text")
    if form.main != "input" and "input" in values:
        if form.main in values:
            faults.append("input is short for {}, so only one of them may be given".format(form.main))
        values[form.main] = values.pop("input")
    faults.extend("{} is missing".format(name) for name in form.required if name not in values)
    for name, value in values.items():
        kind = form.required.get(name) or form.optional.get(name)
        if kind is None:
            faults.append("unknown field {}".format(json.dumps(str(name))))
            continue
        try:
            values[name] = _CHECKS[kind](name, value)
        except InvalidInput as error:
            faults.append(error.message)
    if faults:
        raise InvalidInput("; ".join(faults))
    return BatchRow(row_id, values)


def is_row_id(value: Any) -> bool:
    """True for what may be a row's id: a string that is not empty, or a whole number."""
    return isinstance(value, (str, int)) and not isinstance(value, bool) and value != ""


def id_key(row_id: RowId) -> str:
    """Spell an id so that 1 and "1" are two: its JSON."""
    return json.dumps(row_id)


def digest(call: str, row: BatchRow) -> str:
    """Sixteen hexadecimal digits that change with what is sent, to tell that a row is no longer the one that was sent."""
    content = json.dumps([call, row.arguments], sort_keys=True).encode("ascii")
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def _check_sendable_text(name: str, value: Any) -> str:
    if not is_encodable(check_text(name, value)):
        raise InvalidInput("{} is not valid text".format(name))
    return str(value)


def _check_plain_object(name: str, value: Any) -> Any:
    """Return it as plain JSON values: what crosses to a worker is plain, whatever mapping the caller has made it of."""
    try:
        text = json.dumps(check_optional_mapping(name, value), ensure_ascii=False, allow_nan=False)
        return json.loads(text.encode("utf-8").decode("utf-8"))
    except (TypeError, ValueError, RecursionError):  # also a lone surrogate
        raise InvalidInput("{} cannot be sent as JSON".format(name)) from None


def _check_milliseconds(name: str, value: Any) -> int:
    return check_whole_number(name, value, least=1, below=10**11)


_CHECKS: Mapping[str, Callable[[str, Any], Any]] = {
    "text": _check_sendable_text,
    "object": _check_plain_object,
    "ms": _check_milliseconds,
}
