"""chat, agents, system, secrets, governance: each method builds a body, makes one call and returns a model."""

from __future__ import annotations

from typing import Any, Dict, Mapping, Optional

from . import errors, models
from ._check import check_optional_mapping, check_optional_text, check_segment, check_text
from ._redact import one_line, secret
from .models import is_refusal
from .wire.transport import Caller

_EXPLAIN = "/api/governance/explain"
_THROTTLED = {"code": "GOVERNANCE_THROTTLE", "advice": "it may be allowed at another time"}
_MAY_RUN = ("ALLOW", "THROTTLE")  # any other known word is a refusal, and stricter


class _Namespace:
    def __init__(self, caller: Caller) -> None:
        self._caller = caller


class Chat(_Namespace):
    """``client.chat``: one message, one answer. ``client.chat(...)`` and ``client.chat.send(...)`` are `run`."""

    def run(self, message: str, session_id: Optional[str] = None) -> models.ChatResponse:
        """Send one chat message.

        Raises:
            GovernanceBlock: governance refused the message.
        """
        body = {
            "message": check_text("message", message),
            "session_id": check_optional_text("session_id", session_id),
        }
        return self._caller.post("/api/chat", body, models.ChatResponse.from_dict, governed=True)

    send = run
    __call__ = run


class Agents(_Namespace):
    """``client.agents``: run a task with an agent. ``client.agents(...)`` is `run`."""

    def run(self, agent_id: str, task: str, config: Optional[Mapping[str, Any]] = None) -> models.AgentResult:
        """Give a task to an agent; ``config`` is passed to the agent.

        Raises:
            GovernanceBlock: governance refused the task.
        """
        body = {
            "agent_id": check_text("agent_id", agent_id),
            "task": check_text("task", task),
            "config": check_optional_mapping("config", config),
        }
        return self._caller.post("/api/agents/run", body, models.AgentResult.from_dict, governed=True)

    __call__ = run


class System(_Namespace):
    """``client.system``: the service's status, configuration and metrics."""

    def status(self) -> models.SystemStatus:
        """Ask for the service's status."""
        return self._caller.get("/api/system/status", models.SystemStatus.from_dict)

    def config(self) -> Dict[str, Any]:
        """Ask for the service's configuration; the answer unchanged."""
        return self._caller.get("/api/system/config", mapping)

    def metrics(self) -> models.SystemMetrics:
        """Ask for the service's metrics."""
        return self._caller.get("/api/system/metrics", models.SystemMetrics.from_dict)


class Secrets(_Namespace):
    """``client.secrets``: values stored with the service. ``client.secrets(key)`` is `get`.

    A value is returned as a plain string and kept nowhere: no model, log line or error of ours shows one.
    """

    def get(self, key: str) -> str:
        """Return a secret's value.

        Raises:
            NotFound: there is no secret of this name.
        """
        return self._caller.get("/api/secrets/" + check_segment("the secret's key", key), _secret_value)

    def set(self, key: str, value: str, provider: str = "custom") -> None:
        """Store a secret; an older value of the same key is replaced."""
        value = secret(value)
        check_segment("the secret's key", key)  # what could not be read back is not stored
        body = {
            "credential_ref": key,
            "secret": check_text("value", value),
            "provider": check_text("provider", provider),
            "allowed_tools": ["*"],
        }
        self._caller.send("POST", "/api/secrets", body, secrets=(value,))

    def delete(self, key: str) -> None:
        """Delete a secret.

        Raises:
            NotFound: there is no secret of this name (also when an earlier attempt whose answer was lost has deleted it).
        """
        self._caller.send("DELETE", "/api/secrets/" + check_segment("the secret's key", key))

    __call__ = get


