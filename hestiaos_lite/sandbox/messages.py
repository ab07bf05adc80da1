"""A request in, a reply out: reading a JSON body in FastAPI's way, and the table from method and path to a handler."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from email.message import Message
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union
from urllib.parse import unquote

Events = Iterator[Mapping[str, Any]]


@dataclass
class Request:
    """One received request.

    Attributes:
        method: as sent, for example ``"POST"``.
        path: the raw path, still percent-encoded, without the query: ``"/api/secrets/team%2Fadmin"``.
        query: the raw query after ``?``, or ``""``.
        headers: looked up as in a dict, in any case; an absent one is None.
        body: the bytes of the body.
    """

    method: str
    path: str
    query: str = ""
    headers: Message = field(default_factory=Message)
    body: bytes = b""

    @property
    def json(self) -> Any:
        """The body decoded as JSON. Raises ValueError when it is not (NaN and Infinity are not JSON)."""
        try:
            return json.loads(self.body.decode("utf-8"), parse_constant=_no_constant)
        except RecursionError:
            raise ValueError("nested too deep") from None


class Reply:
    """One answer.

    Args:
        status: HTTP status.
        payload: bytes are sent as they are, text too (as HTML where it begins with ``<``), anything else as JSON.
        headers: further header fields.
        events: objects to send as Server-Sent Events in place of a payload, each as soon as it is yielded.
    """

    def __init__(
        self,
        status: int = 200,
        payload: Any = None,
        headers: Optional[Mapping[str, str]] = None,
        events: Optional[Events] = None,
    ) -> None:
        kind = "application/json" if events is None else "text/event-stream; charset=utf-8"
        if isinstance(payload, str):
            kind = "text/{}; charset=utf-8".format("html" if payload.lstrip().startswith("<") else "plain")
            payload = payload.encode("utf-8")
        self.status = status
        self.headers = {"Content-Type": kind, **(headers or {})}
        self.body = bytes(payload) if isinstance(payload, (bytes, bytearray)) else encode(payload)
        self.events = events


class Refusal(Exception):
    """A handler answers with an error in FastAPI's form; an object's facts are both under ``detail`` and flat."""

    def __init__(self, status: int, detail: Any, headers: Optional[Mapping[str, str]] = None) -> None:
        super().__init__(status)
        facts = detail if isinstance(detail, dict) else {}
        self.reply = Reply(status, dict(facts, detail=detail), headers)


class Drop(Exception):
    """Close the connection and send nothing more: a scripted fault, or the sandbox is stopping."""


def refusal(http_status: int, code: str, message: str, **facts: Any) -> Refusal:
    """An error of the service's own."""
    return Refusal(http_status, dict(facts, code=code, message=message))


def encode(value: Any) -> bytes:
    """JSON as the services write it: compact, UTF-8, nothing escaped that need not be."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8")


def _no_constant(name: str) -> Any:
    raise ValueError("{} is not JSON".format(name))


# -- the body: everything that is wrong with it said at once, in FastAPI's 422 form


class Kind(NamedTuple):
    """What a field may hold: the test, and FastAPI's words (``msg``, ``type``) where it fails."""

    holds: Callable[[Any], bool]
    message: str
    type: str


def _is_text(value: Any) -> bool:
    # A lone surrogate, "\ud800": JSON can spell it, UTF-8 and SQLite cannot. The client's own check (_check.is_encodable) is
    # not used, as nothing of the client is, so that the sandbox cannot share a fault with it.
    return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)


def _is_count(value: Any) -> bool:
    return isinstance(value, (int, float)) and value is not True and value > 0 and value % 1 == 0


# fmt: off
TEXT = Kind(_is_text, "Input should be a valid string", "string_type")
NAME = Kind(lambda value: _is_text(value) and value != "", "String should have at least 1 character", "string_too_short")
TEXTS = Kind(lambda value: isinstance(value, list) and all(map(_is_text, value)), "Input should be a list of strings", "list_type")
OBJECT = Kind(lambda value: isinstance(value, dict), "Input should be an object", "dict_type")
FLAG = Kind(lambda value: isinstance(value, bool), "Input should be a valid boolean", "bool_type")
COUNT = Kind(_is_count, "Input should be greater than 0", "greater_than")
# fmt: on

