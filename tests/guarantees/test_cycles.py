"""Without the collector nothing is left: no call, stream or error of ours leaves objects that refer to each other."""

from __future__ import annotations

import gc
import logging
from typing import Any, Callable, Dict, List, Tuple

import pytest
import requests

from hestiaos_lite import AegisClient, Client, HestiaError

from ..faultserver import (
    FaultServer,
    Script,
    answer,
    answer_and_close,
    answer_and_hang,
    answer_and_reset,
    closed_port,
    drop,
    hang,
    head,
    ok,
    reply,
)

MANY = 9
STREAM = head(200, {"Content-Type": "text/event-stream", "Connection": "close"})
EVENTS = b'data: {"type": "start", "trace_id": "t"}\n\ndata: {"type": "token", "data": {"text": "a"}}\n\n'
DONE = b'data: {"type": "done"}\n\n'


def read(client: Client) -> None:
    list(client.run_stream("x"))


def leave(client: Client) -> None:
    with client.run_stream("x") as stream:
        next(stream)


# fmt: off
CASES: Dict[str, Tuple[Script, Callable[[Client], Any]]] = {
    "a good answer":       (answer(*[ok({"status": "ok"})] * MANY), Client.health),
    "a refusal":           (answer(*[reply(403, b'{"code": "X"}')] * MANY), lambda client: client.run("x")),
    "a gateway's page":    (answer(*[reply(404, b"<title>x</title>")] * MANY), lambda client: client.run("x")),
    "retried":             (answer(*[reply(503, b"{}")] * MANY), Client.health),
    "a redirect":          (answer(*[reply(302, b"", {"Location": "/x"})] * MANY), Client.health),
    "not JSON":            (answer(*[reply(200, b"x")] * MANY), Client.health),
    "another shape":       (answer(*[ok([1])] * MANY), Client.health),
    "another coding":      (answer(*[reply(200, b"x", {"Content-Encoding": "br"})] * MANY), Client.health),
    "no answer":           (drop, lambda client: client.run("x")),
    "silence":             (hang, lambda client: client.run("x")),
    "a cut body":          (answer_and_close(head(200, {"Content-Length": "50"}) + b"{"), lambda client: client.run("x")),
    "a malformed head":    (answer_and_close(b"HTTP/1.1 200 OK\r\nbroken\r\n\r\n"), lambda client: client.run("x")),
    "a stream":            (answer_and_close(STREAM + EVENTS + DONE), read),
    "a cut stream":        (answer_and_close(STREAM + EVENTS), read),
    "a stream that broke": (answer_and_reset(STREAM + EVENTS), read),
    "a malformed event":   (answer_and_close(STREAM + EVENTS + b"data: [1]\n\n"), read),
    "a stream left early": (answer_and_hang(STREAM + EVENTS), leave),
    "a stream dropped":    (answer_and_hang(STREAM + EVENTS), lambda client: next(client.run_stream("x"))),
    "a stream never read": (answer_and_hang(STREAM + EVENTS), lambda client: client.run_stream("x")),
    "a stream of JSON":    (answer(*[ok({})] * MANY), read),
}
# fmt: on


def left_by(work: Callable[[], Any]) -> List[str]:
    """The types of what only the collector would find."""

    def tried() -> None:
        try:
            work()
        except HestiaError:
            pass

    tried()  # what is made once, and stays
    gc.disable()
    gc.freeze()  # what is there already is not looked at: in the whole suite that takes 0.1 s each time
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        tried()
        gc.collect()
        return [type(found).__qualname__ for found in gc.garbage]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.unfreeze()
        gc.enable()


@pytest.mark.parametrize("whose", ["own", "lent"])
@pytest.mark.parametrize("case", CASES)
def test_a_call_leaves_no_cycle(case: str, whose: str) -> None:
    script, call = CASES[case]
    timeout = 0.3 if script is hang else 20
    retries = 1 if case == "retried" else 0
    with FaultServer(script) as server, requests.Session() as session:
        with Client(
            server.url, timeout=timeout, retries=retries, session=session if whose == "lent" else None
        ) as client:
            assert left_by(lambda: call(client)) == []


def test_a_call_that_is_logged_leaves_no_cycle(caplog: Any) -> None:
    caplog.set_level(logging.DEBUG, "hestiaos_lite")
    with FaultServer(answer(*[ok({"status": "ok"})] * MANY)) as server, Client(server.url) as client:
        assert left_by(lambda: (client.health(), caplog.clear())) == []


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_what_never_connects_leaves_no_cycle(host: str) -> None:
    with Client("http://{}:{}".format(host, closed_port()), retries=0) as client:
        assert left_by(client.health) == []


def test_a_decision_leaves_no_cycle() -> None:
    accepted = reply(202, b'{"request_id": "r"}')
    with FaultServer(answer(*[accepted, reply(409, b'{"action": "reject"}')] * MANY)) as server:
        with AegisClient(server.url, api_key="k", tenant_id="t", thread_id="h") as client:
            assert left_by(lambda: (client.approve("k"), client.approve("k"))) == []
