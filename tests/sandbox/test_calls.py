"""HestiaOS in the sandbox: every endpoint's whole answer, state, keys, life and death."""

from __future__ import annotations

import os
import re
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from urllib.parse import quote

import pytest

from hestiaos_lite.sandbox import Sandbox

from ..sandbox_call import A, call, events_of, steady_port

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00\Z")


@pytest.fixture(scope="module")
def box():
    with Sandbox() as running:
        yield running


# -- run


@pytest.mark.parametrize(
    ("text", "decision", "budget"),
    [
        ("create a report", "ALLOW", 1.0),
        ("", "ALLOW", 1.0),
        ("naïve \u2028 \U0001f600", "ALLOW", 1.0),
        ("email all customers", "THROTTLE", 0.25),
    ],
    ids=["allowed", "empty", "unicode", "throttled"],
)
def test_run_answers_the_published_form(box, text, decision, budget):
    answer = call(box, "POST", "/api/v1/run", {"input": text, "context": {"session_id": None}, "options": {}})
    assert answer.status == 200
    assert answer.body == {
        "result": decision,
        "output": "processed: " + text,
        "mode": decision,
        "budget": budget,
        "trace_id": A(str),
        "latency_ms": A(float),
    }
    assert UUID.match(answer.body["trace_id"])


def test_a_blocked_run_is_a_403_with_its_trace_id_flat_and_nested(box):
    answer = call(box, "POST", "/api/v1/run", {"input": "rm -rf /"})
    trace_id = answer.body["trace_id"]
    facts = {
        "code": "GOVERNANCE_BLOCK",
        "message": "blocked by policy destructive-shell: deletes files by force",
        "trace_id": trace_id,
    }
    assert (answer.status, answer.body) == (403, dict(facts, detail=facts))

    trace = call(box, "GET", "/api/v1/trace/" + trace_id)
    published = {
        "trace_id": trace_id,
        "decision": "BLOCK",
        "reason": "deletes files by force",
        "risk_score": 1.0,
        "policy": "destructive-shell",
        "violations": [{"reason": "deletes files by force", "severity": "critical"}],
        "mode": "BLOCK",
        "budget": 0.0,
        "latency_ms": A(float),
        "timestamp": A(str),
    }
    assert (trace.status, trace.body) == (200, published)
    assert TIMESTAMP.match(trace.body["timestamp"])

    rule = {"number": 1, "pattern": A(str), "policy": "destructive-shell"}
    trace = call(box, "GET", "/api/governance/trace/" + trace_id)
    assert (trace.status, trace.body) == (200, dict(published, command="run", rule=rule))


def test_an_allowed_trace_has_no_violations(box):
    trace_id = call(box, "POST", "/api/v1/run", {"input": "hello"}).body["trace_id"]
    assert call(box, "GET", "/api/v1/trace/" + trace_id).body == {
        "trace_id": trace_id,
        "decision": "ALLOW",
        "reason": "no rule matched",
        "risk_score": 0.0,
        "policy": "default-allow",
        "violations": [],
        "mode": "ALLOW",
        "budget": 1.0,
        "latency_ms": A(float),
        "timestamp": A(str),
    }


@pytest.mark.parametrize("path", ["/api/v1/trace/none", "/api/governance/trace/none"])
def test_an_unknown_trace_is_a_404(box, path):
    facts = {"code": "NOT_FOUND", "message": "no trace has this id"}
    assert call(box, "GET", path)[:2] == (404, dict(facts, detail=facts))


# -- the stream


def test_a_stream_comes_in_order_and_its_tokens_are_the_output(box):
    answer = call(
        box, "POST", "/api/v1/run/stream", {"input": "two  words\n\u2028", "options": {"stream": True}}
    )
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
    events = events_of(answer)
    trace_id = events[0]["trace_id"]
    output = "processed: two  words\n\u2028"

    def event(kind, **data):
        return {"type": kind, "data": data, "trace_id": trace_id, "timestamp": A(str)}

    assert events == [
        event("start", mode="ALLOW", budget=1.0),
        event("token", text="processed:"),
        event("token", text=" two"),
        event("token", text="  words"),
        event("token", text="\n\u2028"),
        event("final", result="ALLOW", output=output, mode="ALLOW", budget=1.0, latency_ms=A(float)),
        event("done"),
    ]
    assert "".join(each["data"]["text"] for each in events if each["type"] == "token") == output
    assert call(box, "GET", "/api/governance/trace/" + trace_id).body["command"] == "run_stream"


