"""HestiaOS: every endpoint of the wire contract, as its published client reads it; a request in, a reply out."""

from __future__ import annotations

import json
import os
import re
import threading
import time
import uuid
from datetime import datetime, timezone
from typing import Any, Callable, Dict, Optional, Tuple

from .messages import COUNT, FLAG, NAME, OBJECT, TEXT, TEXTS, Events, Reply, Request, Routes, read, refusal
from .policy import DECISIONS, Policy, Rule, text_of
from .store import Store

VERSION = "1.0.1"
MODEL = "sandbox"
ACTIVE_SESSION_SECONDS = 1800.0
NO_SECRET = "no secret has this key"

# What a request's body is; a secret's provider and tools are of no effect here.
_RUN = {
    "input": TEXT,
    "context?": {"session_id?": TEXT, "agent_id?": TEXT, "mode_hint?": TEXT},
    "options?": {"timeout_ms?": COUNT, "stream?": FLAG},
}
_CHAT = {"message": TEXT, "session_id?": TEXT}
_AGENT = {"agent_id": NAME, "task": TEXT, "config?": OBJECT}
_EXPLAIN = {"command_type": NAME, "command_input?": OBJECT}
_SECRET = {"credential_ref": NAME, "secret": TEXT, "provider?": TEXT, "allowed_tools?": TEXTS}
_WORD = re.compile(r"\s*\S+|\s+")


