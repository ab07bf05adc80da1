"""chat, agents, system, secrets, governance: each method builds a body, makes one call and returns a model."""

from __future__ import annotations

from typing import Any, Callable, Dict, Mapping, Optional, TypeVar

from . import errors
from .models import AgentResult, ChatResponse, SystemMetrics, SystemStatus
from .wire.call import Call, segment, text
from .wire.retry import RetryPolicy
from .wire.transport import Transport

_T = TypeVar("_T")

# The answers that invite another attempt (API.md, "Retries"): the first two say that nothing was done.
_RETRY_ANY = frozenset({429, 503})
_RETRY_READ = frozenset({429, 502, 503, 504})


class Caller:
    """What every namespace calls through: the transport with one client's deadline and retries."""

    def __init__(self, transport: Transport, timeout_seconds: float, retries: int) -> None:
        self.transport = transport
        self.timeout_seconds = timeout_seconds
        self._repeatable = RetryPolicy(retries, statuses=_RETRY_READ, repeatable=True)
        self._once = RetryPolicy(retries, statuses=_RETRY_ANY, repeatable=False)

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> Call:
        """Describe a call; a POST that may have been delivered is never repeated, a GET or DELETE may be."""
        options.setdefault("timeout_seconds", self.timeout_seconds)
        return Call(method, path, body, retry=self._once if method == "POST" else self._repeatable, **options)

    def get(self, path: str, decode: Callable[[Any], _T]) -> _T:
        """GET and decode."""
        return self.transport.request(self.call("GET", path), decode)


class Chat:
    """``client.chat``: one message, one answer. ``client.chat(...)`` and ``client.chat.send(...)`` are `run`."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def run(self, message: str, session_id: Optional[str] = None) -> ChatResponse:
        """Send one chat message.

        Raises:
            GovernanceBlock: governance refused the message.
        """
        body = {"message": text("message", message), "session_id": optional_text("session_id", session_id)}
        call = self._caller.call("POST", "/api/chat", body, governed=True)
        return self._caller.transport.request(call, ChatResponse.from_dict)

    send = run
    __call__ = run


class Agents:
    """``client.agents``: run a task with an agent. ``client.agents(...)`` is `run`."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def run(self, agent_id: str, task: str, config: Optional[Mapping[str, Any]] = None) -> AgentResult:
        """Give a task to an agent; ``config`` is the agent's own.

        Raises:
            GovernanceBlock: governance refused the task.
        """
        body = {
            "agent_id": text("agent_id", agent_id),
            "task": text("task", task),
            "config": optional_mapping("config", config),
        }
        call = self._caller.call("POST", "/api/agents/run", body, governed=True)
        return self._caller.transport.request(call, AgentResult.from_dict)

    __call__ = run


class System:
    """``client.system``: the service's status, configuration and metrics."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def status(self) -> SystemStatus:
        """Ask for the service's status."""
        return self._caller.get("/api/system/status", SystemStatus.from_dict)

    def config(self) -> Dict[str, Any]:
        """Ask for the service's configuration, as it is."""
        return self._caller.get("/api/system/config", mapping)

    def metrics(self) -> SystemMetrics:
        """Ask for the service's metrics."""
        return self._caller.get("/api/system/metrics", SystemMetrics.from_dict)


class Secrets:
    """``client.secrets``: values stored with the service. ``client.secrets(key)`` is `get`.

    A value is returned as a plain string and kept nowhere: no model, log line or error of ours shows one.
    """

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def get(self, key: str) -> str:
        """Return a secret's value.

        Raises:
            NotFound: there is no secret of this name.
        """
        return self._caller.get("/api/secrets/" + segment("the secret's key", key), _secret_value)

    def set(self, key: str, value: str, provider: str = "custom") -> None:
        """Store a secret; an older value of the same key is replaced."""
        segment("the secret's key", key)  # what could not be read back is not stored
        body = {
            "credential_ref": key,
            "secret": text("value", value),
            "provider": text("provider", provider),
            "allowed_tools": ["*"],
        }
        self._caller.transport.send(self._caller.call("POST", "/api/secrets", body, secrets=(value,)))

    def delete(self, key: str) -> None:
        """Delete a secret.

        Raises:
            NotFound: there is no secret of this name (also when an earlier attempt whose answer was lost has deleted it).
        """
        self._caller.transport.send(
            self._caller.call("DELETE", "/api/secrets/" + segment("the secret's key", key))
        )

    __call__ = get


class Governance:
    """``client.governance``: what governance would decide, and what it has decided."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def explain(self, command_type: str, command_input: Optional[Mapping[str, Any]] = None) -> Dict[str, Any]:
        """Ask what governance would decide about a command, and why; nothing is executed."""
        body = {
            "command_type": text("command_type", command_type),
            "command_input": optional_mapping("command_input", command_input) or {},
        }
        return self._caller.transport.request(
            self._caller.call("POST", "/api/governance/explain", body), mapping
        )

    def status(self) -> Dict[str, Any]:
        """Ask for the stability of governance, as it is."""
        return self._caller.get("/api/governance/stability", mapping)

    def trace(self, command_id: str) -> Optional[Dict[str, Any]]:
        """Return governance's trace of a command, or None when it knows none (404); every other failure is raised."""
        try:
            return self._caller.get("/api/governance/trace/" + segment("command_id", command_id), mapping)
        except errors.NotFound:
            return None


def optional_text(name: str, value: Any) -> Optional[str]:
    """Return a string argument or None, or raise InvalidInput naming it."""
    return None if value is None else text(name, value)


def optional_mapping(name: str, value: Any) -> Optional[Dict[str, Any]]:
    """Return a mapping argument as a dict, or None, or raise InvalidInput naming it."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise errors.InvalidInput("{} must be a mapping, not {}".format(name, type(value).__name__))
    return dict(value)


def mapping(body: Any) -> Dict[str, Any]:
    """Decode an answer that may be any JSON object."""
    if not isinstance(body, dict):
        raise errors.InvalidResponse("expected a JSON object", details=body)
    return body


def _secret_value(body: Any) -> str:
    value = mapping(body).get("value")
    if not isinstance(value, str):
        raise errors.InvalidResponse(
            "the answer holds no value"
        )  # without details, which might hold one after all
    return value
