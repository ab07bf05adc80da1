"""The errors of both services: one tree of plain exceptions that carry their facts.

Every error says what happened, whether the request may have taken effect, and what to do next. The facts are attributes,
so that a script decides by ``error.effect`` or ``error.exit_code`` and never by parsing a message. All of them pickle.

What became of a request is decided here and nowhere else: retries, the outbox, a batch, the exit code and the words of
``str(error)`` all ask `HestiaError.effect`.
"""

from __future__ import annotations

from typing import Any, Mapping, Optional, Tuple, Type, TypeVar, Union

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

NONE, UNKNOWN, ACCEPTED = EFFECTS = ("none", "unknown", "accepted")  # from the least to the most serious

CALLER, REQUEST, SERVICE = "caller", "request", "service"


# What an answer's status says, more of one status than of its hundred: the class of its error, and the request's effect.
# fmt: off
_BY_STATUS: Mapping[Union[int, str], Tuple[str, str]] = {
    "1xx": ("InvalidResponse", UNKNOWN),
    "2xx": ("InvalidResponse", ACCEPTED),
    "3xx": ("InvalidResponse", NONE),
    303: ("InvalidResponse", UNKNOWN),  # "see other": the usual answer to a form that was taken (RFC 9110, 15.4.4)
    "4xx": ("HestiaError", NONE),
    401: ("AuthenticationError", NONE),
    403: ("PermissionDenied", NONE),
    404: ("NotFound", NONE),
    407: ("AuthenticationError", NONE),
    409: ("Conflict", NONE),
    429: ("RateLimited", NONE),
    **dict.fromkeys((400, 413, 414, 415, 422, 431), ("InvalidInput", NONE)),
    **dict.fromkeys((408, 425), ("RequestTimeout", NONE)),  # it did not wait for all of it; or it is too early
    "5xx": ("ServerError", UNKNOWN),  # a service that failed, or lost its gateway, may have done the work before
    503: ("ServerError", NONE),
    511: ("AuthenticationError", NONE),
}

_LATER, _LONGER = "try again later", "try again later, or allow it more time"
_OWN_URL, _ADDRESS = "check that the base URL is the service's own", "check the base URL"

_LOOK, _SLOW, _BROKEN = (3, 76), (3, 3), (76, 76)

# What a class means, more of one status or code of it than of the class. The effect is that of a request which nobody
# answered, though it may have arrived; exit code and advice hold where nothing took effect, the two exit codes at the end
# where the effect is unknown, and where the service took it and its answer was lost or unusable.
_BY_CLASS: Mapping[Tuple[str, Union[int, str, None]], Tuple[str, str, int, str, Tuple[int, int]]] = {
    # class, status or code                           effect   at fault  exit  advice  exit in doubt
    ("HestiaError", None):                           (UNKNOWN, SERVICE, 70, "", _LOOK),
    ("HestiaError", "4xx"):                          (NONE, REQUEST, 1, "", _LOOK),
    **{("HestiaError", status): (NONE, CALLER, 1, _ADDRESS, _LOOK) for status in (405, 421, 426)},
    ("GovernanceBlock", None):                       (NONE, REQUEST, 1, "", _LOOK),
    ("GovernanceBlock", "GOVERNANCE_THROTTLE"):      (NONE, REQUEST, 75, "", _LOOK),
    ("PermissionDenied", None):                      (NONE, CALLER, 77, "use a key with this permission", _LOOK),
    ("AuthenticationError", None):                   (NONE, CALLER, 77, "check the API key", _LOOK),
    ("AuthenticationError", 511):                    (NONE, CALLER, 77, "sign in to this network first", _LOOK),
    ("InvalidInput", None):                          (NONE, REQUEST, 2, "", _LOOK),
    ("NotFound", None):                              (NONE, REQUEST, 1, "", _LOOK),
    ("NotFound", "NOT_FOUND"):                       (NONE, CALLER, 1, "", _LOOK),  # or is it the path that is not there?
    ("Conflict", None):                              (NONE, REQUEST, 1, "", _LOOK),
    ("RateLimited", None):                           (NONE, SERVICE, 75, _LATER, _LOOK),
    ("ServerError", None):                           (UNKNOWN, SERVICE, 69, _LATER, _LOOK),
    ("ConnectionFailed", None):                      (UNKNOWN, SERVICE, 69, _LATER, _LOOK),
    ("RequestTimeout", None):                        (UNKNOWN, SERVICE, 75, _LONGER, _SLOW),
    ("RequestTimeout", "never left"):                (NONE, SERVICE, 69, _LONGER, _SLOW),  # there is no service, not a slow one
    ("InvalidResponse", None):                       (UNKNOWN, SERVICE, 76, _OWN_URL, _BROKEN),
    ("InvalidResponse", "3xx"):                      (UNKNOWN, CALLER, 76, _OWN_URL, _BROKEN),
    ("StreamInterrupted", None):                     (UNKNOWN, SERVICE, 76, "", _BROKEN),
    ("IdempotencyConflict", None):                   (NONE, REQUEST, 1, "make a new key for a new decision", (3, 1)),
}