class Metrics:
    """What the sandbox counts of itself since it was made; safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._started, self._cpu_seconds = time.monotonic(), time.process_time()
        self._counts: Dict[str, float] = {}
        self._sessions: Dict[str, float] = {}  # session id: when last seen

    @property
    def uptime_seconds(self) -> float:
        return round(time.monotonic() - self._started, 3)

    def count(self, name: str, amount: float = 1) -> None:
        """Add to what ``counted`` gives: requests, answers, the seconds they took to make, each decision."""
        with self._lock:
            self._counts[name] = self._counts.get(name, 0) + amount

    def counted(self, name: str) -> int:
        return int(self._counts.get(name, 0))

    def session_seen(self, session_id: str) -> None:
        with self._lock:
            self._sessions[session_id] = time.monotonic()

    def published(self) -> Dict[str, float]:
        """The published flat metrics that are required. Memory is not measured."""
        now = time.monotonic()
        cpu_share = (time.process_time() - self._cpu_seconds) / max(now - self._started, 1e-3)
        with self._lock:
            seen, counts = list(self._sessions.values()), dict(self._counts)
        latency_seconds = counts.get("seconds", 0.0) / max(1, counts.get("answers", 0))
        return {
            "cpu_percent": round(100.0 * cpu_share / (os.cpu_count() or 1), 2),
            "memory_percent": 0.0,
            "active_sessions": sum(at >= now - ACTIVE_SESSION_SECONDS for at in seen),
            "requests_total": self.counted("requests"),
            "avg_latency_ms": round(latency_seconds * 1000, 3),
        }


class HestiaRoutes:
    """The HestiaOS half of the sandbox; ``config`` makes what ``GET /api/system/config`` shows."""

    def __init__(
        self, store: Store, policy: Policy, metrics: Metrics, config: Callable[[], Dict[str, Any]]
    ) -> None:
        self._store, self._policy, self._metrics, self._config = store, policy, metrics, config

    def routes(self) -> Routes:
        """The table of endpoints."""
        return {
            "/api/v1/run": {"POST": self.run},
            "/api/v1/run/stream": {"POST": self.run_stream},
            "/api/v1/health": {"GET": self.health},
            "/api/v1/trace/{trace_id}": {"GET": self.trace},
            "/api/chat": {"POST": self.chat},
            "/api/agents/run": {"POST": self.agent},
            "/api/system/status": {"GET": self.status},
            "/api/system/config": {"GET": lambda request: self._config()},
            "/api/system/metrics": {"GET": lambda request: self._metrics.published()},
            "/api/secrets": {"POST": self.set_secret},
            "/api/secrets/{key}": {"GET": self.get_secret, "DELETE": self.delete_secret},
            "/api/governance/explain": {"POST": self.explain},
            "/api/governance/stability": {"GET": self.stability},
            "/api/governance/trace/{trace_id}": {"GET": self.governance_trace},
        }

    # -- what governance watches

    def run(self, request: Request) -> Dict[str, Any]:
        started = time.perf_counter()
        body = read(request, _RUN)
        ruling, trace_id = self._govern("run", started, body["input"], body["context"]["session_id"])
        return dict(_result(body["input"], ruling, started), trace_id=trace_id)

    def run_stream(self, request: Request) -> Reply:
        started = time.perf_counter()
        body = read(request, _RUN)
        ruling, trace_id = self._govern("run_stream", started, body["input"], body["context"]["session_id"])
        events = _events(body["input"], ruling, trace_id, started)
        return Reply(events=events, headers={"Cache-Control": "no-cache"})

    def chat(self, request: Request) -> Dict[str, Any]:
        started = time.perf_counter()
        body = read(request, _CHAT)
        session_id = body["session_id"] or "session-" + uuid.uuid4().hex
        _, trace_id = self._govern("chat", started, body["message"], session_id)
        return {
            "response": _output(body["message"]),
            "session_id": session_id,
            "processing_time": round(time.perf_counter() - started, 6),
            "model": MODEL,
            "trace_id": trace_id,
        }

    def agent(self, request: Request) -> Dict[str, Any]:
        started = time.perf_counter()
        body = read(request, _AGENT)
        _, trace_id = self._govern("agent", started, text_of(body["task"], body["config"]))
        done = {"status": "COMPLETED", "output": _output(body["task"]), "error": None}
        return dict(done, agent_id=body["agent_id"], trace_id=trace_id)

    def _govern(
        self, command: str, started: float, text: str, session_id: Optional[str] = None
    ) -> Tuple[Rule, str]:
        """Judge a text and keep the trace; raises the 403 with the trace's id when the ruling is BLOCK."""
        if session_id:
            self._metrics.session_seen(session_id)
        ruling = self._policy.judge(text)
        trace_id = str(uuid.uuid4())
        self._metrics.count(ruling.decision)
        violation = {"reason": ruling.reason, "severity": ruling.severity}
        violations = [] if ruling.decision == "ALLOW" else [violation]
        document = dict(ruling.shown(), trace_id=trace_id, command=command, violations=violations)
        document.update(mode=ruling.decision, latency_ms=_milliseconds_since(started), timestamp=_timestamp())
        self._store.write("INSERT INTO traces VALUES (?, ?)", (trace_id, json.dumps(document)))
        if ruling.decision == "BLOCK":
            message = "blocked by policy {}: {}".format(ruling.policy, ruling.reason)
            raise refusal(403, "GOVERNANCE_BLOCK", message, trace_id=trace_id)
        return ruling, trace_id

    # -- looking

    def health(self, request: Request) -> Dict[str, Any]:
        uptime_seconds = self._metrics.uptime_seconds
        return {"status": "ok", "version": VERSION, "uptime_seconds": uptime_seconds, "api_version": "v1"}

    def trace(self, request: Request, trace_id: str) -> Dict[str, Any]:
        kept = self.governance_trace(request, trace_id)
        del kept["command"], kept["rule"]  # its published client refuses any further field
        return kept

    def governance_trace(self, request: Request, trace_id: str) -> Dict[str, Any]:
        kept = self._kept("SELECT document FROM traces WHERE trace_id = ?", trace_id, "no trace has this id")
        return dict(json.loads(kept))

    def status(self, request: Request) -> Dict[str, Any]:
        parts = {"ollama": False, "vllm": False, "dsgk": True, "storage": True}  # dsgk is governance
        return dict(parts, status="ok", version=VERSION, uptime_seconds=self._metrics.uptime_seconds)

    def explain(self, request: Request) -> Dict[str, Any]:
        body = read(request, _EXPLAIN)
        ruling = self._policy.judge(text_of(body["command_type"], body["command_input"]))
        return dict(ruling.shown(), command_type=body["command_type"], severity=ruling.severity)

    def stability(self, request: Request) -> Dict[str, Any]:
        return {
            "status": "STABLE",
            "deterministic": True,
            "policy": self._policy.source,
            "rules": len(self._policy.rules),
            "decisions": {decision: self._metrics.counted(decision) for decision in DECISIONS},
        }

    # -- secrets

    def set_secret(self, request: Request) -> Dict[str, Any]:
        body = read(request, _SECRET)
        self._store.write("INSERT OR REPLACE INTO secrets VALUES (:credential_ref, :secret)", body)
        return {"credential_ref": body["credential_ref"], "status": "stored"}

    def get_secret(self, request: Request, key: str) -> Dict[str, Any]:
        return {"value": self._kept("SELECT secret FROM secrets WHERE credential_ref = ?", key, NO_SECRET)}

    def delete_secret(self, request: Request, key: str) -> Dict[str, Any]:
        if not self._store.write("DELETE FROM secrets WHERE credential_ref = ?", (key,)):
            raise refusal(404, "NOT_FOUND", NO_SECRET)
        return {"credential_ref": key, "status": "deleted"}

    def _kept(self, statement: str, key: str, missing: str) -> Any:
        rows = self._store.read(statement, (key,))
        if not rows:
            raise refusal(404, "NOT_FOUND", missing)
        return rows[0][0]


def _events(text: str, ruling: Rule, trace_id: str, started: float) -> Events:
    def event(kind: str, **data: Any) -> Dict[str, Any]:
        return {"type": kind, "data": data, "trace_id": trace_id, "timestamp": _timestamp()}

    yield event("start", mode=ruling.decision, budget=ruling.budget)
    for word in _WORD.findall(_output(text)):  # the tokens joined are the output
        yield event("token", text=word)
    yield event("final", **_result(text, ruling, started))
    yield event("done")


def _result(text: str, ruling: Rule, started: float) -> Dict[str, Any]:
    return {
        "result": ruling.decision,
        "output": _output(text),
        "mode": ruling.decision,
        "budget": ruling.budget,
        "latency_ms": _milliseconds_since(started),
    }


def _output(text: str) -> str:
    return "processed: " + text


def _milliseconds_since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 3)


def _timestamp() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
