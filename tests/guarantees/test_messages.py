"""An error says what happened, whether it may have taken effect, and what to do next, in one harmless line.

What a service says is data: it is cut, masked and without control characters wherever an error shows it.
"""

from __future__ import annotations

import json
import logging
import re
import ssl
import time
import traceback
from io import BytesIO
from typing import Any, Callable, Dict

import pytest
import requests

from hestiaos_lite import AegisClient, Client, ConnectionFailed, InvalidResponse, Outbox, RequestTimeout
from hestiaos_lite.sandbox import Sandbox

from ..faultserver import (
    TLS_AUTHORITY,
    TLS_FOLDER,
    FaultServer,
    Wire,
    answer,
    chunked,
    closed_port,
    error_of,
    hang,
    head,
    ok,
    reply,
    served,
)

KEY = "hunter2-c4n4ry"
NASTY = "t-1 {}\r\nSubject: forged\x1b[2J\x9b1m\u202e\u2028 ".format(KEY)


# -- what a service says is data

ECHOES: Dict[str, Any] = {
    "trace id": {"detail": {"code": "X", "message": "m", "trace_id": NASTY + "y" * 500_000}},
    "trace id of a model": {"trace_id": NASTY + "y" * 500_000},
    "code": {"code": NASTY + "Y" * 500_000, "message": "m"},
    "message": {"detail": NASTY + "y" * 500_000},
    "field errors": {"detail": [{"loc": [NASTY] * 50, "msg": NASTY * 1000}] * 50},
}


@pytest.mark.parametrize("status", [200, 400, 403, 500])
@pytest.mark.parametrize("name", ECHOES)
def test_an_error_is_one_short_masked_line(name: str, status: int) -> None:
    with served(
        answer(reply(status, json.dumps(ECHOES[name]).encode())), api_key=KEY, retries=0, timeout=10
    ) as (client, _):
        shown = [str(error_of(lambda: client.run("x"))), str(error_of(lambda: client.trace("t")))]
    for line in shown:
        assert len(line) < 1000
        assert len(line.splitlines()) == 1
        assert not {
            char for char in line if ord(char) < 32 or 127 <= ord(char) < 160 or char in "\u202e\u2028"
        }
        assert KEY not in line


def test_a_ruling_s_reason_too() -> None:
    ruling = {"decision": "BLOCK", "reason": NASTY, "trace_id": NASTY}
    with FaultServer(answer(ok(ruling))) as server, Client(server.url, KEY, timeout=10) as client:
        error = error_of(lambda: client.governance.require("deploy"))
    for shown in (str(error), repr(error.args), error.message, str(error.trace_id)):
        assert KEY not in shown
    assert "governance says BLOCK: t-1 ***" in str(error)


def test_a_retry_is_logged_in_one_harmless_line(caplog: pytest.LogCaptureFixture) -> None:
    busy = reply(503, json.dumps({"code": NASTY, "message": NASTY}).encode(), {"Retry-After": "0"})
    with FaultServer(answer(busy, ok({"status": "ok"}))) as server, Client(server.url, KEY) as client:
        with caplog.at_level(logging.INFO, "hestiaos_lite"):
            client.health()
    (line,) = [record.getMessage() for record in caplog.records]
    assert re.match(
        r"retry GET /api/v1/health in \d\.\d\d s after attempt 1: t-1 \*\*\* Subject: forged\\x1b", line
    )
    assert line.isprintable()


