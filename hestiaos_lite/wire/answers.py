"""What an answer means: a value for a good one, an error for any other; the only reader of statuses and error bodies."""

from __future__ import annotations

import json
import re
from typing import Any, Callable, List, Mapping, NamedTuple, Optional, Tuple, Type, TypeVar

import requests

from .. import errors
from .._redact import bare_url, one_line, without
from .body import UnusableBody, read_body
from .call import Call
from .failures import CONNECTION_ERRORS, advice_on_proxy
from .retry import parse_retry_after
from .sockets import Attempt

_T = TypeVar("_T")
Receive = Callable[[Call, requests.Response, Attempt], _T]

_ERROR_BODY_BYTES = 1024 * 1024  # of an error's body no more is read

_BY_STATUS: Mapping[int, Type[errors.HestiaError]] = {
    400: errors.InvalidInput,
    401: errors.AuthenticationError,
    403: errors.PermissionDenied,
    404: errors.NotFound,
    407: errors.AuthenticationError,
    409: errors.Conflict,
    422: errors.InvalidInput,
    429: errors.RateLimited,
}

# A 403 on a call that runs something is governance speaking, unless its own code says that it is the key which may not.
_PERMISSION_CODES = ("FORBIDDEN", "INSUFFICIENT_PERMISSIONS", "INSUFFICIENT_SCOPE", "PERMISSION_DENIED")


class Answer(NamedTuple):
    """An answer whose status matters.

    Attributes:
        body: decoded, or None where there was none.
        attempts: how often it was sent, this answer's attempt included.
        earlier_effect: the gravest effect of the attempts before this one: not ``none`` where an answer was lost.
    """

    status: int
    body: Any
    attempts: int
    earlier_effect: str = errors.NONE


# What a call makes of a good answer: one of these is handed to `Transport.request`.


def as_json(decode: Callable[[Any], _T]) -> Receive[_T]:
    """Return ``decode`` of the answer's JSON."""

    def receive(call: Call, response: requests.Response, attempt: Attempt) -> _T:
        return decoded(call, response, _whole_body(call, response, attempt), decode)

    return receive


def as_answer(call: Call, response: requests.Response, attempt: Attempt) -> Answer:
    """Return status and body, of a 2xx (which may have no body) or of a status that ``call.accept`` names (any body)."""
    status = response.status_code
    if status in call.accept:
        return Answer(status, refusal_body(response, attempt), call.attempts, call.earlier_effect)
    body = _whole_body(call, response, attempt)
    value = decoded(call, response, body, lambda value: value) if body else None
    return Answer(status, value, call.attempts, call.earlier_effect)


def as_nothing(call: Call, response: requests.Response, attempt: Attempt) -> None:
    """Take any 2xx; its body is not read."""


def _whole_body(call: Call, response: requests.Response, attempt: Attempt) -> bytearray:
    """Read the body of a good answer."""
    body = read_body(response, attempt.before_read, call.max_body_bytes)
    # the deadline covers decoding: none is begun after it
    attempt.wait_seconds()
    return body


def decoded(call: Call, response: requests.Response, body: bytearray, decode: Callable[[Any], _T]) -> _T:
    """Parse and decode the body of a good answer."""
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise invalid(call, response, "is not UTF-8", bytes(body[:1000])) from error
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise invalid(call, response, _not_json(text), text) from error
    try:
        return decode(value)
    except errors.HestiaError as error:
        # models know no secrets, and may quote what the service wrote
        message = one_line(error.message, call.secrets)
        trace_id = error.trace_id and without(error.trace_id, call.secrets)
        error.args = (message,)
        error.with_facts(
            **call.facts(status=response.status_code, delivered=True, message=message, trace_id=trace_id)
        )
        raise


# The errors of answers that are not good ones.


def refused(call: Call, response: requests.Response, attempt: Attempt) -> errors.HestiaError:
    """Make the error of an answer that is no 2xx."""
    body = refusal_body(response, attempt)
    if response.status_code < 400:
        return invalid(call, response, "is a {}".format(response.status_code), body)
    error = from_answer(
        response.status_code,
        body,
        governed=call.governed,
        secrets=call.secrets,
        **call.facts(retry_after=parse_retry_after(response.headers.get("Retry-After"))),
    )
    if response.status_code == 407:
        error.with_facts(advice=advice_on_proxy(call, attempt))
    elif isinstance(error, errors.NotFound) and error.at_fault == errors.CALLER:
        error.with_facts(advice="check the name, and that {} is the service".format(bare_url(call.base_url)))
    return error


