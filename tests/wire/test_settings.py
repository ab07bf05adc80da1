"""What is wrong with the settings is reported as that, once, and nothing was sent; what peers take of an answer is taken."""

from __future__ import annotations

import json
import ssl
import time
from typing import Any, Callable, Dict
from unittest.mock import create_autospec

import pytest
import requests

from hestiaos_lite import Client, ConnectionFailed, HestiaError, InvalidInput, InvalidResponse, RequestTimeout

from ..faultserver import (
    TLS_AUTHORITY,
    TLS_EXPIRED,
    FaultServer,
    answer,
    answer_and_close,
    error_of,
    head,
    ok,
    served,
)

PATIENT = 10.0
RUN = ok({"result": "ALLOW", "trace_id": "t"})
EVENTS = b'data: {"type": "token", "data": {"text": "x"}}\n\ndata: {"type": "done"}\n\n'


# -- settings

Prepare = Callable[[Any, Any, requests.Session], Dict[str, Any]]


def empty_bundle(tmp_path: Any, patch: Any, lent: requests.Session) -> Dict[str, Any]:
    (tmp_path / "ca.pem").write_text("no certificate\n")
    return {"verify": str(tmp_path / "ca.pem")}


def empty_bundle_of_the_environment(tmp_path: Any, patch: Any, lent: requests.Session) -> Dict[str, Any]:
    patch.setenv("REQUESTS_CA_BUNDLE", empty_bundle(tmp_path, patch, lent)["verify"])
    return {}


def key_log(tmp_path: Any, patch: Any, lent: requests.Session) -> Dict[str, Any]:
    patch.setenv("SSLKEYLOGFILE", str(tmp_path / "nowhere" / "keys"))
    return {"verify": TLS_AUTHORITY}


def no_such_certificate(tmp_path: Any, patch: Any, lent: requests.Session) -> Dict[str, Any]:
    lent.cert = str(tmp_path / "none.pem")
    return {"verify": TLS_AUTHORITY, "session": lent}


def no_such_key(tmp_path: Any, patch: Any, lent: requests.Session) -> Dict[str, Any]:
    lent.cert = (TLS_AUTHORITY, str(tmp_path / "none.pem"))
    return {"verify": TLS_AUTHORITY, "session": lent}


def certificate_that_is_none(tmp_path: Any, patch: Any, lent: requests.Session) -> Dict[str, Any]:
    lent.cert = str(tmp_path / "client.pem")
    (tmp_path / "client.pem").write_text("no certificate\n")
    return {"verify": TLS_AUTHORITY, "session": lent}


def header(name: str, value: Any) -> Prepare:
    def header_of_the_session(tmp_path: Any, patch: Any, lent: requests.Session) -> Dict[str, Any]:
        lent.headers.update({"X-Gone": None, name: value})  # type: ignore[dict-item]
        return {"session": lent}

    return header_of_the_session


