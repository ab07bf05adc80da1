"""Client against the real sandbox: every call with its whole answer; and against raw bytes where the wire has two forms."""

from __future__ import annotations

import logging
import re
import threading
import types
import uuid
import warnings
import weakref

import pytest
import requests

from hestiaos_lite import (
    AegisClient,
    AgentResult,
    ChatResponse,
    Client,
    ConnectionFailed,
    GovernanceBlock,
    HealthResponse,
    HestiaError,
    InvalidInput,
    InvalidResponse,
    NotFound,
    PermissionDenied,
    RequestTimeout,
    RunResponse,
    ServerError,
    SystemMetrics,
    SystemStatus,
    TraceResponse,
    __version__,
)
from hestiaos_lite.sandbox import Sandbox
from hestiaos_lite.wire.transport import USER_AGENT

from .faultserver import FaultServer, answer, hang, ok
from .sandbox_call import A

CANARY = "canary-5f1e"


@pytest.fixture
def client(box):
    with Client(box.url) as made:
        yield made


def the_one(box):
    """The one request that the sandbox has seen: (method, path, body)."""
    (request,) = box.requests
    return request.method, request.path, request.json if request.body else None


# -- every call


RUN_ARGUMENTS = [  # what is given, and the context and options that are sent
    (("x",), {}, (None, None, None), (30000, False)),
    (("naïve \u2028 \U0001f600 \0",), {}, (None, None, None), (30000, False)),
    (("x", "s", "a", "m", 5, True), {}, ("s", "a", "m"), (5, True)),  # by place, as in the published client
    (("x",), {"session_id": "s", "agent_id": "a", "mode_hint": "m", "timeout_ms": 5, "stream": True}, ("s", "a", "m"), (5, True)),
]  # fmt: skip


@pytest.mark.parametrize(("args", "kwargs", "context", "options"), RUN_ARGUMENTS, ids=str)
def test_run(box, client, args, kwargs, context, options):
    answer = client.run(*args, **kwargs)
    text = "processed: " + args[0]
    assert answer == RunResponse("ALLOW", A(str), text, "ALLOW", 1.0, A(float))
    assert (answer.text, answer.extra) == (text, {})
    body = {
        "input": args[0],
        "context": dict(zip(("session_id", "agent_id", "mode_hint"), context)),
        "options": dict(zip(("timeout_ms", "stream"), options)),
    }
    assert the_one(box) == ("POST", "/api/v1/run", body)


def test_a_throttled_run_is_an_answer_and_a_blocked_one_has_a_trace(client):
    answer = client.run("email all customers")
    assert (answer.result, answer.budget) == ("THROTTLE", 0.25)
    with pytest.raises(GovernanceBlock) as caught:
        client.run("rm -rf /")
    block = caught.value
    assert (block.status, block.delivered, block.attempts, block.code) == (403, True, 1, "GOVERNANCE_BLOCK")
    reason = "deletes files by force"
    violations = ({"reason": reason, "severity": "critical"},)
    assert client.trace(block.trace_id) == TraceResponse(
        block.trace_id, "BLOCK", violations, A(float), reason, 1.0, "destructive-shell", "BLOCK", 0.0, A(str)
    )
    assert client.governance.trace(block.trace_id)["decision"] == "BLOCK"


def test_health_and_an_unknown_trace(box, client):
    health = client.health()
    assert health == HealthResponse("ok", "1.0.1", A(float), "v1")
    assert health.ok
    assert the_one(box) == ("GET", "/api/v1/health", None)
    with pytest.raises(NotFound) as caught:
        client.trace("nobody")
    found = caught.value
    assert (found.code, found.message, found.status) == ("NOT_FOUND", "no trace has this id", 404)


def test_chat(box, client):
    for call in (client.chat, client.chat.run, client.chat.send):
        answer = call("hello", session_id="s")
        assert answer == ChatResponse("processed: hello", "s", A(str), "sandbox", A(float))
        assert answer.response == "processed: hello"
        sent = box.requests[-1]
        assert (sent.method, sent.path) == ("POST", "/api/chat")
        assert sent.json == {"message": "hello", "session_id": "s"}
    with pytest.raises(GovernanceBlock):
        client.chat("drop table users")