def redirected(call: Call, status: int, target: str) -> errors.InvalidResponse:
    """Make the error of a redirect, which is never followed: it could lead the key to another host."""
    return errors.InvalidResponse(
        "the service redirects to {}, and a redirect is never followed; set the base URL to where it is".format(
            one_line(target, call.secrets)
        ),
        **call.facts(status=status, delivered=True),
    )


def invalid(call: Call, response: requests.Response, fault: str, body: Any) -> errors.InvalidResponse:
    """Make the error of an answer that was read and does not fit the contract."""
    return errors.InvalidResponse(
        "the answer to {} {} {}".format(call.method, call.path, one_line(fault, call.secrets)),
        **call.facts(status=response.status_code, details=body, delivered=True),
    )


def refusal_body(response: requests.Response, attempt: Attempt) -> Any:
    """Return an error's body as JSON, else as text, else None: an unreadable body must not hide what the head says."""
    try:
        text = bytes(read_body(response, attempt.before_read, _ERROR_BODY_BYTES)).decode("utf-8", "replace")
    except (UnusableBody,) + CONNECTION_ERRORS:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text or None


def from_answer(
    status: int, body: Any, *, governed: bool = False, secrets: Tuple[str, ...] = (), **facts: Any
) -> errors.HestiaError:
    """Map a refusal to its error.

    Args:
        status: the HTTP status, 400 or above.
        body: the decoded JSON body, or its text, or None when it was empty or unreadable.
        governed: the call runs something, so that a 403 is governance speaking, except with a code that speaks of
            permission.
        secrets: what the message must not show, though the service echoes it; ``details`` keeps the body as it came.
        facts: request_id, attempts, retry_after: what the body cannot know.

    Error bodies come flat, nested under ``detail``, as a list of field errors, as text, as HTML or empty
    (docs/contract.md); whatever comes, an error of the right class is returned.
    """
    code, message, trace_id = _read_body(body)
    code, message = one_line(code or "", secrets), one_line(message, secrets)
    facts.update(
        status=status, details=body, delivered=True, trace_id=trace_id and without(trace_id, secrets)
    )
    if code:
        facts["code"] = code
    if status == 403 and governed and code.upper() not in _PERMISSION_CODES:
        return errors.GovernanceBlock(message=message, **facts)
    message = message or "the service answered {}".format(status)
    if status == 407:  # a proxy's answer: the service was not reached
        facts["delivered"] = False
    cls = errors.ServerError if status >= 500 else _BY_STATUS.get(status, errors.InvalidInput)
    return cls(message=message, **facts)


def _read_body(body: Any) -> Tuple[Optional[str], str, Optional[str]]:
    """Find code, message and trace id in an error body, wherever it keeps them; the outer level wins."""
    levels: List[Mapping[str, Any]] = []
    level = body
    while isinstance(level, Mapping) and len(levels) < 3:
        levels.append(level)
        level = level.get("error") if level.get("detail") is None else level["detail"]

    def first(*names: str) -> Optional[str]:
        for mapping in levels:
            for name in names:
                value = mapping.get(name)
                if isinstance(value, str) and value.strip():
                    return value
        return None

    code = first("code")
    error = first("error")
    if code is None and error is not None and error.replace("_", "").isalnum() and error.isupper():
        code, error = error, None
    message = first("message", "reason") or error
    if not message and isinstance(level, str):
        message = _title(level) if level.lstrip()[:1] == "<" else level
    if not message and isinstance(level, list):
        message = "; ".join(_field_error(item) for item in level[:5])
    return code, message or "", first("trace_id")


def _not_json(text: str) -> str:
    """Say what a body is instead of JSON; a page is often a login or a gateway's, and its title says whose."""
    if not text.strip():
        return "is empty"
    title = _title(text).strip() if text.lstrip()[:1] == "<" else ""
    return "is not JSON but the page {!r}".format(title) if title else "is not JSON"


def _field_error(item: Any) -> str:
    """Render one entry of FastAPI's 422 list, ``{"loc": ["body", "input"], "msg": "field required"}``."""
    if not isinstance(item, Mapping):
        return _shown(item)
    location = item.get("loc")
    path = ".".join(_shown(part) for part in location[:20]) if isinstance(location, list) else ""
    message = _shown(item.get("msg", "invalid"))
    return "{}: {}".format(path, message) if path else message


def _shown(value: Any) -> str:
    """Render a string or number; a container may be nested deeper than ``str`` can go."""
    return "..." if isinstance(value, (Mapping, list)) else str(value)


def _title(page: str) -> str:
    """Return the title of a gateway's HTML page: of all the page it alone says what the matter is."""
    match = re.search(r"<title[^>]*>([^<]*)", page[:10000], re.IGNORECASE)
    import html  # here: its table of names is as slow to load as all errors

    return html.unescape(match.group(1)) if match else ""