def test_a_trace_id_of_an_event_too() -> None:
    started = {"type": "start", "trace_id": NASTY + "y" * 5000}
    events = head(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"})
    events += chunked([b"data: " + json.dumps(started).encode() + b"\n\n"])
    with FaultServer(answer(events)) as server, Client(server.url, KEY, timeout=10) as client:
        stream = client.run_stream("x")
        line = str(error_of(lambda: list(stream)))
        assert stream.trace_id == started["trace_id"]  # as it came: it is never reformatted
    assert len(line) < 1000
    assert len(line.splitlines()) == 1
    assert KEY not in line


@pytest.mark.parametrize(("given", "echo", "shown"), [
    ({"headers": {"X-Auth": "s3cret-of-mine"}}, "got s3cret-of-mine", "got ***"),
    ({"headers": {"X-Auth": "Token s3cret-of-mine"}}, "bad key s3cret-of-mine", "bad key ***"),
    ({"headers": {"Cookie": "id=s3cret-of-mine"}}, "got id=s3cret-of-mine", "got ***"),
    ({"headers": {"X-Auth": "no"}}, "no, nobody knows no", "***, nobody knows ***"),
    ({"headers": {"X-Stage": "test stage one"}}, "the latest test stage", "the latest test stage"),
    ({"headers": {"Accept-Language": "de"}}, "de", "de"),
    ({"api_key": "test"}, "test: the latest test-key fails", "***: the latest ***-key fails"),
])  # fmt: skip
def test_what_is_given_as_a_key_or_in_headers_is_known_to_the_masks(
    given: Any, echo: str, shown: str
) -> None:
    with served(answer(reply(400, json.dumps({"detail": echo}).encode())), timeout=10, **given) as (
        client,
        _,
    ):
        assert error_of(lambda: client.run("x")).message == shown


# -- an answer that is too much


@pytest.mark.parametrize(("make", "call"), [
    (Client, lambda client: client.health()),
    (lambda *given, **more: AegisClient(*given, api_key="k", **more), lambda client: client.get_status("r")),
], ids=["Client", "AegisClient"])  # fmt: skip
def test_an_answer_has_a_limit(make: Callable[..., Any], call: Callable[[Any], Any]) -> None:
    body = json.dumps({"request_id": "r", "status": "PENDING", "x": "y" * 1000}).encode()
    with FaultServer(answer(reply(200, body))) as server:
        with make(server.url, timeout=10, max_body_bytes=len(body)) as client:
            assert call(client).status == "PENDING"
        with make(server.url, timeout=10, max_body_bytes=len(body) - 1) as client:
            error = error_of(lambda: call(client))
    assert (type(error), error.status, error.delivered) == (InvalidResponse, 200, True)
    assert "the answer is larger than {} bytes".format(len(body) - 1) in str(error)


class Late(BytesIO):
    """What a tool plays back, from a file that is slow."""

    def read(self, *args: Any) -> bytes:
        time.sleep(1.0)
        return super().read(*args)


def test_a_body_that_is_whole_after_the_deadline_is_not_decoded() -> None:
    """It is no JSON, and nobody learns that."""

    def play_back(response: requests.Response, **options: Any) -> None:
        response.close()
        response.raw = Late(response.headers["X-Body"].encode())

    replies = answer(reply(200, b"nonsense", {"X-Body": "nonsense"}))
    with FaultServer(replies) as server, requests.Session() as lent:
        lent.hooks["response"].append(play_back)
        with Client(server.url, timeout=0.8, retries=0, session=lent) as client:
            error = error_of(client.health)
    assert (type(error), error.status, error.delivered) == (RequestTimeout, 200, True)


# -- what happened, and what to do next


@pytest.mark.parametrize("kind", ["own", "lent"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_refuses_is_named(scheme: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = "127.0.0.1:{}".format(closed_port())
    monkeypatch.setenv(scheme + "_proxy", "http://user:{}@{}".format(KEY, proxy))
    with requests.Session() as lent:
        session = lent if kind == "lent" else None
        with Client(scheme + "://service.example", timeout=10, retries=0, session=session) as client:
            error = error_of(client.health)
    said = "cannot connect: connection refused ({}://service.example, through the proxy http://{})"
    assert (error.message, error.delivered) == (said.format(scheme, proxy), False)
    assert KEY not in str(error)


@pytest.mark.parametrize("title", [
    "400 No required SSL certificate was sent",
    "400 The plain HTTP request was sent to HTTPS port",
    "502 Bad Gateway",
])  # fmt: skip
@pytest.mark.parametrize("status", [400, 404, 502])
def test_a_gateway_s_page_gives_its_title(status: int, title: str) -> None:
    page = "<html>\r\n<head><title>{}</title></head>\r\n<body>nginx</body></html>".format(title)
    refusal = reply(status, page.encode(), {"Content-Type": "text/html"})
    with FaultServer(answer(refusal)) as server, Client(server.url, timeout=10, retries=0) as client:
        assert error_of(lambda: client.run("x")).message == title


def test_a_404_of_no_code_names_both_that_may_be_wrong() -> None:
    with Sandbox() as box, Client(box.url + "/elsewhere") as client:
        error = error_of(client.health)
    assert str(error).endswith("; check the name, and that {}/elsewhere is the service".format(box.url))


@pytest.mark.parametrize("proxied", [False, True], ids=["the service", "the proxy"])
def test_plain_http_where_https_was_expected(proxied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def reject_what_is_no_http(wire: Wire) -> None:
        wire.read(5)
        wire.send(reply(400, b"what?"))

    with FaultServer(reject_what_is_no_http) as server:
        url = server.url.replace("http:", "https:")
        if proxied:
            # by its name: urllib3 1.26.5 cannot make TLS to the address of a proxy at all
            monkeypatch.setenv("https_proxy", url.replace("127.0.0.1", "localhost"))
            url = "https://hestia.invalid"
        with Client(url, timeout=20) as client:
            error = error_of(lambda: client.run("x"))
    assert (error.delivered, error.attempts) == (False, 1)
    assert str(error).endswith(
        "; what answers there does not speak TLS: does it, or the proxy, need an http:// URL?"
    )


def test_a_login_page_instead_of_an_answer_gives_its_title() -> None:
    page = reply(
        200, b"<!DOCTYPE html><title>Sign in &amp; go on</title><form>", {"Content-Type": "text/html"}
    )
    with FaultServer(answer(page)) as server, Client(server.url, timeout=10) as client:
        error = error_of(lambda: client.run("x"))
    assert error.message == "the answer to POST /api/v1/run is not JSON but the page 'Sign in & go on'"


@pytest.mark.parametrize("body", [b"", b"nonsense", b"[]", b"{}", b"\xff"], ids=repr)
def test_an_unusable_answer_to_a_call_that_changes_something_says_so(body: bytes) -> None:
    with FaultServer(answer(reply(200, body))) as server, Client(server.url, timeout=10) as client:
        changed, read = error_of(lambda: client.run("x")), error_of(client.health)
    assert str(changed).endswith(
        "the service had accepted it; look for its request id in the service's log before sending it again"
    )
    assert str(read).endswith("; check that the base URL is the service's own")
    assert "accepted" not in str(read)


def test_a_queued_decision_names_the_deadline_as_it_was_given(outbox: Outbox) -> None:
    with FaultServer(hang) as server:
        with AegisClient(server.url, api_key="k", thread_id="t", timeout=0.7, outbox=outbox) as aegis:
            assert "no answer within 0.7 s" in aegis.approve("key-1").extra["reason"]


def asks_for_a_certificate(version: str) -> Callable[[Wire], None]:
    """A TLS server that serves only clients with a certificate; it ends the connection without a reset."""

    def script(wire: Wire) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(TLS_FOLDER + "/server.pem")
        context.load_verify_locations(TLS_AUTHORITY)
        context.verify_mode = ssl.CERT_REQUIRED
        context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)
        still_open = wire.sock.dup()
        try:
            context.wrap_socket(wire.sock, server_side=True).recv(1)
        except ssl.SSLError:
            while still_open.recv(65536):
                pass
        finally:
            still_open.close()

    return script


@pytest.mark.parametrize("kind", ["own", "lent"])
@pytest.mark.parametrize(
    ("version", "words"),
    [("TLSv1_2", "it may ask for a client certificate"), ("TLSv1_3", "it asks for a client certificate")],
)
def test_a_missing_client_certificate_is_named(version: str, words: str, kind: str) -> None:
    with FaultServer(asks_for_a_certificate(version)) as server, requests.Session() as lent:
        url = server.url.replace("http:", "https:")
        session = lent if kind == "lent" else None
        with Client(url, timeout=10, retries=3, verify=TLS_AUTHORITY, session=session) as client:
            error = error_of(client.health)
        assert (type(error), error.attempts, server.connections) == (ConnectionFailed, 1, 1)
    assert words in str(error)
    assert str(error).endswith("pass a session that has one: session.cert (session=)")


@pytest.mark.parametrize("call", [
    lambda url: Client(url, retries=0).run("x"),
    lambda url: AegisClient(url, api_key="k", thread_id="t", max_retries=0).approve("k"),
], ids=["run", "approve"])  # fmt: skip
def test_the_traceback_of_a_refused_connection_fits_a_screen(call: Callable[[str], Any]) -> None:
    try:
        call("http://127.0.0.1:{}".format(closed_port()))
    except ConnectionFailed as error:
        shown = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    frames = re.findall("^  File ", shown, re.MULTILINE)  # each has marks below it, more with each Python
    assert 1 < len(frames) < 9, shown  # the caller's two, and ours
    last = shown.splitlines()[-1]
    assert last.startswith("hestiaos_lite.errors.ConnectionFailed: [CONNECTION_FAILED] cannot connect: ")


def test_its_cause_is_kept() -> None:
    with Client("http://127.0.0.1:{}".format(closed_port()), retries=0) as client:
        error = error_of(client.health)
    assert isinstance(error.__cause__, requests.ConnectionError)