def test_agents(box, client):
    for call in (client.agents, client.agents.run):
        answer = call("writer", "write", types.MappingProxyType({"tone": "dry"}))
        assert answer == AgentResult("writer", "processed: write", A(str), "COMPLETED")
        assert answer.output == "processed: write"
        sent = box.requests[-1]
        assert (sent.method, sent.path) == ("POST", "/api/agents/run")
        assert sent.json == {"agent_id": "writer", "task": "write", "config": {"tone": "dry"}}
    with pytest.raises(GovernanceBlock):
        client.agents("a", "clean up", config={"argv": ["rm", "-rf", "/"]})


def test_system(client):
    assert client.system.status() == SystemStatus("ok", "1.0.1", A(float), False, False, True, True)
    assert client.system.config()["service"] == "hestiaos-sandbox"
    metrics = client.system.metrics()
    assert metrics == SystemMetrics(metrics.metrics, A(float), A(float), 0, 3, A(float))
    names = ["active_sessions", "avg_latency_ms", "cpu_percent", "memory_percent", "requests_total"]
    assert sorted(metrics.metrics) == names


# fmt: off
@pytest.mark.parametrize("key", [
    "db", "team/../admin", "a b", "ключ", "100%", "a?b#c", "%2e%2e", "+", "a;b=c&d", "...", "\U0001f511", "a\\b", "~",
])
# fmt: on
def test_a_secrets_life(box, client, key):
    assert client.secrets.set(key, "v1") is None
    assert client.secrets.set(key, "v\u2028\n2", provider="vault") is None
    assert client.secrets.get(key) == client.secrets(key) == "v\u2028\n2"
    assert client.secrets.delete(key) is None
    for call in (client.secrets.get, client.secrets.delete):
        with pytest.raises(NotFound):
            call(key)
    assert [request.json for request in box.requests[:2]] == [
        {"credential_ref": key, "secret": "v1", "provider": "custom", "allowed_tools": ["*"]},
        {"credential_ref": key, "secret": "v\u2028\n2", "provider": "vault", "allowed_tools": ["*"]},
    ]
    slashes = {request.path.count("/") for request in box.requests[2:]}
    assert slashes == {3}, "the key did not stay one segment"


def test_governance(box, client):
    explained = client.governance.explain("SHELL", {"command": "rm -rf /"})
    assert (explained["decision"], explained["policy"]) == ("BLOCK", "destructive-shell")
    assert client.governance.explain("SHELL")["decision"] == "ALLOW"
    assert client.governance.status()["status"] == "STABLE"
    trace_id = client.run("hello").trace_id
    assert client.governance.trace(trace_id)["trace_id"] == trace_id
    assert [request.json for request in box.requests[:2]] == [
        {"command_type": "SHELL", "command_input": {"command": "rm -rf /"}},
        {"command_type": "SHELL", "command_input": {}},
    ]


def test_governance_trace_is_none_on_404_alone(box):
    path = "/api/governance/trace/*"
    with Client(box.url, retries=0) as client:
        assert client.governance.trace("unknown") is None
        raised = {500: ServerError, 403: PermissionDenied, 400: InvalidInput, 410: HestiaError, 404: ServerError}
        for status, cls in raised.items():
            box.fail_next(status, path=path, body="<html>" if status == 404 else None)  # a gateway's page
            with pytest.raises(cls):
                client.governance.trace("unknown")
        box.fail_next(200, body=[1], path=path)
        with pytest.raises(InvalidResponse):
            client.governance.trace("unknown")
        box.drop_next(path=path)
        with pytest.raises(ConnectionFailed):
            client.governance.trace("unknown")
    with pytest.raises(ConnectionFailed):
        Client("http://127.0.0.1:1", retries=0).governance.trace("unknown")


# -- what only raw bytes show: test_models has the two forms of each answer


@pytest.mark.parametrize(
    "body",
    [{}, {"value": None}, {"value": 5}, {"value": {"a": CANARY}}, [CANARY], CANARY],
    ids=lambda body: str(body)[:12],
)
def test_an_answer_without_a_secrets_value_is_refused_and_shows_nothing(body):
    with FaultServer(answer(ok(body))) as server, Client(server.url, timeout=5) as client:
        with pytest.raises(InvalidResponse) as caught:
            client.secrets.get("k")
        assert CANARY not in str(caught.value) + repr(caught.value)


