"""Only the service speaks for the service, and it says a thing once: what a gateway, a portal or a muddled object says is no answer."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any, Callable, Dict, List, Tuple

import pytest
import requests

from hestiaos_lite import (
    AegisClient,
    BatchResult,
    Client,
    HestiaError,
    InvalidResponse,
    Outbox,
    ServerError,
    run_batch,
)

from ..cli_call import call
from ..faultserver import (
    TLS_AUTHORITY,
    FaultServer,
    answer,
    answer_and_close,
    chunked,
    error_of,
    head,
    reply,
    served,
)
from ..proxies import http_proxy

PAGE = b"<!DOCTYPE html><html><head><title>Attention required</title></head><body>CDN</body></html>"
HTML = {"Content-Type": "text/html; charset=utf-8"}
TEXT = {"Content-Type": "text/plain"}
JSON = {"Content-Type": "application/json"}
CHUNKED = {"Transfer-Encoding": "chunked"}


# -- a gateway's page decides nothing

GATEWAYS: Dict[str, bytes] = {
    "a page under 403": reply(403, PAGE, HTML),
    "a page under 404": reply(404, PAGE, HTML),
    "a page under 409": reply(409, PAGE, HTML),
    "a page under 410": reply(410, PAGE, HTML),
    "a page under 422": reply(422, PAGE, HTML),
    "a page under 422 that breaks off": head(422, dict(HTML, **CHUNKED)) + chunked([PAGE], end=b"no chunk\r\n"),
    "a page that says it is JSON": reply(409, PAGE, JSON),
    "text under 403": reply(403, b"Forbidden", TEXT),
    "text under 404": reply(404, b"404 page not found", TEXT),
    "text under 409": reply(409, b"conflict", TEXT),
}  # fmt: skip


@pytest.mark.parametrize("data", GATEWAYS.values(), ids=GATEWAYS.keys())
def test_a_gateway_s_page_decides_nothing(data: bytes, tmp_path: Any) -> None:
    with FaultServer(answer(data)) as server, Outbox(tmp_path / "outbox.db") as outbox:
        options = {"tenant_id": "acme", "thread_id": "T", "max_retries": 0}
        with Client(server.url, retries=0) as client, AegisClient(server.url, **options) as aegis:
            for what in (
                lambda: client.run("x"),
                lambda: client.run_stream("x"),
                lambda: client.secrets.set("k", "v"),
                lambda: client.secrets.delete("k"),
                lambda: client.governance.trace("t"),  # None would say that there is no such trace
                lambda: client.governance.require("deploy"),
                lambda: aegis.approve("key"),
                lambda: aegis.conclude("key"),
                lambda: aegis.get_status("r"),
            ):
                error = error_of(what)
                facts = (type(error), error.code, error.effect, error.exit_code, error.at_fault)
                assert facts == (ServerError, "GATEWAY", "none", 69, "service")
                assert "a gateway answered, not the service" in str(error)
        with AegisClient(server.url, outbox=outbox, **options) as aegis:
            assert aegis.approve("key").queued
            assert (aegis.flush().dead, [row.state for row in outbox.list()]) == (0, ["queued"])
        with Client(server.url, retries=0) as client:
            (result,) = run_batch(client, [{"id": 1, "input": "x"}], retries=0, patience=0.1)
    assert (result.outcome, (result.error or {}).get("code")) == ("again", "GATEWAY")


SERVICES: Dict[str, Tuple[bytes, str]] = {
    "without a body": (reply(403), "GOVERNANCE_BLOCK"),
    "without a body or a type": (head(403, {"Content-Length": 0}), "GOVERNANCE_BLOCK"),
    "JSON": (reply(403, b'{"detail": "no"}', JSON), "GOVERNANCE_BLOCK"),
    "JSON that is a text": (reply(403, b'"no"', JSON), "GOVERNANCE_BLOCK"),
    "JSON without its type": (reply(403, b'{"code": "NO"}'), "NO"),
    "JSON that breaks off": (head(403, dict(JSON, **{"Content-Length": 99})) + b'{"co', "GOVERNANCE_BLOCK"),
    "JSON whose end alone is lost": (head(403, {"Content-Length": 99}) + b'{"code": "NO"}', "NO"),
    "a broken gzip of JSON": (reply(403, b"...", dict(JSON, **{"Content-Encoding": "gzip"})), "GOVERNANCE_BLOCK"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "code"), SERVICES.values(), ids=SERVICES.keys())
def test_the_service_is_believed(data: bytes, code: str) -> None:
    with FaultServer(answer_and_close(data)) as server, Client(server.url, retries=0) as client:
        error = error_of(lambda: client.run("x"))
    assert (type(error).__name__, error.code, error.effect) == ("GovernanceBlock", code, "none")


@pytest.mark.parametrize("status", [401, 407, 408, 413, 425, 429, 431, 500, 503, 511])
def test_what_means_the_same_whoever_says_it(status: int) -> None:
    with served(answer(reply(status, PAGE, HTML), reply(status)), retries=0) as (client, _):
        paged, bare = error_of(lambda: client.run("x")), error_of(lambda: client.run("x"))
    for name in ("status", "effect", "at_fault", "exit_code", "delivered"):
        assert getattr(paged, name) == getattr(bare, name)
    assert type(paged) is type(bare)
    assert paged.message == "Attention required"


@pytest.mark.parametrize("tls", [True, False])
def test_whose_a_407_is_behind_a_proxy(tls: bool) -> None:
    """Through a tunnel the proxy reads nothing, so that the service has said it; in plain text it may be either."""
    with FaultServer(answer(reply(407)), tls=tls) as server, FaultServer(
        http_proxy(server.port, [])
    ) as middle, requests.Session() as session:
        session.proxies = {"http": middle.url, "https": middle.url}
        with Client(server.url, retries=0, session=session, verify=TLS_AUTHORITY) as client:
            error = error_of(lambda: client.run("x"))
    assert (error.status, error.delivered, error.effect) == (407, tls, "none")


# -- stored is what the service says it has stored

VOID: Dict[str, Tuple[bytes, bool]] = {
    "nothing": (reply(200), True),
    "204": (head(204), True),
    "204 with a length": (head(204, {"Content-Length": 4}), True),
    "204 in chunks that never come": (head(204, {"Transfer-Encoding": "chunked"}), True),
    "201 and JSON": (reply(201, b'{"stored": true}', JSON), True),
    "JSON null": (reply(200, b"null", JSON), True),
    "a list": (reply(200, b"[]", JSON), True),
    "a line break": (reply(200, b"\r\n"), True),
    "a portal's page": (reply(200, PAGE, HTML), False),
    "text": (reply(200, b"OK", TEXT), False),
    "JSON that breaks off": (reply(200, b'{"stored": ', JSON), False),
    "an object that says it twice": (reply(200, b'{"stored": true, "stored": false}'), False),
    "a body that is cut": (head(200, {"Content-Length": 100}) + b'{"stored": true}', False),
}


@pytest.mark.parametrize(("data", "is_good"), VOID.values(), ids=VOID.keys())
def test_a_secret_is_stored_and_deleted_by_an_answer_of_the_service(data: bytes, is_good: bool) -> None:
    with FaultServer(answer_and_close(data)) as server:
        options = ["-u", server.url, "--retries", "0"]
        called = [call("secret", "set", "k", *options, stdin="v"), call("secret", "delete", "k", *options)]
        for what in (lambda client: client.secrets.set("k", "v"), lambda client: client.secrets.delete("k")):
            with Client(server.url, retries=0) as client:
                if is_good:
                    what(client)
                else:
                    assert error_of(lambda: what(client)).effect == "accepted"
    assert [done.code for done in called] == ([0, 0] if is_good else [76, 76])


# -- nothing is said twice

TWICE: Dict[str, Tuple[bytes, Callable[[Client, AegisClient], Any]]] = {
    "a ruling": (
        b'{"decision": "BLOCK", "reason": "no", "decision": "ALLOW"}',
        lambda client, aegis: client.governance.require("deploy"),
    ),
    "a ruling, nested": (
        b'{"decision": "ALLOW", "more": {"a": 1, "a": 2}}',
        lambda client, aegis: client.governance.require("deploy"),
    ),
    "a run": (b'{"result": "BLOCK", "result": "ALLOW", "trace_id": "t"}', lambda client, aegis: client.run("x")),
    "a trace": (b'{"trace_id": "t", "decision": "BLOCK", "decision": "ALLOW"}', lambda client, aegis: client.trace("t")),
    "an agent": (
        b'{"agent_id": "a", "status": "FAILED", "status": "COMPLETED"}',
        lambda client, aegis: client.agents("a", "x"),
    ),
    "a status": (
        b'{"request_id": "r", "status": "FAILED", "status": "COMMITTED", "action": "approve"}',
        lambda client, aegis: aegis.get_status("r"),
    ),
    "a decision": (
        b'{"request_id": "r", "action": "approve", "action": "reject"}',
        lambda client, aegis: aegis.approve("key"),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("body", "what"), TWICE.values(), ids=TWICE.keys())
def test_an_object_that_names_a_field_twice_is_no_answer(
    body: bytes, what: Callable[[Client, AegisClient], Any]
) -> None:
    for status in (202, 200):
        with FaultServer(answer(reply(status, body))) as server:
            with Client(server.url) as client, AegisClient(server.url, api_key="k", thread_id="T") as aegis:
                error = error_of(lambda: what(client, aegis))
        assert (type(error), error.status) == (InvalidResponse, status)
        assert "is ambiguous: an object names '" in str(error)


@pytest.mark.parametrize("method", ["approve", "reject", "conclude"])
def test_a_409_with_two_actions_is_no_answer(method: str) -> None:
    body = b'{"action": "approve", "action": "reject", "status": "COMMITTED", "request_id": "r"}'
    with FaultServer(answer(reply(409, body))) as server:
        with AegisClient(server.url, api_key="k", thread_id="T") as aegis:
            error = error_of(lambda: getattr(aegis, method)("key"))
    assert (type(error), error.status) == (InvalidResponse, 409)


@pytest.mark.parametrize("event", [
    '{"type": "final", "trace_id": "t", "data": {"mode": "BLOCK", "mode": "ALLOW"}}',
    '{"type": "start", "trace_id": "t", "data": {}, "data": {"mode": "BLOCK"}}',
    '{"type": "final",\ndata: "data": {"mode": "BLOCK"}, "data": {}}',
])  # fmt: skip
def test_an_event_that_names_a_field_twice_is_none(event: str) -> None:
    events = head(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"})
    events += chunked(["data: {}\n\n".format(part).encode() for part in (event, '{"type": "done"}')])
    with FaultServer(answer(events)) as server, Client(server.url) as client:
        assert type(error_of(lambda: list(client.run_stream("x")))) is InvalidResponse
        assert call("run", "--stream", "x", "-u", server.url).code == 76


@pytest.mark.parametrize(("argv", "code"), [
    (["hitl", "approve", "k", "--tenant", "t", "--thread", "T", "--payload"], 2),
    (["agent", "a", "task", "--config"], 2),
    (["explain", "deploy", "--input"], 2),
    (["guard", "--input"], 125),
])  # fmt: skip
def test_what_we_are_given_names_no_field_twice_either(
    argv: Any, code: int, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.execv", lambda file, argv: sys.exit(0))  # this process stays
    given = tmp_path / "given.json"
    given.write_text('{"amount": 1, "more": {"amount": 2, "amount": 3}}')
    words = ["--", "true"] if argv[0] == "guard" else []
    with FaultServer(answer(reply(200, b'{"decision": "ALLOW"}'))) as server:
        for source in (given.read_text(), "@{}".format(given)):
            called = call(*argv, source, "-u", server.url, *words)
            assert called.code == code
            assert "{}: an object names 'amount' twice".format(argv[-1]) in called.err
        assert server.hits == 0


# -- a good answer whose content says no, or not yet

AGENT = (
    "the agent is {}: the task was accepted and is not done; look it up by its trace id, do not send it again"
)
# fmt: off
CONTENTS: Dict[str, Tuple[str, Dict[str, Any], int, str, str]] = {
    # command, answer, exit code, outcome of a batch row, words
    "a run": ("run", {"result": "x", "mode": "ALLOW"}, 0, "ok", ""),
    "a run blocked": ("run", {"result": "BLOCK"}, 1, "blocked", "the service says BLOCK"),
    "a run's mode": ("run", {"result": "x", "mode": "deny"}, 1, "blocked", "the service says deny"),
    "a run's decision": ("run", {"result": "x", "decision": "BLOCK"}, 1, "blocked", "the service says BLOCK"),
    "a run failed": ("run", {"result": "FAILED"}, 1, "refused", "the service says FAILED"),
    "a chat": ("chat", {"result": "x", "decision": "ALLOW"}, 0, "ok", ""),
    "a chat's decision": ("chat", {"result": "x", "decision": "BLOCK"}, 1, "blocked", "the service says BLOCK"),
    "a chat's mode": ("chat", {"result": "x", "mode": "BLOCK"}, 1, "blocked", "the service says BLOCK"),
    "an agent": ("agent", {"status": "COMPLETED"}, 0, "ok", ""),
    "an agent of no status": ("agent", {"result": "x"}, 0, "ok", ""),
    "an agent failed": ("agent", {"status": "FAILED", "error": "no disk"}, 1, "refused", "the agent ended FAILED: no disk"),
    "an agent with an error": ("agent", {"error": "no disk"}, 1, "refused", "the agent ended with an error: no disk"),
    "an agent blocked": ("agent", {"status": "BLOCKED"}, 1, "blocked", "the service says BLOCKED"),
    "an agent's mode": ("agent", {"status": "COMPLETED", "mode": "BLOCK"}, 1, "blocked", "the service says BLOCK"),
    "an agent running": ("agent", {"status": "RUNNING"}, 3, "unknown", AGENT.format("RUNNING")),
    "an agent queued": ("agent", {"status": "queued"}, 3, "unknown", AGENT.format("queued")),
    "an agent pending": ("agent", {"status": "Pending", "output": ""}, 3, "unknown", AGENT.format("Pending")),
}
# fmt: on
ROWS: Dict[str, Dict[str, Any]] = {
    "run": {"input": "x"},
    "chat": {"message": "x"},
    "agent": {"agent_id": "a", "task": "x"},
}


@pytest.mark.parametrize(("command", "content", "code", "outcome", "words"), CONTENTS.values(), ids=CONTENTS)
def test_what_a_good_answer_says(
    command: str, content: Dict[str, Any], code: int, outcome: str, words: str
) -> None:
    body = json.dumps(dict({"agent_id": "a", "trace_id": "t-1"}, **content)).encode()
    with FaultServer(answer(reply(200, body))) as server, Client(server.url) as client:
        called = call(command, *list(ROWS[command].values()), "-u", server.url, "-q")
        (result,) = run_batch(client, [dict(ROWS[command], id=1)], call=command)
        assert server.hits == 2  # neither is sent again
    assert (called.code, result.outcome, result.attempts) == (code, outcome, 1)
    assert called.err == ("hestiaos-lite: {} (trace id t-1)\n".format(words) if words else "")
    error = result.error or {"message": "", "trace_id": "t-1"}
    assert (error["message"], error["trace_id"]) == (words, "t-1")


STREAMS: Dict[str, Tuple[Tuple[Dict[str, Any], ...], int]] = {
    "nothing of it": (({"type": "start"}, {"type": "token", "data": {"text": "x"}}), 0),
    "at the start": (({"type": "start", "data": {"mode": "BLOCK"}},), 1),
    "at the start, and the end is silent": (
        ({"type": "start", "data": {"mode": "BLOCK"}}, {"type": "final", "data": {"output": "x"}}),
        1,
    ),
    "at the start, and allowed at the end": (
        ({"type": "start", "data": {"mode": "BLOCK"}}, {"type": "final", "data": {"mode": "ALLOW"}}),
        0,
    ),
    "as a decision at the end": (({"type": "start"}, {"type": "final", "data": {"decision": "BLOCK"}}), 1),
}  # fmt: skip


@pytest.mark.parametrize(("events", "code"), STREAMS.values(), ids=STREAMS.keys())
def test_what_a_stream_says(events: Tuple[Dict[str, Any], ...], code: int) -> None:
    data = [
        "data: {}\n\n".format(json.dumps(dict(event, trace_id="t-1")))
        for event in (*events, {"type": "done"})
    ]
    stream = head(200, {"Content-Type": "text/event-stream"}) + "".join(data).encode()
    with FaultServer(answer_and_close(stream)) as server:
        called = call("run", "--stream", "x", "-u", server.url)
    assert called.code == code
    assert ("the service says BLOCK (trace id t-1)" in called.err) == bool(code)


@pytest.mark.parametrize(("body", "is_good"), [
    ({"decision": "BLOCK"}, True),
    ({"trace_id": "c-1", "decision": "BLOCK"}, True),
    ({"command_id": "c-1", "trace_id": "t-1"}, True),
    ({"command_id": "c-2"}, False),
    ({"trace_id": "t-2", "decision": "ALLOW"}, False),
], ids=str)  # fmt: skip
def test_a_governance_trace_is_of_the_command_that_was_asked_for(body: Dict[str, Any], is_good: bool) -> None:
    with FaultServer(answer(reply(200, json.dumps(body).encode()))) as server, Client(server.url) as client:
        if is_good:
            assert client.governance.trace("c-1") == body
        else:
            error = error_of(lambda: client.governance.trace("c-1"))
            assert (type(error), error.message) == (InvalidResponse, "the answer is about another command")


# -- effect, exit code and outcome agree

# status: class, exit code, outcome of a batch row, state of a decision in an outbox; nothing was done in any
# fmt: off
REFUSALS: Dict[int, Tuple[str, int, str, str]] = {
    402: ("HestiaError", 1, "refused", "dead"),
    405: ("HestiaError", 1, "refused", "queued"),  # it is the address
    408: ("RequestTimeout", 75, "again", "queued"),
    410: ("HestiaError", 1, "refused", "dead"),
    413: ("InvalidInput", 2, "refused", "dead"),
    415: ("InvalidInput", 2, "refused", "dead"),
    423: ("HestiaError", 1, "refused", "dead"),
    425: ("RequestTimeout", 75, "again", "queued"),
    431: ("InvalidInput", 2, "refused", "dead"),
    451: ("HestiaError", 1, "refused", "dead"),
    499: ("HestiaError", 1, "refused", "dead"),
    511: ("AuthenticationError", 77, "again", "queued"),
}
# fmt: on


@pytest.mark.parametrize(("status", "meaning"), REFUSALS.items(), ids=map(str, REFUSALS))
def test_what_a_status_means(status: int, meaning: Tuple[str, int, str, str], tmp_path: Any) -> None:
    cls, code, outcome, state = meaning
    results: List[BatchResult] = []
    with FaultServer(answer(reply(status))) as server, Outbox(tmp_path / "outbox.db") as outbox:
        with Client(server.url, retries=0) as client:
            error = error_of(lambda: client.run("x"))
            with contextlib.suppress(HestiaError):  # a batch ends where no other row would fare better
                rows = [{"id": 1, "input": "x"}]
                list(run_batch(client, rows, retries=0, patience=0.1, on_result=results.append))
        with AegisClient(server.url, api_key="k", thread_id="T", outbox=outbox, max_retries=0) as aegis:
            with contextlib.suppress(HestiaError):
                aegis.approve("key")
        assert [row.state for row in outbox.list()] == [state]
        assert call("run", "x", "-u", server.url, "--retries", "0").code == code
    assert (type(error).__name__, error.exit_code, error.effect) == (cls, code, "none")
    assert error.delivered is (status != 511)  # that is the network's
    assert [result.outcome for result in results] == [outcome]


@pytest.mark.parametrize("second", [400, 401, 403, 404, 410, 422, 429])
def test_an_attempt_in_doubt_decides_whatever_the_last_one_says(second: int) -> None:
    """AEGIS may have carried it out before the gateway said 502: 'the key is wrong, nothing was done' would be a guess."""
    with FaultServer(answer(reply(502), reply(second, b'{"detail": "no"}'))) as server:
        options = ["--tenant", "t", "--thread", "T", "-u", server.url, "--retries", "1", "-j"]
        called = call("hitl", "approve", "k", *options)
        assert server.hits == 2
    error = called.error
    assert (called.code, error["effect"], error["status"]) == (3, "unknown", second)
    assert "nothing was done" not in called.err


# -- an answer in hand is never lost for how it is printed


@pytest.mark.parametrize("depth", [1, 200, 400, 900])
def test_an_answer_of_any_depth_with_numbers_that_are_none_is_printed(depth: int, tmp_path: Any) -> None:
    deep = b"[" * depth + b"NaN, -Infinity, 1.5, true" + b"]" * depth
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"id": 1, "input": "x"}\n')
    with FaultServer(answer(reply(200, b'{"result": "ok", "trace_id": "t", "deep": %b}' % deep))) as server:
        printed = call("run", "x", "-j", "-u", server.url)
        batch = call("batch", str(rows), "--out", str(tmp_path / "out.jsonl"), "-u", server.url)
    line = (tmp_path / "out.jsonl").read_text()
    for code, text in ((printed.code, printed.out), (batch.code, line)):
        assert code == 0
        assert "{}null,null,1.5,true{}".format("[" * depth, "]" * depth) in "".join(text.split())
    assert printed.json["trace_id"] == json.loads(line)["response"]["trace_id"] == "t"
