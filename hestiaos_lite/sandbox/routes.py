"""HestiaOS: every endpoint of the wire contract, as its published client reads it; a request in, a reply out."""

from __future__ import annotations

import re
import time
import uuid
from datetime import datetime, timezone
from typing import Any, Callable, Dict, Iterator, List, Tuple

from .body import COUNT, FLAG, NAME, OBJECT, TEXT, TEXTS, read
from .governance import Policy, Ruling, text_of
from .messages import Reply, Request, refusal
from .router import Route
from .store import Store
from .vitals import Vitals

VERSION = "1.0.1"
API_VERSION = "v1"
MODEL = "sandbox"

# What `GET /api/v1/trace/{id}` shows of a kept trace: its published client refuses any field beyond these.
_TRACE_FIELDS = (
    "trace_id",
    "decision",
    "reason",
    "risk_score",
    "policy",
    "violations",
    "mode",
    "budget",
    "latency_ms",
    "timestamp",
)
_CONTEXT = {"session_id": TEXT, "agent_id": TEXT, "mode_hint": TEXT}
_OPTIONS = {"timeout_ms": COUNT, "stream": FLAG}
_WORD = re.compile(r"\s*\S+|\s+")


class HestiaRoutes:
    """The HestiaOS half of the sandbox.

    Args:
        store: where traces and secrets are kept.
        policy: the governance rules.
        vitals: counters for the system endpoints.
        config: what ``GET /api/system/config`` shows.
        pause: called between two tokens of a stream.
    """

    def __init__(
        self,
        store: Store,
        policy: Policy,
        vitals: Vitals,
        config: Callable[[], Dict[str, Any]],
        pause: Callable[[], None],
    ) -> None:
        self._store = store
        self._policy = policy
        self._vitals = vitals
        self._config = config
        self._pause = pause

    def routes(self) -> List[Route]:
        """The table of endpoints."""
        return [
            ("POST", "/api/v1/run", self.run),
            ("POST", "/api/v1/run/stream", self.run_stream),
            ("GET", "/api/v1/health", self.health),
            ("GET", "/api/v1/trace/{trace_id}", self.trace),
            ("POST", "/api/chat", self.chat),
            ("POST", "/api/agents/run", self.agent),
            ("GET", "/api/system/status", self.status),
            ("GET", "/api/system/config", self.config),
            ("GET", "/api/system/metrics", self.metrics),
            ("POST", "/api/secrets", self.set_secret),
            ("GET", "/api/secrets/{key}", self.get_secret),
            ("DELETE", "/api/secrets/{key}", self.delete_secret),
            ("POST", "/api/governance/explain", self.explain),
            ("GET", "/api/governance/stability", self.stability),
            ("GET", "/api/governance/trace/{command_id}", self.governance_trace),
        ]

    # -- what governance watches

    def run(self, request: Request) -> Reply:
        started = time.perf_counter()
        text = self._run_input(request)
        ruling, trace_id = self._govern("run", started, text)
        return Reply(
            payload={
                "result": ruling.decision,
                "output": _output(text),
                "mode": ruling.decision,
                "budget": ruling.budget,
                "trace_id": trace_id,
                "latency_ms": _milliseconds_since(started),
            }
        )

    def run_stream(self, request: Request) -> Reply:
        started = time.perf_counter()
        text = self._run_input(request)
        ruling, trace_id = self._govern("run_stream", started, text)
        return Reply(events=self._events(text, ruling, trace_id, started))

    def chat(self, request: Request) -> Reply:
        started = time.perf_counter()
        body = read(request, {"message": TEXT}, {"session_id": TEXT})
        message = body["message"]
        session_id = body["session_id"] or "session-" + uuid.uuid4().hex
        self._vitals.session_seen(session_id)
        _, trace_id = self._govern("chat", started, message)
        return Reply(
            payload={
                "response": _output(message),
                "session_id": session_id,
                "processing_time": round(time.perf_counter() - started, 6),
                "model": MODEL,
                "trace_id": trace_id,
            }
        )

    def agent(self, request: Request) -> Reply:
        started = time.perf_counter()
        body = read(request, {"agent_id": NAME, "task": TEXT}, {"config": OBJECT})
        _, trace_id = self._govern("agent", started, text_of(body["task"], body["config"]))
        return Reply(
            payload={
                "agent_id": body["agent_id"],
                "status": "COMPLETED",
                "output": _output(body["task"]),
                "error": None,
                "trace_id": trace_id,
            }
        )

    def _run_input(self, request: Request) -> str:
        body = read(request, {"input": TEXT}, {"context": _CONTEXT, "options": _OPTIONS})
        if body["context"]["session_id"]:
            self._vitals.session_seen(body["context"]["session_id"])
        return str(body["input"])

    def _govern(self, command: str, started: float, text: str) -> Tuple[Ruling, str]:
        """Judge a text and keep the trace; raises the 403 with the trace's id when the ruling is BLOCK."""
        ruling = self._policy.judge(text)
        trace_id = str(uuid.uuid4())
        self._vitals.decided(ruling.decision)
        self._store.add_trace(
            trace_id,
            {
                "trace_id": trace_id,
                "decision": ruling.decision,
                "reason": ruling.reason,
                "risk_score": ruling.risk_score,
                "policy": ruling.policy,
                "violations": ruling.violations,
                "mode": ruling.decision,
                "budget": ruling.budget,
                "latency_ms": _milliseconds_since(started),
                "timestamp": _timestamp(),
                "command": command,
                "rule": ruling.matched_rule,
            },
        )
        if ruling.decision == "BLOCK":
            message = "blocked by policy {}: {}".format(ruling.policy, ruling.reason)
            raise refusal(403, "GOVERNANCE_BLOCK", message, trace_id=trace_id)
        return ruling, trace_id

    def _events(self, text: str, ruling: Ruling, trace_id: str, started: float) -> Iterator[Dict[str, Any]]:
        def event(kind: str, **data: Any) -> Dict[str, Any]:
            return {"type": kind, "data": data, "trace_id": trace_id, "timestamp": _timestamp()}

        output = _output(text)
        yield event("start", mode=ruling.decision, budget=ruling.budget)
        for word in _WORD.findall(output):  # the tokens joined are the output
            self._pause()
            yield event("token", text=word)
        yield event(
            "final",
            result=ruling.decision,
            output=output,
            mode=ruling.decision,
            budget=ruling.budget,
            latency_ms=_milliseconds_since(started),
        )
        yield event("done")

    # -- looking

    def health(self, request: Request) -> Reply:
        return Reply(
            payload={
                "status": "ok",
                "version": VERSION,
                "uptime_seconds": self._vitals.uptime_seconds,
                "api_version": API_VERSION,
            }
        )

    def trace(self, request: Request, trace_id: str) -> Reply:
        document = self._known_trace(trace_id)
        return Reply(payload={name: document[name] for name in _TRACE_FIELDS})

    def governance_trace(self, request: Request, command_id: str) -> Reply:
        return Reply(payload=self._known_trace(command_id))

    def _known_trace(self, trace_id: str) -> Dict[str, Any]:
        document = self._store.trace(trace_id)
        if document is None:
            raise refusal(404, "NOT_FOUND", "no trace has this id")
        return document

    def status(self, request: Request) -> Reply:
        return Reply(
            payload={
                "status": "ok",
                "ollama": False,
                "vllm": False,
                "dsgk": True,  # governance, which is always on
                "storage": True,
                "version": VERSION,
                "uptime_seconds": self._vitals.uptime_seconds,
            }
        )

    def config(self, request: Request) -> Reply:
        return Reply(payload=self._config())

    def metrics(self, request: Request) -> Reply:
        return Reply(payload=self._vitals.metrics())

    def explain(self, request: Request) -> Reply:
        body = read(request, {"command_type": NAME}, {"command_input": OBJECT})
        ruling = self._policy.judge(text_of(body["command_type"], body["command_input"]))
        return Reply(
            payload={
                "command_type": body["command_type"],
                "decision": ruling.decision,
                "policy": ruling.policy,
                "reason": ruling.reason,
                "severity": ruling.severity,
                "risk_score": ruling.risk_score,
                "budget": ruling.budget,
                "rule": ruling.matched_rule,
            }
        )

    def stability(self, request: Request) -> Reply:
        return Reply(
            payload={
                "status": "STABLE",
                "deterministic": True,
                "policy": self._policy.source,
                "rules": len(self._policy.rules),
                "decisions": self._vitals.decisions(),
            }
        )

    # -- secrets

    def set_secret(self, request: Request) -> Reply:
        body = read(
            request, {"credential_ref": NAME, "secret": TEXT}, {"provider": TEXT, "allowed_tools": TEXTS}
        )
        key = body["credential_ref"]
        self._store.set_secret(
            key, body["secret"], body["provider"] or "custom", body["allowed_tools"] or ["*"]
        )
        return Reply(payload={"credential_ref": key, "status": "stored"})

    def get_secret(self, request: Request, key: str) -> Reply:
        value = self._store.secret(key)
        if value is None:
            raise refusal(404, "NOT_FOUND", "no secret has this key")
        return Reply(payload={"value": value})

    def delete_secret(self, request: Request, key: str) -> Reply:
        if not self._store.delete_secret(key):
            raise refusal(404, "NOT_FOUND", "no secret has this key")
        return Reply(payload={"credential_ref": key, "status": "deleted"})


def _output(text: str) -> str:
    return "processed: " + text


def _milliseconds_since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 3)


def _timestamp() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