# -- arguments


@pytest.mark.parametrize(("call", "message"), [
    (lambda c: c.run(None), "input must be a string, not NoneType"),
    (lambda c: c.run(b"x"), "input must be a string, not bytes"),
    (lambda c: c.run("x", session_id=5), "session_id must be a string, not int"),
    (lambda c: c.run("x", timeout_ms=0), "timeout_ms must be a whole number, 1 or more, not 0"),
    (lambda c: c.run("x", timeout_ms=1.5), "timeout_ms must be a whole number, 1 or more, not 1.5"),
    (lambda c: c.run("x", timeout_ms=True), "timeout_ms must be a whole number, 1 or more, not True"),
    (lambda c: c.run("x", timeout_ms=10**11), "timeout_ms must be less than 100000000000, not 100000000000"),
    (lambda c: c.run("x", timeout_ms=10**400), "timeout_ms must be less than 100000000000, not 1000"),
    (lambda c: c.run_stream(5), "input must be a string, not int"),
    (lambda c: c.chat(5), "message must be a string, not int"),
    (lambda c: c.agents("a", None), "task must be a string, not NoneType"),
    (lambda c: c.agents("a", "t", config=[1]), "config must be a mapping, not list"),
    (lambda c: c.agents("a", "t", config={"x": {1}}), "the request cannot be sent as JSON: "),
    (
        lambda c: c.agents("a", "t", config={"x": float("nan")}),
        "the request cannot be sent as JSON: it holds a NaN or an infinity, is nested too deeply, or contains itself",
    ),
    (lambda c: c.run("\ud800"), "the request cannot be sent as JSON: it holds text that is not valid Unicode"),
    (lambda c: c.secrets.set("k", 5), "value must be a string, not int"),
    (lambda c: c.secrets.set("", "v"), "the secret's key must not be empty"),
    (lambda c: c.secrets.get(".."), "the secret's key must not be '..': it cannot be a path segment"),
    (lambda c: c.secrets.get("\ud800"), "the secret's key is not valid text (it has a lone surrogate)"),
    (lambda c: c.secrets.delete("."), "the secret's key must not be '.': it cannot be a path segment"),
    (lambda c: c.trace(5), "trace_id must be a string, not int"),
    (lambda c: c.trace(""), "trace_id must not be empty"),
    (lambda c: c.governance.trace(None), "command_id must be a string, not NoneType"),
    (lambda c: c.governance.explain(5), "command_type must be a string, not int"),
    (lambda c: c.governance.explain("X", "y"), "command_input must be a mapping, not str"),
], ids=lambda value: value[:40] if isinstance(value, str) else "")  # fmt: skip
def test_a_bad_argument_is_refused_before_anything_is_sent(box, client, call, message):
    with pytest.raises(InvalidInput) as caught:
        call(client)
    error = caught.value
    assert error.message.startswith(message)
    facts = (error.code, error.status, error.delivered, error.attempts, error.exit_code)
    assert facts == ("INVALID_INPUT", None, False, 0, 2)
    assert box.requests == []


# -- headers


def every_call(client):
    """One of each call, without its answer."""
    yield lambda: client.run("x")
    yield lambda: list(client.run_stream("x"))
    yield client.health
    yield lambda: client.trace("x")
    yield lambda: client.chat("x")
    yield lambda: client.agents("a", "t")
    yield client.system.status
    yield client.system.config
    yield client.system.metrics
    yield lambda: client.secrets.set("k", "v")
    yield lambda: client.secrets.get("k")
    yield lambda: client.secrets.delete("k")
    yield lambda: client.governance.explain("X")
    yield client.governance.status
    yield lambda: client.governance.trace("x")


