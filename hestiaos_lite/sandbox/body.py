"""Reading a JSON body, and saying everything wrong with it at once, in FastAPI's 422 form."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Sequence, Tuple, Union

from .messages import Refusal, Reply, Request, refusal


class Kind(NamedTuple):
    """What a field may hold: the test, and FastAPI's words (``msg``, ``type``) where it fails."""

    holds: Callable[[Any], bool]
    message: str
    type: str


def _is_text(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate, "\ud800": JSON can spell it, UTF-8 and SQLite cannot
        return False
    return True


TEXT = Kind(_is_text, "Input should be a valid string", "string_type")
NAME = Kind(
    lambda value: _is_text(value) and value != "",
    "String should have at least 1 character",
    "string_too_short",
)
TEXTS = Kind(
    lambda value: isinstance(value, list) and all(map(_is_text, value)),
    "Input should be a list of strings",
    "list_type",
)
OBJECT = Kind(lambda value: isinstance(value, dict), "Input should be an object", "dict_type")
FLAG = Kind(lambda value: isinstance(value, bool), "Input should be a valid boolean", "bool_type")
COUNT = Kind(
    lambda value: isinstance(value, (int, float)) and value is not True and value > 0 and value % 1 == 0,
    "Input should be greater than 0",
    "greater_than",
)

Fields = Mapping[str, Union[Kind, Dict[str, Kind]]]
Problem = Dict[str, Any]


def read(request: Request, required: Fields, optional: Fields) -> Dict[str, Any]:
    """The fields of a request's body, a JSON object; an optional one that is absent or null is None.

    A mapping in place of a kind is an object with optional fields of its own, empty when absent.

    Raises Refusal: 400 when the body is not JSON, 422 listing whatever does not hold.
    """
    values = read_object(request)
    problems: List[Problem] = []
    found = _fields(values, required, optional, ("body",), problems)
    raise_for(problems)
    return found


def read_object(request: Request, *, empty_allowed: bool = False) -> Dict[str, Any]:
    """The request's body, any JSON object; ``{}`` where an empty body is allowed. Raises as ``read``."""
    if not request.body and empty_allowed:
        return {}
    if not request.body:
        raise_for([_problem(("body",), "Field required", "missing")])
    # Nothing else is read as JSON: a page in a browser may send any other type, or none, without asking.
    kind = (request.headers.get("Content-Type") or "").partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise_for([_problem(("body",), "Content-Type must be application/json", "model_attributes_type")])
    try:
        values = request.json
    except ValueError as error:
        raise refusal(400, "INVALID_JSON", "the body is not JSON: {}".format(error)) from None
    if not isinstance(values, dict):
        raise_for([_problem(("body",), "Input should be an object", "model_attributes_type")])
    return dict(values)


def missing_headers(request: Request, names: Sequence[str]) -> None:
    """Raise a 422 that names every header of ``names`` the request lacks or leaves empty."""
    raise_for(
        [
            _problem(("header", name.lower()), "Field required", "missing")
            for name in names
            if not request.headers.get(name)
        ]
    )


def raise_for(problems: List[Problem]) -> None:
    """Raise the 422 that lists ``problems``, unless there is none."""
    if problems:
        raise Refusal(Reply(422, {"detail": problems}))


def _fields(
    values: Mapping[str, Any],
    required: Fields,
    optional: Fields,
    location: Tuple[str, ...],
    problems: List[Problem],
) -> Dict[str, Any]:
    found: Dict[str, Any] = {}
    for name, kind in {**required, **optional}.items():
        value, place = values.get(name), location + (name,)
        if isinstance(kind, dict):
            if value is not None and not isinstance(value, dict):
                problems.append(_problem(place, OBJECT.message, OBJECT.type))
                value = None
            value = _fields(value or {}, {}, kind, place, problems)
        elif name in required and name not in values:
            problems.append(_problem(place, "Field required", "missing"))
        elif (name in required or value is not None) and not kind.holds(value):
            problems.append(_problem(place, kind.message, kind.type))
        found[name] = value
    return found


def _problem(location: Tuple[str, ...], message: str, kind: str) -> Problem:
    # FastAPI adds the offending input; left out here, since it may be a secret.
    return {"loc": list(location), "msg": message, "type": kind}
