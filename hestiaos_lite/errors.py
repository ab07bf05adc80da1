"""The errors of both services: one tree of plain exceptions that carry their facts.

Every error says what happened, whether the request may have taken effect, and what to do next. The facts are attributes,
so that a script decides by ``error.effect`` or ``error.exit_code`` and never by parsing a message. All of them pickle.

What became of a request is decided here and nowhere else: retries, the outbox, a batch, the exit code and the words of
``str(error)`` all ask `HestiaError.effect`.
"""

from __future__ import annotations

from typing import Any, Dict, Mapping, Optional, Tuple, Type, TypeVar

from ._redact import one_line

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

NONE, UNKNOWN, ACCEPTED = EFFECTS = ("none", "unknown", "accepted")  # from the least to the gravest

CALLER, REQUEST, SERVICE = "caller", "request", "service"

# 408 and 425 are about the connection; 405, 421 and 426, as every redirect, about the address that was asked
_PASSING = (408, 425)
_ABOUT_THE_ADDRESS = (405, 421, 426)

# What an exit code is decided by where the error's class alone does not say it (sysexits' names in brackets).
_EXIT_CODES: Mapping[str, int] = {
    "AGENT_FAILED": 1,
    "BAD_DATA": 65,  # EX_DATAERR
    "BATCH_BUSY": 75,  # EX_TEMPFAIL: another run has the files
    "BATCH_FILE": 74,  # EX_IOERR
    "CONFIGURATION": 78,  # EX_CONFIG
    "JOURNAL": 78,
    "JOURNAL_BUSY": 75,
    "JOURNAL_DISK": 74,
    "NOT_SENT": 75,
    "OUTBOX": 78,
    "OUTBOX_BUSY": 75,
    "OUTBOX_DISK": 74,
}
_LOOK_FIRST = 3
_UNAVAILABLE = 69  # EX_UNAVAILABLE
_TRY_LATER = 75  # EX_TEMPFAIL
_BROKEN_CONTRACT = 76  # EX_PROTOCOL