class Governance(_Namespace):
    """``client.governance``: what governance would decide, and what it has decided."""

    def explain(self, command_type: str, command_input: Optional[Mapping[str, Any]] = None) -> Dict[str, Any]:
        """Ask what governance would decide about a command, and why; nothing is executed."""
        return self._caller.post(_EXPLAIN, _command(command_type, command_input), mapping, changes=False)

    def require(
        self,
        command_type: str,
        command_input: Optional[Mapping[str, Any]] = None,
        *,
        allow_throttle: bool = False,
    ) -> models.Ruling:
        """Ask governance about a command that is to run now, and return its ruling; raise unless the command may run.

        It is advice taken beforehand: nothing is recorded or enforced by the service. Every failure raises, so that what
        follows the call runs only on ALLOW, or on THROTTLE where ``allow_throttle`` is true.

        Raises:
            GovernanceBlock: governance refuses it (code ``GOVERNANCE_BLOCK``), or says THROTTLE and that is not allowed
                (``GOVERNANCE_THROTTLE``).
            InvalidResponse: the answer names no decision, or one that is not known.
        """

        def decode(body: Any) -> models.Ruling:
            ruling = ruling_of(body)
            if ruling.decision == "ALLOW" or (ruling.decision == "THROTTLE" and allow_throttle):
                return ruling
            reason = ": {}".format(one_line(ruling.reason)) if ruling.reason else ""
            raise errors.GovernanceBlock(
                ruling.trace_id,
                "governance says {}{}".format(ruling.decision, reason),
                details=body,
                **(_THROTTLED if ruling.decision == "THROTTLE" else {}),
            )

        return self._caller.post(_EXPLAIN, _command(command_type, command_input), decode, changes=False)

    def status(self) -> Dict[str, Any]:
        """Ask how stable governance is; the answer unchanged."""
        return self._caller.get("/api/governance/stability", mapping)

    def trace(self, command_id: str) -> Optional[Dict[str, Any]]:
        """Return governance's trace of a command, or None when it knows none (404); every other failure is raised.

        Raises:
            InvalidResponse: the answer is about another command.
        """
        path = "/api/governance/trace/" + check_segment("command_id", command_id)

        def decode(body: Any) -> Dict[str, Any]:
            trace = mapping(body)
            named = [trace[name] for name in ("command_id", "trace_id") if trace.get(name)]
            if named and command_id not in named:
                raise errors.InvalidResponse("the answer is about another command", details=body)
            return trace

        try:
            return self._caller.get(path, decode)
        except errors.NotFound:
            return None


def _command(command_type: Any, command_input: Any) -> Dict[str, Any]:
    return {
        "command_type": check_text("command_type", command_type),
        "command_input": check_optional_mapping("command_input", command_input) or {},
    }


def mapping(body: Any) -> Dict[str, Any]:
    """Decode an answer that may be any JSON object."""
    if not isinstance(body, dict):
        raise errors.InvalidResponse("expected a JSON object", details=body)
    return body


def ruling_of(body: Any) -> models.Ruling:
    """Decide what an answer of ``explain`` says: the strictest known word of its decision, result and mode, in any case.

    ``result`` and ``mode`` may hold anything else, and are passed over then; a ``decision`` that is there must be known.

    Raises:
        InvalidResponse: there is no decision, or one that is not known, which may be a refusal.
    """
    body = mapping(body)
    named = {name: body[name] for name in ("decision", "result", "mode") if name in body}
    words = {name: word.strip().upper() if isinstance(word, str) else "" for name, word in named.items()}
    known = [word for word in words.values() if word in _MAY_RUN or is_refusal(word)]
    if not known or words.get("decision", known[0]) not in known:
        trace_id = body.get("trace_id")
        fault = "names no decision" if "decision" not in words else "names a decision that is not known"
        raise errors.InvalidResponse(
            "governance " + fault, trace_id if isinstance(trace_id, str) else None, details=body
        )
    strictest = max(known, key=lambda word: _MAY_RUN.index(word) if word in _MAY_RUN else len(_MAY_RUN))
    return models.Ruling.from_dict(dict(body, decision=strictest))


def _secret_value(body: Any) -> str:
    value = mapping(body).get("value")
    if not isinstance(value, str):
        # without details, which might hold one after all
        raise errors.InvalidResponse("the answer holds no value")
    return value