def test_a_blocked_stream_is_a_403_before_any_event(box):
    answer = call(box, "POST", "/api/v1/run/stream", {"input": "DROP TABLE users"})
    assert (answer.status, answer.headers["Content-Type"]) == (403, "application/json")
    assert answer.body["trace_id"] == answer.body["detail"]["trace_id"]


def test_each_token_is_sent_as_it_is_made():
    with Sandbox(token_delay_seconds=30) as slow, socket.create_connection(
        (slow.host, slow.port), 10
    ) as client:
        body = b'{"input": "x"}'
        client.sendall(
            b"POST /api/v1/run/stream HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            % len(body)
            + body
        )
        seen = b""
        while b'"start"' not in seen:  # the rest would be half a minute away
            seen += client.recv(4096)
        assert b"Transfer-Encoding: chunked" in seen
        assert b'"token"' not in seen


# -- chat and agents


def test_chat(box):
    answer = call(box, "POST", "/api/chat", {"message": "hello", "session_id": "s-1"})
    assert (answer.status, answer.body) == (
        200,
        {
            "response": "processed: hello",
            "session_id": "s-1",
            "processing_time": A(float),
            "model": "sandbox",
            "trace_id": A(str),
        },
    )
    given = call(box, "POST", "/api/chat", {"message": "hello", "session_id": None}).body["session_id"]
    assert given.startswith("session-")


def test_agents(box):
    answer = call(box, "POST", "/api/agents/run", {"agent_id": "a-1", "task": "analyse", "config": None})
    assert (answer.status, answer.body) == (
        200,
        {
            "agent_id": "a-1",
            "status": "COMPLETED",
            "output": "processed: analyse",
            "error": None,
            "trace_id": A(str),
        },
    )


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/chat", {"message": "rm -rf /"}),
        ("/api/agents/run", {"agent_id": "a", "task": "rm -rf /"}),
        ("/api/agents/run", {"agent_id": "a", "task": "tidy up", "config": {"argv": ["rm", "-rf", "/"]}}),
    ],
    ids=["chat", "task", "config"],
)
def test_governance_watches_chat_and_agents(box, path, body):
    answer = call(box, "POST", path, body)
    assert (answer.status, answer.body["code"]) == (403, "GOVERNANCE_BLOCK")
    assert call(box, "GET", "/api/v1/trace/" + answer.body["trace_id"]).body["decision"] == "BLOCK"


# -- system


def test_health(box):
    assert call(box, "GET", "/api/v1/health")[:2] == (
        200,
        {"status": "ok", "version": "1.0.1", "uptime_seconds": A(float), "api_version": "v1"},
    )


def test_system_status(box):
    assert call(box, "GET", "/api/system/status")[:2] == (
        200,
        {
            "status": "ok",
            "ollama": False,
            "vllm": False,
            "dsgk": True,
            "storage": True,
            "version": "1.0.1",
            "uptime_seconds": A(float),
        },
    )


def test_system_config():
    with Sandbox(api_key="k", hitl_quota=3, policy=[]) as box:
        assert call(box, "GET", "/api/system/config", headers={"Authorization": "Bearer k"})[:2] == (
            200,
            {
                "service": "hestiaos-sandbox",
                "version": "1.0.1",
                "storage": "memory",
                "policy": {"source": "given", "rules": 0},
                "authentication": "bearer",
                "hitl": {"delay_seconds": 0.0, "quota": 3},
                "limits": {"body_bytes": 1048576},
            },
        )


def test_system_metrics_are_counted():
    with Sandbox() as box:
        for session in ("a", "b", "a"):
            call(box, "POST", "/api/v1/run", {"input": "x", "context": {"session_id": session}})
        answer = call(box, "GET", "/api/system/metrics")
        assert (answer.status, answer.body) == (
            200,
            {
                "cpu_percent": A(float),
                "memory_percent": A(float),
                "active_sessions": 2,
                "requests_total": 4,
                "avg_latency_ms": A(float),
            },
        )
        assert 0 <= answer.body["cpu_percent"] <= 100
        assert answer.body["avg_latency_ms"] > 0
        assert box.requests_total == 4