_E = TypeVar("_E", bound="HestiaError")


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
        changes: the call changes something, so that it matters whether it took effect.
        has_idempotency_key: the call may be sent again without taking effect twice.
        earlier_effect: the gravest `effect` of the attempts before the last one.
        is_final: another attempt would fail alike, such as on a certificate that is not trusted.
    """

    advice = ""  # what to do next, said where nothing took effect
    changes = True
    has_idempotency_key = False
    earlier_effect = NONE
    is_final = False
    _is_refusal = False  # the class itself says that nothing was done
    _at_fault = SERVICE
    _exit_code = 70  # EX_SOFTWARE: a bug of ours
    _exit_code_if_accepted = _BROKEN_CONTRACT
    _exit_code_by_effect = True  # where the effect is in doubt, that decides the exit code

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
        **facts: Any,
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
        self.with_facts(**facts)

    def with_facts(self: _E, **facts: Any) -> _E:
        """Set facts that are learned after the error was made, and return it; an unknown name is a TypeError."""
        for name, value in facts.items():
            if not hasattr(self, name):
                raise TypeError("{} is no fact of an error".format(name))
            setattr(self, name, value)
        return self

    @property
    def effect(self) -> str:
        """What became of a request that changes something.

        - ``none``: certainly nothing took effect. A call that only reads always has this.
        - ``unknown``: it was sent, and nobody said what became of it: no answer, or a 5xx other than 503, since a service
          that failed, or a gateway that lost its service, may have done the work before.
        - ``accepted``: the service said that it took it (2xx), and the rest of its answer was lost or cannot be used.
        """
        if not self.changes:
            return NONE
        return max(self.earlier_effect, self._last_effect(), key=EFFECTS.index)

    def _last_effect(self) -> str:
        """Judge the last attempt; a status with a meaning of its own costs one line here."""
        status = self.status
        if self.delivered is False or self._is_refusal and not 200 <= (status or 0) < 300:
            return NONE
        if self.delivered is None or status is None or status < 200:
            return UNKNOWN
        if status < 300:
            return ACCEPTED
        if status == 303:  # "see other": the usual answer to a form that was taken (RFC 9110, 15.4.4)
            return UNKNOWN
        return UNKNOWN if status >= 500 and status != 503 else NONE

    @property
    def at_fault(self) -> str:
        """Who has to put it right before another try can help.

        - ``caller``: the credentials, the address or a setting is wrong, and any other request would fail alike.
        - ``request``: this one will never be taken; another may be.
        - ``service``: it is away, busy or broken, and the same request may be taken later.
        """
        status = self.status
        if self.code in _EXIT_CODES and status is None:
            return CALLER
        if status is not None and (300 <= status < 400 or status in _ABOUT_THE_ADDRESS):
            return CALLER
        return SERVICE if status in _PASSING else self._at_fault

    @property
    def exit_code(self) -> int:
        """What a program that fails with this error should exit with: ``sys.exit(error.exit_code)``.

        1 the service said no; 2 invalid input; 3 the outcome is unknown, look first; 65 bad data; 69 unavailable, nothing
        was done; 74 a file could not be written; 75 try again later; 76 the service broke the contract; 77 credentials or
        permission; 78 configuration.
        """
        if self.status is None and self.code in _EXIT_CODES:
            return _EXIT_CODES[self.code]
        if self._exit_code_by_effect and self.effect != NONE:
            return _LOOK_FIRST if self.effect == UNKNOWN else self._exit_code_if_accepted
        return self._exit_code

    def __str__(self) -> str:
        facts = []
        if self.status is not None:
            facts.append("HTTP {}".format(self.status))
        if self.trace_id:
            facts.append("trace id {}".format(one_line(self.trace_id, limit=200)))
        if self.request_id:
            facts.append("request id {}".format(one_line(self.request_id, limit=100)))
        if self.attempts > 1:
            facts.append("{} attempts".format(self.attempts))
        text = "[{}] {}".format(one_line(self.code, limit=100), one_line(self.message, limit=500))
        if facts:
            text += " ({})".format(", ".join(facts))
        for sentence in (self._what_became_of_it(), self._what_next()):
            if sentence:
                text += "; " + sentence
        return text

    def _what_became_of_it(self) -> str:
        if not self.attempts:
            return ""  # it was never tried
        if self.effect == ACCEPTED:
            return "the service had accepted it"
        if self.effect == UNKNOWN:
            return (
                "it may have taken effect" if self.delivered else "no answer came: it may have taken effect"
            )
        if self.delivered is None:
            return "no answer came"
        if not self.delivered:
            return "it never reached the service"
        return "nothing was done" if self.changes else ""

    def _what_next(self) -> str:
        if self.effect == NONE or not self.attempts:
            return self.advice
        if self.has_idempotency_key:
            return "send it again: its idempotency key keeps it from taking effect twice"
        known_by = "trace id" if self.trace_id else "request id" if self.request_id else ""
        look = "look for its {} in the service's log".format(known_by) if known_by else "look"
        return look + " before sending it again"

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


class _Refusal(_CodedError):
    """An error by which the service, or this library before it sent anything, says no: nothing was done."""

    _is_refusal = True
    _at_fault = REQUEST
    _exit_code_by_effect = False


class _BrokenContract(_CodedError):
    """An error about an answer that is not what the contract allows."""

    _exit_code = _BROKEN_CONTRACT
    _exit_code_by_effect = False


class GovernanceBlock(_Refusal):
    """403 on run, run_stream, chat or agents, or a ruling by which a command must not run: nothing was executed.

    With the code ``GOVERNANCE_THROTTLE`` it is the ruling THROTTLE, which another time may be ALLOW.
    """

    default_code = "GOVERNANCE_BLOCK"
    default_message = "blocked by governance"

    def __init__(self, trace_id: Optional[str] = None, message: str = "", **facts: Any) -> None:
        facts.setdefault(
            "advice", "its trace says which rule spoke" if trace_id else "it would be refused again"
        )
        super().__init__(message, trace_id, **facts)

    @property
    def _exit_code(self) -> int:  # type: ignore[override]
        return _TRY_LATER if self.code == "GOVERNANCE_THROTTLE" else 1


class PermissionDenied(_Refusal):
    """403 on any other call: this key may not do that."""

    default_code = "PERMISSION_DENIED"
    default_message = "the service denies permission"
    advice = "use a key with this permission"
    _at_fault = CALLER
    _exit_code = 77


class AuthenticationError(_Refusal):
    """401: no API key, or one that the service does not know; 407: a proxy asks for credentials of its own."""

    default_code = "AUTHENTICATION"
    default_message = "the service does not accept the credentials"
    advice = "check the API key"
    _at_fault = CALLER
    _exit_code = 77


class InvalidInput(_Refusal):
    """400 or 422, or an argument that could not be sent: nothing was done.

    Raised before anything is sent, it has ``status`` None and ``delivered`` False; with the code ``CONFIGURATION`` a
    setting is at fault (file, URL, environment) rather than an argument of the call.
    """

    default_code = "INVALID_INPUT"
    default_message = "invalid input"
    _exit_code = 2

    def __init__(
        self, message: str = "", trace_id: Optional[str] = None, details: Any = None, **facts: Any
    ) -> None:
        facts.setdefault("delivered", False)
        super().__init__(message, trace_id, details, **facts)


class NotFound(_Refusal):
    """404: the service has no such thing."""

    default_code = "NOT_FOUND"
    default_message = "not found"
    _exit_code = 1

    @property
    def _at_fault(self) -> str:  # type: ignore[override]
        """Of an answer without a code of the service's own nobody knows that it is not the path which is not there."""
        return CALLER if self.status is not None and self.code == self.default_code else REQUEST