# The exit code of what this library finds by itself, whatever the class: the code decides (sysexits' names in brackets).
_BY_CODE: Mapping[str, int] = {
    "AGENT_FAILED": 1,
    "BAD_DATA": 65,  # EX_DATAERR
    "CONFIGURATION": 78,  # EX_CONFIG
    "JOURNAL": 78,  # foreign, damaged or others may write to it
    "JOURNAL_BUSY": 75,  # locked by another program
    "JOURNAL_DISK": 74,  # a full disk, an I/O error
    "NOT_SENT": 75,
    "OUTBOX": 78,
    "OUTBOX_BUSY": 75,
    "OUTBOX_DISK": 74,
    "RESULTS": 74,  # EX_IOERR: a batch's result file cannot be written
}
# fmt: on


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
        retry_after: seconds the service asked us to wait (429, 503), or None.
        advice: what to do next where nothing took effect, in place of what the class says.
        changes: the call changes something, so that it matters whether it took effect.
        has_idempotency_key: the call may be sent again without taking effect twice.
        earlier_effect: the most serious `effect` of the attempts before the last one.
        never_left: the last attempt never reached the service, though an earlier one may have (`delivered`).
        is_final: another attempt would fail the same way, such as on a certificate that is not trusted.
    """

    status: Optional[int] = None
    request_id: Optional[str] = None
    details: Any = None
    attempts = 0
    delivered: Optional[bool] = None
    retry_after: Optional[float] = None
    advice = ""
    changes = True
    has_idempotency_key = False
    earlier_effect = NONE
    is_final = False
    never_left = False
    _exit_code: Optional[int] = None  # in place of the table's

    def __init__(self, code: str, message: str, trace_id: Optional[str] = None, **facts: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.trace_id = trace_id
        self.with_facts(**facts)

    def with_facts(self: _E, **facts: Any) -> _E:
        """Set facts that are learned after the error was made, and return it; an unknown name is a TypeError."""
        for name, value in facts.items():
            if not hasattr(self, name):
                raise TypeError("{} is not a fact of an error".format(name))
            setattr(self, name, value)
        return self

    @property
    def effect(self) -> str:
        """What became of a request that changes something.

        - ``none``: certainly nothing took effect. A call that only reads always has this.
        - ``unknown``: it was sent, and nobody said what became of it: no answer, or a 5xx other than 503 and 511.
        - ``accepted``: the service said that it accepted it (2xx), and the rest of its answer was lost or cannot be used.
        """
        if not self.changes:
            return NONE
        return max(self.earlier_effect, self._last_effect(), key=EFFECTS.index)

    def _last_effect(self) -> str:
        if self.delivered is False or self.never_left:
            return NONE
        if self.status is None or self.delivered is None:
            return self._meaning()[0]
        return _by_status(self.status)[1]

    @property
    def at_fault(self) -> str:
        """Who has to fix it before another try can help.

        - ``caller``: the credentials, the address or a setting is wrong, and any other request would fail too.
        - ``request``: this one will never be accepted; another may be.
        - ``service``: it is down, busy or broken, and the same request may be accepted later.
        """
        return CALLER if self._is_of_this_machine() else self._meaning()[1]

    @property
    def exit_code(self) -> int:
        """What a program that fails with this error should exit with: ``sys.exit(error.exit_code)``.

        1 the service said no; 2 invalid input; 3 the outcome is unknown, look first; 65 bad data; 69 unavailable, nothing
        was done; 74 a file could not be written; 75 try again later; 76 the service broke the contract; 77 credentials or
        permission; 78 configuration.
        """
        if self._exit_code is not None:
            return self._exit_code
        if self._is_of_this_machine() and self.earlier_effect != UNKNOWN:
            return _BY_CODE[self.code]
        _, _, exit_code, _, (if_unknown, if_accepted) = self._meaning()
        return {NONE: exit_code, UNKNOWN: if_unknown, ACCEPTED: if_accepted}[self.effect]

    def _is_of_this_machine(self) -> bool:
        return self.status is None and self.code in _BY_CODE

    def _meaning(self) -> Tuple[str, str, int, str, Tuple[int, int]]:
        """Find the row of the table that is most like this error."""
        keys = [self.code, self.status, _hundred(self.status), None]
        if (self.delivered is False or self.never_left) and self.attempts:
            keys.insert(0, "never left")
        return next(
            _BY_CLASS[cls.__name__, key]
            for cls in type(self).__mro__
            for key in keys
            if (cls.__name__, key) in _BY_CLASS
        )

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
        _, at_fault, _, advice, _ = self._meaning()
        advice = self.advice or advice
        if self.effect == NONE or not self.attempts:
            return advice
        if self.has_idempotency_key and at_fault != REQUEST:
            first = advice + ", then " if advice and at_fault == CALLER else ""
            return first + "send it again: its idempotency key keeps it from taking effect twice"
        known_by = "trace id" if self.trace_id else "request id" if self.request_id else ""
        look = "look for its {} in the service's log".format(known_by) if known_by else "look"
        return look + " before sending it again"

    def __repr__(self) -> str:
        return "<{} {}>".format(type(self).__name__, self)

    def __reduce__(self) -> Tuple[Any, ...]:
        # The constructors differ, so an error is rebuilt from its attributes; `details` stays in this process.
        state = {name: value for name, value in self.__dict__.items() if name not in ("details", "__notes__")}
        return type(self).__new__, (type(self),), dict(state, args=self.args)


_E = TypeVar("_E", bound=HestiaError)


def _hundred(status: Optional[int]) -> str:
    return "{}xx".format((status or 0) // 100)


def _by_status(status: int) -> Tuple[str, str]:
    return _BY_STATUS.get(status) or _BY_STATUS.get(_hundred(status)) or _BY_STATUS["1xx"]


def class_of(status: int) -> Type[HestiaError]:
    """Return the class of the error of an answer that is no success, as far as its status says it."""
    found: Type[HestiaError] = globals()[_by_status(status)[0]]
    return found


class _CodedError(HestiaError):
    """An error whose class names its code and message: ``ServerError("the service failed", status=503)``."""

    default_code = "ERROR"
    default_message = ""

    def __init_subclass__(cls, code: str = "", message: str = "", **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.default_code, cls.default_message = code or cls.default_code, message or cls.default_message

    def __init__(
        self,
        message: str = "",
        trace_id: Optional[str] = None,
        details: Any = None,
        *,
        code: Optional[str] = None,
        **facts: Any,
    ) -> None:
        code, message = code or self.default_code, message or self.default_message
        super().__init__(code, message, trace_id, details=details, **facts)


class GovernanceBlock(_CodedError, code="GOVERNANCE_BLOCK", message="blocked by governance"):
    """403 on run, run_stream, chat or agents, or a ruling by which a command must not run: nothing was executed.

    With the code ``GOVERNANCE_THROTTLE`` it is the ruling THROTTLE, which may be ALLOW at another time.
    """

    def __init__(self, trace_id: Optional[str] = None, message: str = "", **facts: Any) -> None:
        facts.setdefault(
            "advice", "its trace says which rule decided" if trace_id else "it would be refused again"
        )
        super().__init__(message, trace_id, **facts)


class PermissionDenied(_CodedError, code="PERMISSION_DENIED", message="the service denies permission"):
    """403 on any other call: this key may not do that."""


class AuthenticationError(
    _CodedError, code="AUTHENTICATION", message="the service does not accept the credentials"
):
    """401: no API key, or an unknown one; 407: a proxy asks for credentials of its own; 511: a network's sign-in page."""