def test_stability_counts_decisions():
    with Sandbox() as box:
        for text in ("hello", "hello", "email all", "rm -rf /"):
            call(box, "POST", "/api/v1/run", {"input": text})
        assert call(box, "GET", "/api/governance/stability")[:2] == (
            200,
            {
                "status": "STABLE",
                "deterministic": True,
                "policy": "default",
                "rules": 12,
                "decisions": {"ALLOW": 2, "THROTTLE": 1, "BLOCK": 1},
            },
        )


# -- secrets


@pytest.mark.parametrize(
    "key", ["plain", "team/../admin", "..", "a b?c#d%", "schlüssel", "'; DROP TABLE secrets; --"]
)
def test_the_life_of_a_secret_under_any_name(box, key):
    path = "/api/secrets/" + quote(key, safe="")
    facts = {"code": "NOT_FOUND", "message": "no secret has this key"}
    missing = (404, dict(facts, detail=facts))
    body = {"credential_ref": key, "secret": "one", "provider": "custom", "allowed_tools": ["*"]}
    assert call(box, "GET", path)[:2] == missing
    assert call(box, "POST", "/api/secrets", body)[:2] == (200, {"credential_ref": key, "status": "stored"})
    assert call(box, "GET", path)[:2] == (200, {"value": "one"})
    call(box, "POST", "/api/secrets", {"credential_ref": key, "secret": "two\x00\n"})
    assert call(box, "GET", path)[:2] == (200, {"value": "two\x00\n"})
    assert call(box, "DELETE", path)[:2] == (200, {"credential_ref": key, "status": "deleted"})
    assert call(box, "DELETE", path)[:2] == missing


@pytest.mark.parametrize("path", ["/api/secrets/team/../admin", "/api/secrets/", "/api/../api/v1/health"])
def test_a_path_is_never_rewritten(box, path):
    assert call(box, "GET", path)[:2] == (404, {"detail": "Not Found"})


# -- bad input


