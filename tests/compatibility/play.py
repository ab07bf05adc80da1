"""One exchange for each call of both clients, for whatever plays the service."""

from __future__ import annotations

import json
from typing import Any, Callable, List, NamedTuple

import pytest
import requests

from hestiaos_lite import AegisClient, Client, HestiaError
from hestiaos_lite.models import RunResponse

URL = "http://service.example:8000"  # nobody resolves it
KINDS = pytest.mark.parametrize("kind", ["own", "callers"])
_STREAM = [
    {"type": "start", "trace_id": "t-1"},
    {"type": "token", "data": {"text": "naïve"}},
    {"type": "done"},
]


def session_of(kind: str) -> Any:
    """None for a session of the client's own, else one of the caller's."""
    return requests.Session() if kind == "callers" else None


def call_everything(url: str, kind: str = "own") -> None:
    """A call, a stream, a decision, and a look that finds nothing: four requests to a sandbox."""
    session = session_of(kind)
    options = {"session": session, "tenant_id": "acme", "thread_id": "main"}
    with Client(url, session=session) as client, AegisClient(url, **options) as aegis:
        assert client.run("hello").result == "ALLOW"
        assert [event.type for event in client.run_stream("hello")][-1] == "done"
        assert aegis.approve("key").accepted
        assert client.governance.trace("none") is None
    if session is not None:
        session.close()


class Exchange(NamedTuple):
    """A call, what the service answers, and what the caller then has."""

    name: str
    method: str
    path: str
    status: int
    wire: Any
    call: Callable[[Client, AegisClient], Any]
    outcome: Any

    @property
    def is_stream(self) -> bool:
        return isinstance(self.wire, list)

    @property
    def content_type(self) -> str:
        return "text/event-stream" if self.is_stream else "application/json"

    @property
    def body(self) -> str:
        if self.is_stream:
            return "".join("data: {}\n\n".format(json.dumps(event)) for event in self.wire)
        return json.dumps(self.wire)

    def played(self, session: Any = None, url: str = URL) -> Any:
        """Make the call with new clients; return its result, or its error's name and status."""
        with Client(url, session=session, retries=0, timeout=10) as client:
            with AegisClient(
                url, session=session, max_retries=0, tenant_id="acme", thread_id="main"
            ) as aegis:
                try:
                    return self.call(client, aegis)
                except HestiaError as error:
                    return type(error).__name__, error.status


RUN = {"result": "ALLOW", "trace_id": "t-1", "output": "hello"}
BLOCKED = ("GovernanceBlock", 403)


def action(status: str) -> Any:
    return {"request_id": "r-1", "status": status, "action": "approve"}


# fmt: off
ROWS: List[Any] = [
    # name, method, path, status, what comes, the call, what the caller has
    ("run", "POST", "/api/v1/run", 200, RUN, lambda c, a: c.run("x"), RunResponse.from_dict(RUN)),
    ("run_stream", "POST", "/api/v1/run/stream", 200, _STREAM, lambda c, a: [(event.type, event.text) for event in c.run_stream("x")],
        [("start", ""), ("token", "naïve"), ("done", "")]),
    ("cut-stream", "POST", "/api/v1/run/stream", 200, _STREAM[:1], lambda c, a: list(c.run_stream("x")), ("StreamInterrupted", 200)),
    ("health", "GET", "/api/v1/health", 200, {"status": "ok"}, lambda c, a: c.health().ok, True),
    ("trace", "GET", "/api/v1/trace/t-1", 200, {"trace_id": "t-1", "decision": "ALLOW"}, lambda c, a: c.trace("t-1").decision, "ALLOW"),
    ("chat", "POST", "/api/chat", 200, {"response": "hi"}, lambda c, a: c.chat("x").response, "hi"),
    ("agents", "POST", "/api/agents/run", 200, {"agent_id": "a", "output": "done"}, lambda c, a: c.agents("a", "task").output, "done"),
    ("status", "GET", "/api/system/status", 200, {"status": "ok", "ollama": True}, lambda c, a: c.system.status().ollama, True),
    ("config", "GET", "/api/system/config", 200, {"a": [1]}, lambda c, a: c.system.config(), {"a": [1]}),
    ("metrics", "GET", "/api/system/metrics", 200, {"metrics": {"cpu_percent": 5.0}}, lambda c, a: c.system.metrics().metrics, {"cpu_percent": 5.0}),
    ("get", "GET", "/api/secrets/k", 200, {"value": "v"}, lambda c, a: c.secrets.get("k"), "v"),
    ("set", "POST", "/api/secrets", 201, {}, lambda c, a: c.secrets.set("k", "v"), None),
    ("delete", "DELETE", "/api/secrets/k", 200, {}, lambda c, a: c.secrets.delete("k"), None),
    ("explain", "POST", "/api/governance/explain", 200, {"decision": "BLOCK"}, lambda c, a: c.governance.explain("rm"), {"decision": "BLOCK"}),
    ("no-trace", "GET", "/api/governance/trace/c", 404, {}, lambda c, a: c.governance.trace("c"), None),
    ("approve", "POST", "/api/v1/hitl/approve", 202, action("PENDING"), lambda c, a: a.approve("key").accepted, True),
    ("duplicate", "POST", "/api/v1/hitl/approve", 409, action("COMMITTED"), lambda c, a: (a.approve("key").duplicate, a.approve("key").request_id), (True, "r-1")),
    ("action", "GET", "/api/v1/hitl/status/r-1", 200, action("COMMITTED"), lambda c, a: a.get_status("r-1").approved, True),
    ("blocked", "POST", "/api/v1/run", 403, {"code": "X"}, lambda c, a: c.run("x"), BLOCKED),
    ("stream-blocked", "POST", "/api/v1/run/stream", 403, {"code": "X"}, lambda c, a: c.run_stream("x"), BLOCKED),
    ("down", "GET", "/api/v1/health", 503, {}, lambda c, a: c.health(), ("ServerError", 503)),
]
# fmt: on
EXCHANGES = [Exchange(*row) for row in ROWS]