def header_of_the_auth(tmp_path: Any, patch: Any, lent: requests.Session) -> Dict[str, Any]:
    def sign(request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["X-Signature"] = "canary\r\n"
        return request

    lent.auth = sign
    return {"session": lent}


def no_adapter(tmp_path: Any, patch: Any, lent: requests.Session) -> Dict[str, Any]:
    del lent.adapters["https://"]
    return {"session": lent}


@pytest.mark.parametrize("kind", ["own", "lent"])
@pytest.mark.parametrize(("prepare", "names"), [
    (empty_bundle, "certificate"),
    (empty_bundle_of_the_environment, "certificate"),
    (key_log, "nowhere"),
    (no_such_certificate, "none.pem does not exist"),
    (no_such_key, "none.pem does not exist"),
    (certificate_that_is_none, "certificate"),
    (header("Authorization", "Bearer canary\n"), "'Authorization'"),  # as a file has it
    (header("X-Team", b" canary"), "'X-Team'"),
    (header("X-Team", ("canary",)), "'X-Team'"),
    (header("X-Team\r\nHost", "canary"), r"'X-Team\r\nHost'"),
    (header("X-Name", "canary \u4e16"), "'X-Name'"),
    (header_of_the_auth, "'X-Signature'"),
    (no_adapter, "adapter"),
], ids=lambda value: getattr(value, "__name__", ""))  # fmt: skip
def test_a_setting_that_cannot_be_used(
    prepare: Prepare, names: str, kind: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultServer(answer(RUN), tls=True) as server, requests.Session() as lent:
        if prepare is key_log and not hasattr(ssl.SSLContext, "keylog_filename"):
            pytest.skip("this Python writes no such file")
        settings = dict({"session": lent if kind == "lent" else None}, **prepare(tmp_path, monkeypatch, lent))
        with Client(server.url, timeout=PATIENT, retries=3, **settings) as client:
            with pytest.raises(InvalidInput) as caught:
                client.run("hello")
        error = caught.value
        assert (error.code, error.delivered, error.effect, error.exit_code) == (
            "CONFIGURATION",
            False,
            "none",
            78,
        )
        assert (names in str(error), "canary" in str(error)) == (True, False)
        assert (server.hits, error.attempts <= 1) == (0, True)


@pytest.mark.parametrize("url", ["http://a..vm", "http://.vm", "https://{}.vm".format("a" * 64)])
def test_a_host_that_no_name_can_be(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Client(url)
    assert (caught.value.code, caught.value.exit_code) == ("CONFIGURATION", 78)


@pytest.mark.parametrize("kind", ["own", "lent"])
@pytest.mark.parametrize("what", ["expired", "another name", "unknown authority"])
def test_a_certificate_says_what_is_wrong_with_it(what: str, kind: str) -> None:
    certificate: Dict[str, Any] = {"certificate": TLS_EXPIRED} if what == "expired" else {}
    with FaultServer(answer(RUN), tls=True, **certificate) as server, requests.Session() as lent:
        url = server.url.replace("127.0.0.1", "localhost") if what == "another name" else server.url
        verify = TLS_AUTHORITY if what == "another name" else TLS_EXPIRED
        session = lent if kind == "lent" else None
        with Client(url, timeout=PATIENT, retries=3, verify=verify, session=session) as client:
            with pytest.raises(ConnectionFailed) as caught:
                client.run("hello")
    error = caught.value
    assert (error.delivered, error.attempts, error.exit_code) == (False, 1, 69)
    assert "its TLS certificate is not trusted" in str(error)
    name_the_ca = "name the CA that signed it (verify=, REQUESTS_CA_BUNDLE)"
    advice = {"expired": "renewed", "another name": "the name that the certificate is for"}
    assert advice.get(what, name_the_ca) in str(error)
    assert ("name the CA" in str(error)) == (what == "unknown authority")


# -- answers that peers take


@pytest.mark.parametrize("kind", ["own", "lent"])
def test_two_content_types_that_agree_are_one(kind: str) -> None:
    twice = b"HTTP/1.1 200 OK\r\n" + b"Content-Type: text/event-stream\r\n" * 2 + b"\r\n"
    with served(answer_and_close(twice + EVENTS), kind=kind, timeout=PATIENT) as (client, _):
        assert [event.type for event in client.run_stream("hello")] == ["token", "done"]


def test_two_content_types_that_differ_are_none() -> None:
    both = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Type: text/html\r\n\r\n"
    with FaultServer(answer_and_close(both + EVENTS)) as server:
        with Client(server.url, timeout=PATIENT) as client, pytest.raises(InvalidResponse):
            client.run_stream("hello")


def test_a_stream_answered_by_json_keeps_its_trace_id() -> None:
    body = json.dumps({"detail": {"trace_id": "t-7"}}).encode()
    data = head(200, {"Content-Type": "application/json", "Content-Length": len(body)}) + body
    with FaultServer(answer_and_close(data)) as server, Client(server.url, timeout=PATIENT) as client:
        with pytest.raises(HestiaError) as caught:
            client.run_stream("hello")
    assert (type(caught.value), caught.value.trace_id) == (InvalidResponse, "t-7")


def test_an_answer_is_not_decoded_after_its_deadline() -> None:
    """A hook of the lender has read the whole of it, and took longer than the call may."""

    def read_slowly(response: requests.Response, *args: Any, **kwargs: Any) -> None:
        assert response.content
        time.sleep(1.1)

    with FaultServer(answer(RUN)) as server, requests.Session() as session:
        session.hooks["response"].append(read_slowly)
        error = error_of(lambda: Client(server.url, timeout=1, session=session).run("x"))
    assert (type(error), error.status, error.effect) == (RequestTimeout, 200, "accepted")


def test_a_double_made_of_the_class_has_all_that_a_client_has() -> None:
    double = create_autospec(Client)
    for name in ("chat", "agents", "system", "secrets", "governance", "base_url", "timeout", "run"):
        assert hasattr(double, name), name
    double.chat.return_value = "an answer"
    assert double.chat("hello") == "an answer"