class InvalidInput(_CodedError, code="INVALID_INPUT", message="invalid input"):
    """400, 413, 414, 415, 422 or 431, or an argument that could not be sent: nothing was done.

    Raised before anything is sent, it has ``status`` None and ``delivered`` False; with the code ``CONFIGURATION`` a
    setting is at fault (file, URL, environment) rather than an argument of the call.
    """

    delivered = False


class NotFound(_CodedError, code="NOT_FOUND", message="not found"):
    """404: the service has no such thing."""


class Conflict(_CodedError, code="CONFLICT", message="conflicts with the current state"):
    """409 from HestiaOS: the request does not fit the current state. (Of AEGIS it is a result, or `IdempotencyConflict`.)"""


class RateLimited(_CodedError, code="RATE_LIMITED", message="too many requests"):
    """429: too many requests or quota used up. ``retry_after`` is the wait the service asks for, in seconds, or None."""


class ServerError(_CodedError, code="SERVER_ERROR", message="the service failed"):
    """5xx: the service, or a gateway before it, failed. A gateway's page under a 4xx has the code ``GATEWAY``."""


class ConnectionFailed(_CodedError, code="CONNECTION_FAILED", message="the connection failed"):
    """No answer, or not all of it: refused, unknown host, TLS, reset. ``delivered`` says whether it may have arrived."""


class RequestTimeout(_CodedError, TimeoutError, code="TIMEOUT", message="the deadline passed"):
    """The deadline passed, or a stream fell silent; 408, 425: the service did not take it. Also a ``TimeoutError``."""


class InvalidResponse(
    _CodedError, code="INVALID_RESPONSE", message="the service's answer breaks the contract"
):
    """A 2xx or 3xx answer that the contract does not allow: not JSON, wrong shape, a redirect, too large.

    ``details`` holds the body where there was one.
    """


class StreamInterrupted(
    _CodedError,
    code="STREAM_INTERRUPTED",
    message="the stream ended before its done event; what arrived is not the whole answer",
):
    """The stream ended before its ``done`` event: what arrived is not the whole answer."""


class IdempotencyConflict(
    _CodedError, code="IDEMPOTENCY_CONFLICT", message="this idempotency key was used for another decision"
):
    """One idempotency key was used for two different payloads or actions.

    Raised by the outbox before anything is sent, or for the service's 409 that names the other action.
    """

    delivered = False
