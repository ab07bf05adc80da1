"""What an answer means: a value for a good one, an error for any other; the only reader of statuses and error bodies."""

from __future__ import annotations

import re
from typing import Any, Callable, Iterator, List, Mapping, Optional, Tuple, TypeVar

from .. import errors
from .._json import NamedTwice, loads
from .._redact import Secrets, bare_url, one_line
from ..deadline import SilenceLimit
from .body import UnusableBody, iter_body, read_into
from .call import Call, parse_retry_after
from .failures import CONNECTION_ERRORS, FAILURES, advice_on_proxy, map_exception, proxy_of
from .sockets import Attempt

_T = TypeVar("_T")
Receive = Callable[[Call, Attempt], _T]

_ERROR_BODY_BYTES = 1024 * 1024  # of an error's body no more is read

# By these the service decides something. They mean it only with a JSON body or none: else a gateway said no.
_DECIDING = (403, 404, 409)
# These mean the same from the service or a gateway: credentials, a busy moment, a request that is too large to pass.
_ANYONES = (401, 407, 408, 413, 414, 415, 425, 429, 431)

# A 403 on a call that runs something is governance speaking, unless its own code says that it is the key which may not.
_PERMISSION_CODES = ("FORBIDDEN", "INSUFFICIENT_PERMISSIONS", "INSUFFICIENT_SCOPE", "PERMISSION_DENIED")


class Answer:
    """An answer whose status matters.

    Attributes:
        body: decoded, or None where there was none.
        attempts: how often it was sent, this answer's attempt included.
        earlier_effect: the most serious effect of the attempts before this one: not ``none`` where an answer was lost.
    """

    def __init__(self, status: int, body: Any, call: Call) -> None:
        self.status = status
        self.body = body
        self.attempts = call.attempts
        self.earlier_effect = call.earlier_effect

    def __repr__(self) -> str:
        return "<Answer {}>".format(self.status)  # what the service wrote may echo a key


# What a call makes of a good answer: one of these is handed to `Caller`.


def as_json(decode: Callable[[Any], _T], call: Call, attempt: Attempt) -> _T:
    """Return ``decode`` of the answer's JSON."""
    return _decoded(decode, _whole_body(call, attempt), call, attempt)


def as_answer(call: Call, attempt: Attempt) -> Answer:
    """Return status and body, of a 2xx or of a status that ``call.accept`` names; there may be no body, but no page."""
    status = attempt.response.status_code
    if status in call.accept:
        refusal = _read_refusal(attempt)
        if refusal.is_gateways(status):
            raise refused(call, attempt, refusal)
        if refusal.fault:
            raise _invalid(call, attempt, refusal.fault, refusal.body)
        return Answer(status, refusal.body, call)
    body = _whole_body(call, attempt)
    return Answer(status, _decoded(lambda value: value, body, call, attempt) if body.strip() else None, call)


def _whole_body(call: Call, attempt: Attempt) -> bytearray:
    """Read the body of a good answer."""
    body = bytearray()
    if not read_into(body, attempt.response, attempt.wait_seconds, call.max_body_bytes):
        raise UnusableBody("the answer is larger than {} bytes (max_body_bytes)".format(call.max_body_bytes))
    # the deadline covers decoding: none is begun after it
    attempt.wait_seconds()
    return body


def _decoded(decode: Callable[[Any], _T], body: bytearray, call: Call, attempt: Attempt) -> _T:
    """Parse and decode the body of a good answer."""
    text: Any = bytes(body[:1000])
    try:
        text = body.decode("utf-8")
        # a byte order mark (RFC 8259, 8.1); the codec for it is a module more to load
        if text[:1] == "\ufeff":
            text = text[1:]
        value = loads(text)
    except (ValueError, RecursionError) as error:
        fault = _not_json(text, call.secrets)
        if isinstance(error, NamedTwice):
            fault = "is ambiguous: {}".format(error)
        raise _invalid(call, attempt, fault, text) from error.with_traceback(None)
    try:
        return decode(value)
    except errors.HestiaError as error:
        # models know no secrets, and may quote what the service wrote
        message = one_line(error.message, call.secrets)
        trace_id = error.trace_id and call.secrets.mask(error.trace_id)
        error.args = (message,)
        status = attempt.response.status_code
        error.with_facts(**call.facts(status=status, delivered=True, message=message, trace_id=trace_id))
        raise


