"""The answers of both services as frozen dataclasses.

Each has ``from_dict(mapping)`` and ``to_dict()``. An unknown field of the answer stays in ``extra`` (not in ``repr`` or
``==``). A required field that is missing or of the wrong type is ``InvalidResponse``; an optional one is None when absent,
and where its type is wrong it is None too and its value stays in ``extra``: an answer in hand is never thrown away for a
cosmetic fault. Values are never converted or limited to known ones (CONTRACT.md: statuses and decisions are open).
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Callable, ClassVar, Dict, List, Mapping, Optional, Tuple, Type, TypeVar

from .errors import InvalidResponse

__all__ = [
    "ActionResult",
    "ActionStatus",
    "AgentResult",
    "ChatResponse",
    "Conclusion",
    "ErrorResponse",
    "HealthResponse",
    "Ruling",
    "RunResponse",
    "StreamEvent",
    "SystemMetrics",
    "SystemStatus",
    "TraceResponse",
]

_M = TypeVar("_M", bound="_Model")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


# What a field's annotation demands of the wire's value, and how the type is called in an error.
_CHECKS: Mapping[str, Tuple[Callable[[Any], bool], str]] = {
    "str": (_is_text, "a string"),
    "int": (_is_number, "a number"),
    "Optional[int]": (_is_number, "a number"),
    "Optional[str]": (_is_text, "a string"),
    "Optional[float]": (_is_number, "a number"),
    "bool": (_is_flag, "true or false"),
    "Optional[bool]": (_is_flag, "true or false"),
    "Mapping[str, Any]": (_is_mapping, "an object"),
    "Tuple[Any, ...]": (_is_list, "a list"),
    "Any": (lambda value: True, "anything"),
}


_EVENT_FIELDS = {"type", "data", "trace_id", "timestamp"}
_REFUSALS = frozenset({"BLOCK", "BLOCKED", "DENY", "DENIED", "REJECT", "REJECTED", "FAILED"})


def is_refusal(word: Any) -> bool:
    """True for a decision, mode or status of an answer that says no, in any case: BLOCK, DENIED, rejected, FAILED."""
    return isinstance(word, str) and word.strip().upper() in _REFUSALS


def _extra() -> Any:
    return field(default_factory=dict, repr=False, compare=False)


class _Model:
    """What all answers share; the fields are the dataclass's own, read from the wire by their annotations."""

    _aliases: ClassVar[Mapping[str, str]] = {}  # field name -> the other name it goes by on the wire
    _specs: ClassVar[Dict[type, List[Tuple[str, bool, Callable[[Any], bool], str]]]] = {}
    extra: Mapping[str, Any]

    @classmethod
    def from_dict(cls: Type[_M], body: Mapping[str, Any]) -> _M:
        """Build the model from a decoded JSON object.

        Raises:
            InvalidResponse: ``body`` is not an object, or a required field is missing or of the wrong type.
        """
        if not isinstance(body, Mapping):
            raise InvalidResponse(
                "expected a JSON object for {}, got {}".format(cls.__name__, _json_type(body)), details=body
            )
        rest = dict(body)
        values: Dict[str, Any] = {}
        for name, required, fits, wanted in cls._spec():
            alias = cls._aliases.get(name)
            if alias in rest and rest.get(name) is None:  # null in one form does not hide the other
                rest[name] = rest.pop(alias)
            value = rest.get(name)
            if value is not None and fits(value):
                values[name] = tuple(value) if isinstance(value, list) else value
                del rest[name]
            elif required:
                fault = (
                    "is missing" if name not in rest else "is {}, not {}".format(_json_type(value), wanted)
                )
                trace_id = body.get("trace_id")
                raise InvalidResponse(
                    "{}: required field {!r} {}".format(cls.__name__, name, fault),
                    trace_id if isinstance(trace_id, str) else None,
                    details=body,
                )
            elif value is None:
                rest.pop(name, None)
        return cls(extra=rest, **values)  # type: ignore[call-arg]  # every subclass is a dataclass with `extra`

    def to_dict(self) -> Dict[str, Any]:
        """Return a dict fit for ``json.dumps``: every field, absent ones as None, and the unknown fields of the answer."""
        values = {name: getattr(self, name) for name, *_ in self._spec()}
        for name, value in values.items():
            if isinstance(value, tuple):
                values[name] = list(value)
            elif isinstance(value, Mapping):
                values[name] = dict(value)
        values.update(self.extra)
        return values

    @classmethod
    def _spec(cls) -> List[Tuple[str, bool, Callable[[Any], bool], str]]:
        spec = cls._specs.get(cls)
        if spec is None:
            spec = cls._specs[cls] = [
                (item.name, item.default is MISSING and item.default_factory is MISSING)
                + _CHECKS[str(item.type)]
                for item in fields(cls)  # type: ignore[arg-type]  # every subclass is a dataclass
                if item.name != "extra"
            ]
        return spec


