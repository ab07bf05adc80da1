"""The errors of both services: one tree of plain exceptions that carry their facts.

Every error says what happened, whether the request may have taken effect, and what to do next. The facts are attributes,
so that a script decides by ``error.delivered`` or ``error.status`` and never by parsing a message. All of them pickle.
"""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, Mapping, Optional, Tuple, Type

__all__ = [
    "AuthenticationError",
    "Conflict",
    "ConnectionFailed",
    "GovernanceBlock",
    "HestiaError",
    "IdempotencyConflict",
    "InvalidInput",
    "InvalidResponse",
    "NotFound",
    "PermissionDenied",
    "RateLimited",
    "RequestTimeout",
    "ServerError",
    "StreamInterrupted",
]


class HestiaError(Exception):
    """Base of every error this library raises.

    Attributes:
        code: short upper-case name, the service's own where it gave one.
        message: what happened, in words.
        trace_id: the service's trace id, or None.
        status: HTTP status of the answer, or None when there was none.
        request_id: the ``X-Request-Id`` we sent, or None when nothing was to be sent.
        details: the decoded body of the answer, or None. It may quote what was sent, so it is left out of ``str``,
            ``repr`` and pickles.
        attempts: how many times the request was tried.
        delivered: False when the request certainly never reached the service, True when the service answered,
            None when nobody can know.
    """

    advice = ""  # what to do next; the last words of str(error)
    _only_reads = False  # the call changes nothing, so that there is no effect to speak of

    def __init__(
        self,
        code: str,
        message: str,
        trace_id: Optional[str] = None,
        *,
        status: Optional[int] = None,
        request_id: Optional[str] = None,
        details: Any = None,
        attempts: int = 0,
        delivered: Optional[bool] = None,
        retry_after: Optional[float] = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.trace_id = trace_id
        self.status = status
        self.request_id = request_id
        self.details = details
        self.attempts = attempts
        self.delivered = delivered
        self.retry_after = retry_after  # seconds the service asked us to wait (429, 503), or None

    def __str__(self) -> str:
        facts = []
        if self.status is not None:
            facts.append("HTTP {}".format(self.status))
        if self.trace_id:
            facts.append("trace id {}".format(self.trace_id))
        if self.request_id:
            facts.append("request id {}".format(self.request_id))
        if self.attempts > 1:
            facts.append("{} attempts".format(self.attempts))
        text = "[{}] {}".format(self.code, self.message)
        if facts:
            text += " ({})".format(", ".join(facts))
        for sentence in (self._effect(), self.advice):
            if sentence:
                text += "; " + sentence
        return text

    def _effect(self) -> str:
        """Say whether the request may have taken effect, where that is in doubt."""
        if not self.attempts:
            return ""
        if self.delivered:
            if self._only_reads:
                return ""
            if isinstance(self, (ConnectionFailed, RequestTimeout)) and (self.status or 500) < 300:
                return "the service had accepted it: look before sending it again"
            # a gateway that lost its service says nothing of what became of the request
            return (
                "it may have taken effect: look before sending it again" if self.status in (502, 504) else ""
            )
        if self.delivered is None:
            return "no answer came" + ("" if self._only_reads else ": it may have taken effect")
        return "it never reached the service"

    def __repr__(self) -> str:
        return "<{} {}>".format(type(self).__name__, self)

    def __reduce__(self) -> Tuple[Any, ...]:
        # The constructors differ, so an error is rebuilt from its attributes; `details` stays in this process.
        state = dict(self.__dict__, details=None)
        state.pop("__notes__", None)
        return _rebuild, (type(self), self.args, state)


def _rebuild(cls: Type[HestiaError], args: Tuple[Any, ...], state: Dict[str, Any]) -> HestiaError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error


class _CodedError(HestiaError):
    """An error whose class names its code: ``ServerError("the service failed", status=503)``."""

    default_code = "ERROR"
    default_message = ""

    def __init__(
        self,
        message: str = "",
        trace_id: Optional[str] = None,
        details: Any = None,
        *,
        code: Optional[str] = None,
        **facts: Any,
    ) -> None:
        super().__init__(
            code or self.default_code, message or self.default_message, trace_id, details=details, **facts
        )


class GovernanceBlock(_CodedError):
    """403 on run, run_stream, chat or agents: governance refused, nothing was executed."""

    default_code = "GOVERNANCE_BLOCK"
    default_message = "blocked by governance"
    advice = "nothing was executed; the trace says which rule spoke"

    def __init__(self, trace_id: Optional[str] = None, message: str = "", **facts: Any) -> None:
        super().__init__(message, trace_id, **facts)


class PermissionDenied(_CodedError):
    """403 on any other call: this key may not do that."""

    default_code = "PERMISSION_DENIED"
    default_message = "the service denies permission"
    advice = "use a key with this permission"


class AuthenticationError(_CodedError):
    """401: no API key, or one that the service does not know; 407: a proxy asks for credentials of its own."""

    default_code = "AUTHENTICATION"
    default_message = "the service does not accept the credentials"
    advice = "check the API key"


class InvalidInput(_CodedError):
    """400 or 422, or an argument that could not be sent: nothing was done.

    Raised before anything is sent, it has ``status`` None and ``delivered`` False; with the code ``CONFIGURATION`` a
    setting is at fault (file, URL, environment) rather than an argument of the call.
    """

    default_code = "INVALID_INPUT"
    default_message = "invalid input"

    def __init__(
        self, message: str = "", trace_id: Optional[str] = None, details: Any = None, **facts: Any
    ) -> None:
        facts.setdefault("delivered", False)
        super().__init__(message, trace_id, details, **facts)


class NotFound(_CodedError):
    """404: the service has no such thing."""

    default_code = "NOT_FOUND"
    default_message = "not found"


class Conflict(_CodedError):
    """409 from HestiaOS: the request does not fit the present state. (AEGIS answers 409 as a result, not an error.)"""

    default_code = "CONFLICT"
    default_message = "conflicts with the present state"


class RateLimited(_CodedError):
    """429: too many requests or quota used up. ``retry_after`` is the wait the service asks for, in seconds, or None."""

    default_code = "RATE_LIMITED"
    default_message = "too many requests"
    advice = "nothing was done; try again later"


class ServerError(_CodedError):
    """5xx: the service, or a proxy before it, failed."""

    default_code = "SERVER_ERROR"
    default_message = "the service failed"
    advice = "try again later"


class ConnectionFailed(_CodedError):
    """No answer, or not all of it: refused, unknown host, TLS, reset. ``delivered`` says whether it may have arrived."""

    default_code = "CONNECTION_FAILED"
    default_message = "the connection failed"


class RequestTimeout(_CodedError, TimeoutError):
    """The deadline passed, or a stream fell silent. Also a built-in ``TimeoutError``."""

    default_code = "TIMEOUT"
    default_message = "the deadline passed"


class InvalidResponse(_CodedError):
    """A 2xx or 3xx answer that the contract does not allow: not JSON, wrong shape, a redirect, too large.

    ``details`` holds the body where there was one.
    """

    default_code = "INVALID_RESPONSE"
    default_message = "the service's answer breaks the contract"


class StreamInterrupted(_CodedError):
    """The stream ended before its ``done`` event: what came is not the whole answer."""

    default_code = "STREAM_INTERRUPTED"
    default_message = "the stream ended before its done event"
    advice = "what came is not the whole answer"


class IdempotencyConflict(_CodedError):
    """One idempotency key was used for two different payloads or actions.

    Told by the outbox before anything is sent, or by the service's 409 that names the other action.
    """

    default_code = "IDEMPOTENCY_CONFLICT"
    default_message = "this idempotency key already stands for another decision"
    advice = "nothing new was decided; make a new key for a new decision"

    def __init__(
        self, message: str = "", trace_id: Optional[str] = None, details: Any = None, **facts: Any
    ) -> None:
        facts.setdefault("delivered", False)
        super().__init__(message, trace_id, details, **facts)


_BY_STATUS: Mapping[int, Type[_CodedError]] = {
    400: InvalidInput,
    401: AuthenticationError,
    403: PermissionDenied,
    404: NotFound,
    407: AuthenticationError,
    409: Conflict,
    422: InvalidInput,
    429: RateLimited,
}

# A 403 on a call that runs something is governance speaking, unless its own code says that it is the key which may not.
_PERMISSION_CODES = ("FORBIDDEN", "INSUFFICIENT_PERMISSIONS", "INSUFFICIENT_SCOPE", "PERMISSION_DENIED")


def from_answer(
    status: int, body: Any, *, governed: bool = False, secrets: Iterable[str] = (), **facts: Any
) -> HestiaError:
    """Map an HTTP answer to its error.

    Args:
        status: the HTTP status, 400 or above.
        body: the decoded JSON body, or its text, or None when it was empty or unreadable.
        governed: the call runs something, so that a 403 is governance speaking (API.md, "Errors"), except with a code that
            speaks of permission.
        secrets: what the message must not show, though the service echoes it; ``details`` keeps the body as it came.
        facts: request_id, attempts, retry_after: what the body cannot know.

    Error bodies come flat, nested under ``detail``, as a list of field errors, as text, as HTML or empty
    (CONTRACT.md); whatever comes, an error of the right class is returned.
    """
    code, message, trace_id = _read_body(body)
    code, message = _one_line(code or "", secrets), _one_line(message, secrets)
    facts.update(
        status=status, details=body, delivered=status != 407
    )  # a proxy's answer: the service was not reached
    if code:
        facts["code"] = code
    if status == 403 and governed and code.upper() not in _PERMISSION_CODES:
        return GovernanceBlock(trace_id, message, **facts)
    cls: Type[_CodedError] = ServerError if status >= 500 else _BY_STATUS.get(status, InvalidInput)
    return cls(message or "the service answered {}".format(status), trace_id, **facts)


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
        message = level
    if not message and isinstance(level, list):
        message = "; ".join(_field_error(item) for item in level[:5])
    return code, message or "", first("trace_id")


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


def _one_line(text: str, secrets: Iterable[str], limit: int = 300) -> str:
    """Mask what is secret, fold white space and cut: a proxy's HTML page must not fill a cron mail."""
    text = text.strip()[: 20 * limit]  # the masks take time for each secret
    if text[:1] == "<":
        return ""  # an HTML page says nothing a reader needs; `details` has it
    if secrets:
        from ._redact import without  # here: a program that only names the errors needs nothing of it

        text = without(
            text, secrets
        )  # before white space is folded and the end cut off, while a secret is still whole
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 3] + "..."