def problem(*location, msg, kind):
    return {"loc": list(location), "msg": msg, "type": kind}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "detail"),
    [
        ("GET", "/nope", None, 404, "Not Found"),
        ("GET", "/api/v1/run", None, 405, "Method Not Allowed"),
        ("DELETE", "/api/v1/trace/x", None, 405, "Method Not Allowed"),
        ("GET", "/api/secrets/%ff", None, 400, "the path is not UTF-8"),
        ("POST", "/api/v1/run", {}, 422, [problem("body", "input", msg="Field required", kind="missing")]),
        ("POST", "/api/v1/run", b"", 422, [problem("body", msg="Field required", kind="missing")]),
        (
            "POST",
            "/api/v1/run",
            ["input"],
            422,
            [problem("body", msg="Input should be an object", kind="model_attributes_type")],
        ),
        (
            "POST",
            "/api/v1/run",
            {"input": None, "context": [], "options": {"timeout_ms": 0, "stream": "yes"}},
            422,
            [
                problem("body", "input", msg="Input should be a valid string", kind="string_type"),
                problem("body", "context", msg="Input should be an object", kind="dict_type"),
                problem(
                    "body", "options", "timeout_ms", msg="Input should be greater than 0", kind="greater_than"
                ),
                problem("body", "options", "stream", msg="Input should be a valid boolean", kind="bool_type"),
            ],
        ),
        (
            "POST",
            "/api/v1/run",
            {"input": "x", "context": {"session_id": 5}, "options": {"timeout_ms": 1.5}},
            422,
            [
                problem(
                    "body", "context", "session_id", msg="Input should be a valid string", kind="string_type"
                ),
                problem(
                    "body", "options", "timeout_ms", msg="Input should be greater than 0", kind="greater_than"
                ),
            ],
        ),
        (
            "POST",
            "/api/v1/run",
            {"input": "x", "options": {"timeout_ms": True}},
            422,
            [
                problem(
                    "body", "options", "timeout_ms", msg="Input should be greater than 0", kind="greater_than"
                )
            ],
        ),
        (
            "POST",
            "/api/v1/run",
            {"input": "\ud800"},
            422,
            [problem("body", "input", msg="Input should be a valid string", kind="string_type")],
        ),
        (
            "POST",
            "/api/secrets",
            {"credential_ref": "", "secret": 1, "allowed_tools": [1]},
            422,
            [
                problem(
                    "body",
                    "credential_ref",
                    msg="String should have at least 1 character",
                    kind="string_too_short",
                ),
                problem("body", "secret", msg="Input should be a valid string", kind="string_type"),
                problem("body", "allowed_tools", msg="Input should be a list of strings", kind="list_type"),
            ],
        ),
    ],
    ids=[
        "path",
        "method",
        "method of a pattern",
        "path not utf-8",
        "missing field",
        "no body",
        "list",
        "four faults at once",
        "wrong types",
        "a flag for a number",
        "surrogate",
        "secret",
    ],
)
def test_bad_input_gets_what_fastapi_gives(box, method, path, body, status, detail):
    assert call(box, method, path, body)[:2] == (status, {"detail": detail})


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"\xff",
        b'{"input": NaN}',
        b'{"input": ' + b"[" * 200_000,
        b'{"input": ' + b"9" * 5_000 + b"}",
        b"",
        b"nul\x00",
    ],
    ids=["cut", "not utf-8", "NaN", "deep", "long integer", "blank", "text"],
)
def test_broken_json_is_a_400(box, body):
    answer = call(box, "POST", "/api/v1/run", body or b" ", {"Content-Type": "application/json"})
    assert (answer.status, answer.body["code"]) == (400, "INVALID_JSON")


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 200),
        ("Application/JSON; charset=utf-8", 200),
        ("application/problem+json", 200),
        ("text/plain", 422),
        ("application/x-www-form-urlencoded", 422),
    ],
)
def test_a_body_must_be_sent_as_json(box, content_type, status):
    assert (
        call(box, "POST", "/api/v1/run", b'{"input": "x"}', {"Content-Type": content_type}).status == status
    )


def test_405_names_the_methods(box):
    assert call(box, "PUT", "/api/secrets/x").headers["Allow"] == "DELETE, GET"


# -- what it received


def test_requests_are_kept_as_received():
    with Sandbox() as box:
        call(box, "POST", "/api/v1/run?a=b", {"input": "x"}, {"X-Request-Id": "r-1", "X-Twice": "1"})
        call(box, "GET", "/api/secrets/a%2Fb")
        first, second = box.requests
        assert (first.method, first.path, first.query, first.json) == (
            "POST",
            "/api/v1/run",
            "a=b",
            {"input": "x"},
        )
        assert (first.headers["x-request-id"], first.headers["X-REQUEST-ID"]) == ("r-1", "r-1")
        assert "X-Nothing" not in first.headers
        assert (second.method, second.path, second.body) == ("GET", "/api/secrets/a%2Fb", b"")
        with pytest.raises(ValueError, match="Expecting value"):
            second.json  # noqa: B018


def test_only_the_last_ten_thousand_requests_and_64_mib_are_kept(monkeypatch):
    from hestiaos_lite.sandbox import box as module

    monkeypatch.setattr(module, "MAX_KEPT_REQUESTS", 3)
    monkeypatch.setattr(module, "MAX_KEPT_BYTES", 1000)
    with Sandbox() as box:
        for number in range(5):
            call(box, "GET", "/{}".format(number))
        assert [request.path for request in box.requests] == ["/2", "/3", "/4"]
        call(box, "POST", "/big", b"x" * 999)
        call(box, "POST", "/big", b"y" * 999)
        assert [request.body[:1] for request in box.requests] == [b"y"]
        assert box.requests_total == 7


def test_the_request_id_comes_back(box):
    answer = call(box, "GET", "/nope", headers={"X-Request-Id": "r-1"})
    assert answer.headers["X-Request-Id"] == "r-1"