class Conflict(_Refusal):
    """409 from HestiaOS: the request does not fit the present state. (Of AEGIS it is a result, or `IdempotencyConflict`.)"""

    default_code = "CONFLICT"
    default_message = "conflicts with the present state"
    _exit_code = 1


class RateLimited(_Refusal):
    """429: too many requests or quota used up. ``retry_after`` is the wait the service asks for, in seconds, or None."""

    default_code = "RATE_LIMITED"
    default_message = "too many requests"
    advice = "try again later"
    _at_fault = SERVICE
    _exit_code = _TRY_LATER
    _exit_code_by_effect = True


class ServerError(_CodedError):
    """5xx: the service, or a proxy before it, failed."""

    default_code = "SERVER_ERROR"
    default_message = "the service failed"
    advice = "try again later"
    _exit_code = _UNAVAILABLE


class ConnectionFailed(_CodedError):
    """No answer, or not all of it: refused, unknown host, TLS, reset. ``delivered`` says whether it may have arrived."""

    default_code = "CONNECTION_FAILED"
    default_message = "the connection failed"
    advice = "try again later"
    _exit_code = _UNAVAILABLE


class RequestTimeout(_CodedError, TimeoutError):
    """The deadline passed, or a stream fell silent. Also a built-in ``TimeoutError``."""

    default_code = "TIMEOUT"
    default_message = "the deadline passed"
    advice = "try again later, or allow it more time"
    _exit_code_if_accepted = _LOOK_FIRST

    @property
    def _exit_code(self) -> int:  # type: ignore[override]
        """A request that never left met a service that is not there; one that did met a slow one, and none met nobody."""
        return _UNAVAILABLE if self.delivered is False and self.attempts else _TRY_LATER


class InvalidResponse(_BrokenContract):
    """A 2xx or 3xx answer that the contract does not allow: not JSON, wrong shape, a redirect, too large.

    ``details`` holds the body where there was one.
    """

    default_code = "INVALID_RESPONSE"
    default_message = "the service's answer breaks the contract"
    advice = "check that the base URL is the service's own"


class StreamInterrupted(_BrokenContract):
    """The stream ended before its ``done`` event: what came is not the whole answer."""

    default_code = "STREAM_INTERRUPTED"
    default_message = "the stream ended before its done event; what came is not the whole answer"


class IdempotencyConflict(_Refusal):
    """One idempotency key was used for two different payloads or actions.

    Told by the outbox before anything is sent, or by the service's 409 that names the other action.
    """

    default_code = "IDEMPOTENCY_CONFLICT"
    default_message = "this idempotency key was used for another decision"
    advice = "make a new key for a new decision"
    _exit_code = 1

    def __init__(
        self, message: str = "", trace_id: Optional[str] = None, details: Any = None, **facts: Any
    ) -> None:
        facts.setdefault("delivered", False)
        super().__init__(message, trace_id, details, **facts)