Shape = Mapping[str, Any]
"""An object's fields by name, each a Kind or a Shape of its own; one that may be absent or null ends in ``?``."""


def read(request: Request, shape: Shape) -> Dict[str, Any]:
    """The fields of a request's body, a JSON object; what is absent is None, or an object of None.

    Raises Refusal: 400 when the body is not JSON, 422 listing whatever does not hold.
    """
    problems: List[Dict[str, Any]] = []
    found = _fields(read_object(request), shape, ("body",), problems)
    if problems:
        raise Refusal(422, problems)
    return found


def read_object(request: Request, *, empty_allowed: bool = False) -> Dict[str, Any]:
    """The request's body, any JSON object; ``{}`` where an empty body is allowed. Raises as ``read``."""
    if not request.body:
        if empty_allowed:
            return {}
        raise Refusal(422, [_problem(("body",), "Field required", "missing")])
    # Nothing else is read as JSON: a page in a browser may send any other type, or none, without asking.
    content_type = (request.headers.get("Content-Type") or "").partition(";")[0].strip()
    if not re.fullmatch(r"application/(.*\+)?json", content_type, re.IGNORECASE):
        message = "Content-Type must be application/json"
        raise Refusal(422, [_problem(("body",), message, "model_attributes_type")])
    try:
        values = request.json
    except ValueError as error:
        raise refusal(400, "INVALID_JSON", "the body is not JSON: {}".format(error)) from None
    if not isinstance(values, dict):
        raise Refusal(422, [_problem(("body",), OBJECT.message, "model_attributes_type")])
    return values


def need_headers(request: Request, names: Sequence[str]) -> None:
    """Raise a 422 that names every header of ``names`` the request lacks or leaves empty."""
    lacking = [name.lower() for name in names if not request.headers.get(name)]
    if lacking:
        raise Refusal(422, [_problem(("header", name), "Field required", "missing") for name in lacking])


def _fields(
    values: Mapping[str, Any], shape: Shape, location: Tuple[str, ...], problems: List[Dict[str, Any]]
) -> Dict[str, Any]:
    found: Dict[str, Any] = {}
    for spelled, inner in shape.items():
        name = spelled.rstrip("?")
        value, place = values.get(name), location + (name,)
        kind = inner if isinstance(inner, Kind) else OBJECT
        if name not in values and spelled == name:
            problems.append(_problem(place, "Field required", "missing"))
        elif not kind.holds(value) and (spelled == name or value is not None):
            problems.append(_problem(place, kind.message, kind.type))
        if kind is not inner:
            value = _fields(value if isinstance(value, dict) else {}, inner, place, problems)
        found[name] = value
    return found


def _problem(location: Tuple[str, ...], message: str, kind: str) -> Dict[str, Any]:
    # FastAPI adds the offending input; left out here, since it may be a secret.
    return {"loc": list(location), "msg": message, "type": kind}


# -- the way to a handler

Handler = Callable[..., Union[Reply, Dict[str, Any]]]
Routes = Dict[str, Dict[str, Handler]]
"""By path (``"/api/v1/trace/{trace_id}"``: a ``{name}`` is one segment) and method; a dict is a 200 of this JSON."""


def dispatch(routes: Routes, request: Request) -> Reply:
    """Let the request's handler answer; it gets the request, and the decoded segments as keywords.

    Raises Refusal: 404 unknown path, 405 wrong method, or the handler's own.
    """
    sent = request.path.split("/")
    for path, handlers in routes.items():
        names = path.split("/")
        raw = {name: part for name, part in zip(names, sent) if part and name.startswith("{")}
        if [raw.get(name, name) for name in names] != sent:
            continue
        if request.method not in handlers:
            raise Refusal(405, "Method Not Allowed", {"Allow": ", ".join(sorted(handlers))})
        try:  # decoded after they were told apart: "team%2F..%2Fadmin" is one segment, ".." a name like any other
            segments = {name[1:-1]: unquote(part, errors="strict") for name, part in raw.items()}
        except UnicodeDecodeError:
            raise Refusal(400, "the path is not UTF-8") from None
        answer = handlers[request.method](request, **segments)
        return answer if isinstance(answer, Reply) else Reply(200, answer)
    raise Refusal(404, "Not Found")