# -- the key and the address


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401),
        ("", 401),
        ("Bearer wrong", 401),
        ("Basic s3cret", 401),
        ("Bearer", 401),
        ("Bearer s3cret", 200),
        ("bearer  s3cret", 200),
    ],
)
def test_an_api_key_is_demanded(header, status):
    with Sandbox(api_key="s3cret") as box:
        answer = call(
            box, "GET", "/api/v1/health", headers={} if header is None else {"Authorization": header}
        )
        assert answer.status == status
        assert (answer.headers["WWW-Authenticate"] == "Bearer") == (status == 401)
        assert "s3cret" not in repr(box)


@pytest.mark.parametrize("host", ["0.0.0.0", "", "::", "192.0.2.1"])
def test_only_loopback_without_a_key(host):
    with pytest.raises(ValueError, match="api_key"):
        Sandbox(host=host)


def test_any_address_with_a_key():
    with Sandbox(host="0.0.0.0", api_key="k") as box, socket.create_connection(("127.0.0.1", box.port), 10):
        pass


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3"])
def test_loopback_by_any_name(host):
    with Sandbox(host=host) as box:
        assert box.url == "http://{}:{}".format(host, box.port)
        assert call(box, "GET", "/api/v1/health").status == 200


@pytest.mark.parametrize(
    "settings",
    [
        {"api_key": ""},
        {"api_key": " "},
        {"api_key": "a\nb"},
        {"port": 70000},
        {"hitl_quota": -1},
        {"hitl_delay_seconds": -1},
    ],
    ids=repr,
)
def test_settings_that_do_not_hold(settings):
    with pytest.raises(ValueError, match="must"):
        Sandbox(**settings)


# -- life and death


def is_ended(client):
    """Whether the other side has closed this connection, in either of TCP's two ways."""
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def test_stop_releases_the_port_and_ends_every_thread_and_connection():
    def descriptors():
        return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

    threads, before = set(threading.enumerate()), descriptors()
    box = Sandbox().start()
    clients = [socket.create_connection((box.host, box.port), 10) for _ in range(20)]
    for client in clients:
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while not answer.endswith(b"}"):
            answer += client.recv(4096)
    clients[0].sendall(b"GET / HT")  # half a request
    box.stop()
    box.stop()
    assert all(is_ended(client) for client in clients)
    for client in clients:
        client.close()
    assert set(threading.enumerate()) == threads
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((box.host, box.port), 10)
    assert descriptors() == before