def _json_type(value: Any) -> str:
    """Name a decoded value's JSON type for an error message."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "an object" if isinstance(value, Mapping) else "a list"


@dataclass(frozen=True)
class RunResponse(_Model):
    """The answer to ``run``.

    Attributes:
        result: the governance decision (published form) or the produced text (documented form); never limited.
        trace_id: names the run in ``client.trace``; contract-critical.
        output: the produced text, in the published form.
        mode: the mode or decision the run was executed under.
        budget: share of the budget granted, as the service counts it.
        latency_ms: milliseconds the service took.
    """

    result: str
    trace_id: str
    output: Optional[str] = None
    mode: Optional[str] = None
    budget: Optional[float] = None
    latency_ms: Optional[float] = None
    extra: Mapping[str, Any] = _extra()

    @property
    def text(self) -> str:
        """The produced text, whichever of the two wire forms brought it."""
        return self.result if self.output is None else self.output


@dataclass(frozen=True)
class StreamEvent(_Model):
    """One event of ``run_stream``: start, token, delta, tool_call, final, error or done; a future type passes through."""

    type: str
    data: Mapping[str, Any] = field(default_factory=dict)
    trace_id: str = ""
    timestamp: str = ""
    extra: Mapping[str, Any] = _extra()

    @classmethod
    def from_raw(cls, raw: Mapping[str, Any]) -> StreamEvent:
        """Build the event from one decoded ``data:`` field; the same as ``from_dict``."""
        # The published form, recognised whole and taken over as it is: buys 1.7 to 2 times the events a second.
        if (
            raw.__class__ is dict
            and raw.keys() == _EVENT_FIELDS
            and raw["data"].__class__ is dict
            and raw["type"].__class__ is str
            and raw["trace_id"].__class__ is str
            and raw["timestamp"].__class__ is str
        ):
            event = cls.__new__(cls)
            event.__dict__.update(raw, extra={})
            return event
        return cls.from_dict(raw)

    @property
    def text(self) -> str:
        """The text of a token or delta event, else ``""``."""
        if self.type in ("token", "delta"):
            for name in ("text", "token", "delta", "content"):
                value = self.data.get(name)
                if isinstance(value, str):
                    return value
        return ""


@dataclass(frozen=True)
class TraceResponse(_Model):
    """What governance decided for one run, and why. ``violations`` holds objects with ``reason`` and ``severity``."""

    trace_id: str
    decision: str
    violations: Tuple[Any, ...] = ()
    latency_ms: Optional[float] = None
    reason: Optional[str] = None
    risk_score: Optional[float] = None
    policy: Optional[str] = None
    mode: Optional[str] = None
    budget: Optional[float] = None
    timestamp: Optional[str] = None
    extra: Mapping[str, Any] = _extra()


@dataclass(frozen=True)
class HealthResponse(_Model):
    """The service's health. ``status`` has been seen as OK, ok, healthy, degraded and error."""

    status: str
    version: Optional[str] = None
    uptime_seconds: Optional[float] = None
    api_version: Optional[str] = None
    extra: Mapping[str, Any] = _extra()

    @property
    def ok(self) -> bool:
        """True when the service calls itself ok or healthy, in any case; a degraded service is not ok."""
        return self.status.lower() in ("ok", "healthy")


@dataclass(frozen=True)
class ChatResponse(_Model):
    """The answer to one chat message; ``result`` (published form: ``response``) is its text."""

    _aliases = {"result": "response"}

    result: str
    session_id: Optional[str] = None
    trace_id: Optional[str] = None
    model: Optional[str] = None
    processing_time: Optional[float] = None
    extra: Mapping[str, Any] = _extra()

    @property
    def text(self) -> str:
        """The answer's text, as `RunResponse.text`."""
        return self.result

    @property
    def response(self) -> str:
        """``result`` under its published name."""
        return self.result


@dataclass(frozen=True)
class AgentResult(_Model):
    """What an agent made of a task; ``status`` has been seen as RUNNING, COMPLETED, FAILED and BLOCKED."""

    _aliases = {"result": "output"}

    agent_id: str
    result: Optional[str] = None
    trace_id: Optional[str] = None
    status: Optional[str] = None
    error: Optional[str] = None
    extra: Mapping[str, Any] = _extra()

    @property
    def text(self) -> str:
        """The produced text, as `RunResponse.text`; ``""`` where there is none."""
        return self.result or ""

    @property
    def output(self) -> Optional[str]:
        """``result`` under its published name."""
        return self.result


@dataclass(frozen=True)
class SystemStatus(_Model):
    """The service's status and which of its parts are up."""

    status: str
    version: Optional[str] = None
    uptime_seconds: Optional[float] = None
    ollama: Optional[bool] = None
    vllm: Optional[bool] = None
    dsgk: Optional[bool] = None
    storage: Optional[bool] = None
    extra: Mapping[str, Any] = _extra()