class ByteStream:
    """The body of an open stream: iterate for its bytes as they arrive; every failure is one of our errors.

    Attributes:
        cancelled: whoever reads it is to stop.
        trace_id: the service's, noted by whoever reads it.
    """

    cancelled = False
    trace_id: Optional[str] = None

    def __init__(self, call: Call, attempt: Attempt) -> None:
        self._attempt = attempt
        self.call = call
        self.status = attempt.response.status_code

    def __iter__(self) -> Iterator[bytes]:
        limit = self._attempt.limit
        # a limit on silence is kept by each read of the socket, and cannot pass between two
        before_read = limit.remaining if isinstance(limit, SilenceLimit) else self._attempt.wait_seconds
        try:
            yield from iter_body(self._attempt.response, before_read)
        except FAILURES as error:
            raise map_exception(error, self.call, self._attempt) from error

    def cancel(self) -> None:
        """End it from another thread, which may be blocked in a read."""
        self.cancelled = True
        self._attempt.wake()

    def close(self) -> None:
        """Close the connection; it is never used again, so that a late `cancel` cannot strike another request."""
        self._attempt.close()

    def __del__(self) -> None:
        # of a stream that was never iterated, there is no generator to close it
        self.close()


def as_stream(silence_seconds: Optional[float], call: Call, attempt: Attempt) -> ByteStream:
    """Return the answer's body as it arrives.

    From the answer's head on, ``silence_seconds`` bounds the wait for each byte; None leaves the call's deadline in force
    until the last byte.
    """
    said = attempt.response.headers.get("Content-Type") or ""
    # two lines that agree are one
    content_types = {one.partition(";")[0].strip() for one in said.lower().split(",")}
    if content_types not in ({""}, {"text/event-stream"}):
        body = _read_refusal(attempt).body
        fault = "is {}, not an event stream".format(one_line(said, call.secrets, 80))
        raise _invalid(call, attempt, fault, body).with_facts(trace_id=_read_body(body, call.secrets)[2])
    if silence_seconds is not None:
        attempt.limit = SilenceLimit(silence_seconds)
    return ByteStream(call, attempt)


# The errors of answers that are not good ones.


def refused(call: Call, attempt: Attempt, refusal: Optional[Refusal] = None) -> errors.HestiaError:
    """Make the error of an answer that is no 2xx; its body is read unless it was.

    Error bodies come flat, nested under ``detail``, as a list of field errors, as text, as HTML or empty
    (docs/contract.md); whatever comes, an error of the right class is returned.
    """
    refusal = refusal or _read_refusal(attempt)
    status = attempt.response.status_code
    if status < 400:
        return _invalid(call, attempt, "is a {}".format(status), refusal.body)
    code, message, trace_id = _read_body(refusal.body, call.secrets)
    facts = call.facts(status=status, details=refusal.body, delivered=True, trace_id=trace_id)
    facts["retry_after"] = parse_retry_after(attempt.response.headers.get("Retry-After"))
    it_is_the_service = "that {} is the service".format(bare_url(call.base_url))
    if code:
        facts["code"] = code
    if refusal.is_gateways(status):
        facts.setdefault("code", "GATEWAY")
        facts["advice"] = (
            "a gateway answered, not the service: try again later, or check " + it_is_the_service
        )
        return errors.ServerError(message or "a gateway answered {}".format(status), **facts)
    if status == 403 and call.governed and code.upper() not in _PERMISSION_CODES:
        return errors.GovernanceBlock(message=message, **facts)
    if status == 407:
        # where no proxy reads the request, the service itself or what stands for it has said so
        facts["delivered"] = call.base_url.startswith("https:") or not proxy_of(call, attempt)
        facts["advice"] = advice_on_proxy(call, attempt)
    elif status == 511:  # a network's own answer: the service was not reached
        facts["delivered"] = False
    cls = errors.class_of(status)
    if cls is errors.HestiaError:
        facts.setdefault("code", "REFUSED")
    error = cls(message=message or "the service answered {}".format(status), **facts)
    if isinstance(error, errors.NotFound) and error.at_fault == errors.CALLER:
        error.with_facts(advice="check the name, and " + it_is_the_service)
    return error