def test_stop_does_not_wait_for_delays():
    box = Sandbox(token_delay_seconds=60).start()
    box.delay_next(60)
    clients = []
    stream = b'POST /api/v1/run/stream HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{"input":"x"}'
    for request in (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", stream):
        clients.append(socket.create_connection((box.host, box.port), 10))
        clients[-1].sendall(request)
        while box.requests_total < len(clients):
            time.sleep(0.001)
    box.stop()
    for client in clients:
        client.settimeout(10)
        while client.recv(4096):
            pass
        client.close()


def test_the_same_object_starts_again_with_its_state():
    box = Sandbox(port=steady_port())
    with box:
        trace_id = call(box, "POST", "/api/v1/run", {"input": "x"}).body["trace_id"]
        url = box.url
    with box:
        assert box.url == url
        assert call(box, "GET", "/api/v1/trace/" + trace_id).status == 200


def test_a_file_keeps_state_over_a_restart_on_the_same_port(tmp_path):
    db = tmp_path / "sandbox.db"
    with Sandbox(port=steady_port(), db=db) as first:
        trace_id = call(first, "POST", "/api/v1/run", {"input": "x"}).body["trace_id"]
        call(first, "POST", "/api/secrets", {"credential_ref": "k", "secret": "v"})
        trace = call(first, "GET", "/api/v1/trace/" + trace_id).body
    with Sandbox(port=first.port, db=str(db)) as second:
        assert second.port == first.port
        assert call(second, "GET", "/api/v1/trace/" + trace_id).body == trace
        assert call(second, "GET", "/api/secrets/k").body == {"value": "v"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sandbox.db"]


def test_two_sandboxes_may_share_a_file(tmp_path):
    db = tmp_path / "sandbox.db"
    with Sandbox(db=db) as one, Sandbox(db=db) as other:
        call(one, "POST", "/api/secrets", {"credential_ref": "k", "secret": "v"})
        assert call(other, "GET", "/api/secrets/k").body == {"value": "v"}


def _foreign(path):
    connection = sqlite3.connect(str(path))
    connection.execute("CREATE TABLE theirs (x)")
    connection.commit()
    connection.close()


def _newer(path):
    with Sandbox(db=path):
        pass
    connection = sqlite3.connect(str(path))
    connection.execute("PRAGMA user_version = 99")
    connection.close()


@pytest.mark.parametrize(
    ("prepare", "problem"),
    [
        (lambda path: path.write_bytes(b"no database" * 1000), "not a database"),
        (lambda path: path.mkdir(), "unable to open"),
        (_foreign, "not a sandbox's"),
        (_newer, "schema version 99"),
    ],
    ids=["garbage", "directory", "foreign", "newer"],
)
def test_a_file_that_is_not_ours_is_refused_by_name(tmp_path, prepare, problem):
    db = tmp_path / "other.db"
    prepare(db)
    with pytest.raises(ValueError, match=problem) as caught, Sandbox(db=db):
        pass
    assert str(db) in str(caught.value)


def test_a_taken_port_is_an_oserror():
    with Sandbox() as box, pytest.raises(OSError, match="in use"):
        Sandbox(port=box.port).start()


def test_serve_forever_returns_at_stop():
    box = Sandbox()
    thread = threading.Thread(target=box.serve_forever)
    thread.start()
    while not box.port:
        time.sleep(0.001)
    assert call(box, "GET", "/api/v1/health").status == 200
    box.stop()
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_child_can_neither_stop_it_nor_hold_its_port_and_connections():
    box = Sandbox(port=steady_port()).start()
    client = socket.create_connection((box.host, box.port), 10)
    client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    client.recv(4096)
    reader, writer = os.pipe()
    forked, tell = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 and later warn of forks beside threads
        child = os.fork()
    if child == 0:
        box.stop()  # as a `with` around it does when the child ends by an exception
        os.write(tell, b"x")
        os.read(reader, 1)
        os._exit(0)
    try:
        os.read(forked, 1)
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 404 ")
        box.stop()
        assert client.recv(1) == b""
        with Sandbox(port=box.port) as again:
            assert call(again, "GET", "/api/v1/health").status == 200
    finally:
        client.close()
        os.write(writer, b"x")
        os.waitpid(child, 0)
        os.close(reader)
        os.close(writer)


def test_a_fault_of_ours_costs_one_request(box, monkeypatch, caplog):
    def broken(text):
        raise ZeroDivisionError(text)

    monkeypatch.setattr(box._policy, "judge", broken)
    assert call(box, "POST", "/api/v1/run", {"input": "x"})[:2] == (500, {"detail": "Internal Server Error"})
    assert "ZeroDivisionError" in caplog.text
    monkeypatch.undo()
    assert call(box, "POST", "/api/v1/run", {"input": "x"}).status == 200


# -- the pytest plugin


def test_the_plugin_gives_a_fixture(tmp_path):
    (tmp_path / "test_it.py").write_text(
        "import urllib.request\n"
        "def test_it(hestia_sandbox):\n"
        "    with urllib.request.urlopen(hestia_sandbox.url + '/api/v1/health') as answer:\n"
        "        assert answer.status == 200\n"
        "    assert hestia_sandbox.requests_total == 1\n"
    )
    plugin = "hestiaos_lite.sandbox.pytest_plugin"
    # "no:hestiaos_lite" keeps an installed entry point from registering the same module twice
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:hestiaos_lite", "-p", plugin]
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(path for path in sys.path if path))
    run = subprocess.run(command, cwd=str(tmp_path), env=environment, stdout=subprocess.PIPE, timeout=60)
    assert b"1 passed" in run.stdout
    assert run.returncode == 0


def test_the_plugin_is_light():
    script = (
        "import sys, hestiaos_lite.sandbox.pytest_plugin\n"
        "print([name for name in ('sqlite3', 'hestiaos_lite.sandbox.box') if name in sys.modules])"
    )
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(path for path in sys.path if path))
    run = subprocess.run([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, timeout=60)
    assert run.stdout.strip() == b"[]"