@dataclass(frozen=True)
class SystemMetrics(_Model):
    """The service's metrics: the whole mapping in ``metrics``, the published ones as attributes too."""

    metrics: Mapping[str, Any] = field(default_factory=dict)
    cpu_percent: Optional[float] = None
    memory_percent: Optional[float] = None
    active_sessions: Optional[float] = None
    requests_total: Optional[float] = None
    avg_latency_ms: Optional[float] = None
    gpu_percent: Optional[float] = None
    vram_percent: Optional[float] = None
    vram_used_bytes: Optional[float] = None
    vram_total_bytes: Optional[float] = None
    extra: Mapping[str, Any] = _extra()

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> SystemMetrics:
        """Build the model from the documented form ``{"metrics": {...}}`` or the published flat one."""
        if isinstance(body, Mapping) and not isinstance(body.get("metrics"), Mapping):
            body = {"metrics": body}
        if not isinstance(body, Mapping):
            return super().from_dict(body)
        metrics = body["metrics"]
        published = {
            name: metrics[name]
            for name, _, fits, _ in cls._spec()
            if name != "metrics" and name in metrics and fits(metrics[name])
        }
        return super().from_dict(dict(body, **published))


@dataclass(frozen=True)
class ErrorResponse(_Model):
    """A flat error body as the service documents it; errors carry the same facts as attributes."""

    code: str
    message: str
    error: Optional[str] = None
    trace_id: Optional[str] = None
    details: Any = None
    extra: Mapping[str, Any] = _extra()


@dataclass(frozen=True)
class ActionResult(_Model):
    """What became of one approve or reject.

    Attributes:
        idempotency_key: the key of the decision.
        request_id: what ``get_status`` takes: the ``X-Request-Id`` it was sent with or, where the answer to a duplicate
            names it, that of the first request.
        status_code: 202 accepted, 409 duplicate (already processed: safe to ignore), None while queued in the outbox.
        attempts: how many times it was sent.
        data: the service's answer, or ``{}``. While queued, ``extra["reason"]`` says why, where it was tried at all.
        confirmed: False for a duplicate of which nobody said what the key was first used for: it may have been the other
            action.
    """

    idempotency_key: str
    request_id: str
    status_code: Optional[int] = None
    attempts: int = 0
    data: Mapping[str, Any] = field(default_factory=dict)
    confirmed: bool = True
    extra: Mapping[str, Any] = _extra()

    @property
    def accepted(self) -> bool:
        """The service took it now (202, or any other 2xx)."""
        return self.status_code is not None and self.status_code < 300

    @property
    def duplicate(self) -> bool:
        """The service had it already (409)."""
        return self.status_code == 409

    @property
    def queued(self) -> bool:
        """It is in the outbox and is sent by the next flush."""
        return self.status_code is None

    @property
    def settled(self) -> bool:
        """The service has it: accepted or duplicate."""
        return self.accepted or self.duplicate

    def to_dict(self) -> Dict[str, Any]:
        """Return a dict fit for ``json.dumps``, with what the status code means spelled out."""
        meaning = {name: getattr(self, name) for name in ("accepted", "duplicate", "queued", "settled")}
        return dict(super().to_dict(), **meaning)


@dataclass(frozen=True)
class ActionStatus(_Model):
    """How far one action is: PENDING, then COMMITTED or FAILED."""

    request_id: str
    status: str
    action: Optional[str] = None
    data: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = _extra()

    @property
    def done(self) -> bool:
        """The service will not change it any more."""
        return self.status in ("COMMITTED", "FAILED")

    @property
    def committed(self) -> bool:
        """The action took effect."""
        return self.status == "COMMITTED"

    @property
    def approved(self) -> bool:
        """The action took effect and is certainly an approval: any other word for it, or none, is not."""
        return self.committed and self.action == "approve"


@dataclass(frozen=True)
class Conclusion(_Model):
    """What a decision's deadline found: ``AegisClient.conclude`` rejects what nobody had decided by then.

    Attributes:
        idempotency_key: the key of the decision.
        outcome: ``approved``, ``pending`` (approved, and not committed yet), ``rejected``, ``expired`` (nobody had decided,
            and now nobody can), ``failed`` (approved, and the service could not carry it out), or ``unknown`` (somebody was
            first, and nobody can say with what).
        request_id: names the first decision in ``get_status``; None where the service did not say it.
        status: the service's word for how far it is, or None.
        attempts: how many times the question was sent.
    """

    idempotency_key: str
    outcome: str
    request_id: Optional[str] = None
    status: Optional[str] = None
    attempts: int = 0
    extra: Mapping[str, Any] = _extra()

    @property
    def approved(self) -> bool:
        """Somebody approved in time and the action took effect: the only outcome to act upon."""
        return self.outcome == "approved"


@dataclass(frozen=True)
class Ruling(_Model):
    """What governance says of a command before it runs: ``decision`` is ALLOW, or THROTTLE where that was allowed."""

    decision: str
    reason: Optional[str] = None
    policy: Optional[str] = None
    trace_id: Optional[str] = None
    risk_score: Optional[float] = None
    budget: Optional[float] = None
    extra: Mapping[str, Any] = _extra()