@pytest.mark.parametrize("lent", [False, True], ids=["our session", "lent session"])
def test_headers_of_every_request(lent):
    with Sandbox(api_key="k-1") as box, requests.Session() as session:
        client = Client(
            box.url, api_key=" k-1\n", headers={"X-Team": "blue"}, session=session if lent else None
        )
        for call in every_call(client):
            try:
                call()
            except NotFound:
                pass  # what it asks for is not there; it was asked for with headers all the same
        client.close()
        assert len(box.requests) == 15
        ids = {request.headers["x-request-id"] for request in box.requests}
        assert len(ids) == 15
        for request in box.requests:
            headers = {name.lower(): value for name, value in request.headers.items()}
            assert str(uuid.UUID(headers.pop("x-request-id")))
            assert headers.pop("host") == "127.0.0.1:{}".format(box.port)
            assert headers.pop("connection") == "keep-alive"
            streams = request.path == "/api/v1/run/stream"
            expected = {
                "user-agent": "hestiaos-sdk/1.0.1 hestiaos-lite/" + __version__,
                "accept": "text/event-stream" if streams else "application/json",
                "accept-encoding": "identity" if streams else "gzip, deflate",
                "authorization": "Bearer k-1",
                "x-team": "blue",
            }
            if streams:
                expected["cache-control"] = "no-store"
            if request.method == "POST":
                expected["content-type"] = "application/json"
                expected["content-length"] = str(len(request.body))
            elif lent and request.method == "DELETE":
                headers.pop("content-length", None)  # requests says 0 where it prepares the request
            assert headers == expected, request.path


def test_without_a_key_there_is_no_authorization_and_the_callers_header_wins(box):
    headers = {"User-Agent": "mine/1"}
    with Client(box.url, headers=headers) as client:
        client.health()
    assert "authorization" not in box.requests[0].headers
    assert box.requests[0].headers["user-agent"] == "mine/1"
    assert headers == {"User-Agent": "mine/1"}, "the caller's mapping was changed"


# -- time


def test_timeout_ms_beyond_the_timeout_extends_the_deadline(box):
    """timeout_ms plus 5 s, so that an answer after the client's own timeout is still in time."""
    box.delay_next(0.5)
    with Client(box.url, timeout=0.2, retries=0) as client:
        assert client.run("x", timeout_ms=1000).result == "ALLOW"


@pytest.mark.parametrize("timeout_ms", [1, 200])
def test_timeout_ms_within_the_timeout_does_not(timeout_ms):
    with FaultServer(hang) as server, Client(server.url, timeout=0.2) as client:
        with pytest.raises(RequestTimeout, match="no answer within 0.2 s") as caught:
            client.run("x", timeout_ms=timeout_ms)
        assert (caught.value.delivered, caught.value.attempts) == (None, 1)


# -- sessions


class Counting(requests.Session):
    closed = 0

    def close(self):
        self.closed += 1
        super().close()


def test_a_lent_session_is_used_and_never_closed(box):
    session = Counting()
    session.headers["X-Lent"] = "yes"
    with Client(box.url, session=session) as client:
        client.health()
        with client.run_stream("x") as stream:
            next(stream)
    client.close()
    assert session.closed == 0
    assert [request.headers["x-lent"] for request in box.requests] == ["yes", "yes"]
    assert session.get(box.url + "/api/v1/health").status_code == 200
    session.close()


@pytest.mark.parametrize("service", [Client, AegisClient])
def test_after_close_a_call_opens_a_new_connection(service):
    reply = {"status": "ok", "request_id": "r"}
    with FaultServer(answer(ok(reply))) as server, service(server.url, timeout=5) as client:
        call = client.health if service is Client else lambda: client.get_status("r")
        for closes in (1, 2):  # the second has nothing to close
            call()
            for _ in range(closes):
                client.close()
        with client:
            call()
        call()
        assert (server.connections, server.hits) == (4, 4)


def test_one_connection_serves_one_threads_calls():
    with FaultServer(answer(ok({"status": "ok"}))) as server, Client(server.url, timeout=5) as client:
        for _ in range(5):
            assert client.health().ok
        assert (server.connections, server.hits) == (1, 5)
        threads = [threading.Thread(target=client.health) for _ in range(3)]
        for thread in threads:
            thread.start()
            thread.join()
        assert (server.connections, server.hits) == (4, 8)


def test_a_lost_reference_closes_the_connections():
    with FaultServer(answer(ok({"status": "ok"}))) as server:
        client = Client(server.url, timeout=5)
        client.health()
        lost = weakref.ref(client)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ResourceWarning)
            del client
        left_open = [str(warning.message) for warning in caught if str(server.port) in str(warning.message)]
        assert (lost(), left_open) == (None, [])