def _invalid(call: Call, attempt: Attempt, fault: str, body: Any) -> errors.InvalidResponse:
    """Make the error of an answer that was read and does not fit the contract."""
    return errors.InvalidResponse(
        "the answer to {} {} {}".format(call.method, call.path, one_line(fault, call.secrets)),
        **call.facts(status=attempt.response.status_code, details=body, delivered=True),
    )


class Refusal:
    """The body of an answer that is no 2xx, as far as it could be read.

    Attributes:
        body: decoded JSON, else text, else None.
        is_json: JSON was sent, or nothing.
        fault: why it cannot be trusted though it is JSON, or "".
    """

    # no named tuple: to make such a class costs every start a five-hundredth
    def __init__(self, body: Any, is_json: bool, fault: str = "") -> None:
        self.body, self.is_json, self.fault = body, is_json, fault

    def is_gateways(self, status: int) -> bool:
        """True where a gateway answered in the service's place: of a 4xx its page decides nothing."""
        if self.is_json or not 400 <= status < 500 or status in _ANYONES:
            return False
        return status in _DECIDING or isinstance(self.body, str) and self.body.lstrip()[:1] == "<"


def _read_refusal(attempt: Attempt) -> Refusal:
    """Read an error's body; what cannot be read, or not to its end, must not hide what the head says."""
    raw = bytearray()
    try:
        is_whole = read_into(raw, attempt.response, attempt.wait_seconds, _ERROR_BODY_BYTES)
    except (UnusableBody,) + CONNECTION_ERRORS:
        is_whole = False
    if is_whole and not raw:
        return Refusal(None, True)
    text = bytes(raw[:_ERROR_BODY_BYTES]).decode("utf-8", "replace")
    try:
        return Refusal(loads(text), True)
    except NamedTwice as error:
        return Refusal(text, True, "is ambiguous: {}".format(error))
    except (ValueError, RecursionError):
        if is_whole or text.lstrip()[:1] == "<":
            return Refusal(text, False)
    # nothing can be made of the piece that came; its head says whether it was JSON
    return Refusal(None, "json" in (attempt.response.headers.get("Content-Type") or "").lower())


def _read_body(body: Any, secrets: Secrets) -> Tuple[str, str, Optional[str]]:
    """Find code, message and trace id in an error body, wherever it keeps them; the outer level wins."""
    levels: List[Mapping[str, Any]] = []
    level = body
    while isinstance(level, Mapping):
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
    trace_id = first("trace_id")
    masked_id = trace_id and secrets.mask(trace_id)
    return one_line(code or "", secrets), one_line(message or "", secrets), masked_id


def _not_json(text: Any, secrets: Secrets) -> str:
    """Say what a body is instead of JSON; a page is often a login or a gateway's, and its title says whose."""
    if isinstance(text, bytes):
        return "is not UTF-8"
    if not text.strip():
        return "is empty"
    # masked before it is quoted, which may spell a key in another way
    title = one_line(_title(text), secrets) if text.lstrip()[:1] == "<" else ""
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
    begin = re.search(r"<title[^>]*>", page[:10000], re.IGNORECASE)
    end = page.find("<", begin.end()) if begin else -1
    if begin is None or end < 0:
        return ""  # nor one that is cut: it may end within a key, which no mask would know
    import html  # here: its table of names is as slow to load as all errors

    return html.unescape(page[begin.end() : end])