# -- what others may see


def test_repr_and_properties():
    client = Client("https://h:8443/base/", api_key=CANARY, timeout=5)
    assert repr(client) == "<Client https://h:8443/base>"
    assert (client.base_url, client.timeout) == ("https://h:8443/base", 5.0)
    assert CANARY not in repr(vars(client))


LINE = re.compile(
    r"(?P<method>[A-Z]+) (?P<path>/\S+) (?P<status>\d{3}|no answer) in \d+ ms, attempt (?P<attempt>\d+), "
    r"request id (?P<request_id>[0-9a-f-]{36})\Z"
)


def test_one_debug_line_a_request_and_one_info_line_a_retry(box, caplog):
    box.fail_next(503, times=1)
    with caplog.at_level(logging.DEBUG, "hestiaos_lite"), Client(box.url) as client:
        client.health()
        with pytest.raises(GovernanceBlock):
            client.run("rm -rf /")
    ours = [record for record in caplog.records if record.getMessage()[0] not in "<>"]
    assert [record.levelname for record in ours] == ["DEBUG", "INFO", "DEBUG", "DEBUG"]
    lines = [LINE.match(record.getMessage()) for record in ours if record.levelname == "DEBUG"]
    ids = [request.headers["x-request-id"] for request in box.requests]
    assert [line.groupdict() for line in lines] == [
        {"method": "GET", "path": "/api/v1/health", "status": "503", "attempt": "1", "request_id": ids[0]},
        {"method": "GET", "path": "/api/v1/health", "status": "200", "attempt": "2", "request_id": ids[1]},
        {"method": "POST", "path": "/api/v1/run", "status": "403", "attempt": "1", "request_id": ids[2]},
    ]
    retry = r"retry GET /api/v1/health in \d\.\d\d s after attempt 1: SCRIPTED_FAULT, request id {}\Z"
    assert re.match(retry.format(ids[0]), ours[1].getMessage())


def test_a_request_without_an_answer_is_logged_too(caplog):
    with caplog.at_level(logging.DEBUG, "hestiaos_lite"), pytest.raises(ConnectionFailed):
        Client("http://127.0.0.1:1", retries=0).health()
    sent, end = [record.getMessage() for record in caplog.records]
    assert sent.startswith("> GET /api/v1/health; ")
    assert LINE.match(end).group("status") == "no answer"


def test_the_heads_of_a_request_and_its_answer_are_logged_without_what_is_nobody_s_business(caplog):
    answered = {
        "X-Echo": "Bearer " + CANARY,
        "Server": "a\x1b[2J\x9b",
        "Set-Cookie": "id=1",
        "X-Subject-Token": "one-of-theirs",
        "Authorization": "Bearer one-of-theirs",
        "Link": "<https://u:password@h/?sig=one-of-theirs>; rel=next",
        "WWW-Authenticate": "Basic realm=hidden",
        "Via": "y" * 500,
        "X-Request-Id": "Bearer " + CANARY,
    }
    with FaultServer(answer(ok({"result": "ALLOW", "trace_id": "t"}, answered))) as server:
        with caplog.at_level(logging.DEBUG, "hestiaos_lite"):
            with Client(server.url, CANARY, headers={"X-Auth": "Token hunter3"}) as client:
                client.run("the body")
    sent, received, _ = [record.getMessage() for record in caplog.records]
    request_id = server.requests[0].headers["x-request-id"]
    length = server.requests[0].headers["content-length"]
    assert sent == (
        "> POST /api/v1/run; User-Agent: {}, Accept: application/json, Accept-Encoding: gzip, deflate, "
        "Connection: keep-alive, X-Auth: ***, X-Request-Id: {}, Content-Type: application/json, Content-Length: {}, "
        "Authorization: ***"
    ).format(USER_AGENT, request_id, length)
    assert received == (
        "< 200; Content-Type: application/json, Content-Length: 36, X-Echo: ***, Server: a\\x1b[2J\\x9b, "
        "Set-Cookie: ***, X-Subject-Token: ***, Authorization: ***, Link: ***, WWW-Authenticate: ***, "
        "Via: {}..., X-Request-Id: Bearer ***"
    ).format("y" * 192)
