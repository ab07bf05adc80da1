"""``EventStream.cancel`` wakes its reader whatever the connection is made of, and whatever makes the threads."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import urllib3

from hestiaos_lite import Client

from ..faultserver import TLS_AUTHORITY, FaultServer, answer_and_hang, head
from ..proxies import http_proxy
from . import GREEN, alone, needs
from .play import KINDS, session_of

PATIENT = 20.0
BEGUN = head(200, {"Content-Type": "text/event-stream"}) + b'data: {"type": "start"}\n\n'


def is_cancelled(client: Client) -> None:
    """Cancel a stream of which the reader waits for the second event: its iteration ends, and with no error."""
    with client, client.run_stream("hello") as stream:
        assert next(stream).type == "start"
        threading.Timer(0.2, stream.cancel).start()
        started = time.monotonic()
        assert list(stream) == []
        assert time.monotonic() - started < PATIENT / 2


@pytest.mark.filterwarnings("ignore:verify=False", "ignore:Unverified HTTPS")
@pytest.mark.skipif(urllib3.__version__ == "1.26.5", reason="it makes no TLS to a proxy named by an address")
@KINDS
def test_tls_within_tls(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service behind https, by way of a proxy behind https."""
    with FaultServer(answer_and_hang(BEGUN), tls=True) as server:
        with FaultServer(http_proxy(server.port, []), tls=True) as proxy:
            monkeypatch.setenv("https_proxy", proxy.url)
            session = session_of(kind)
            is_cancelled(Client("https://service.example", timeout=PATIENT, verify=False, session=session))


def green(url: str, kind: str) -> None:
    is_cancelled(Client(url, timeout=PATIENT, verify=TLS_AUTHORITY, session=session_of(kind)))


def with_pyopenssl(url: str, kind: str) -> None:
    from urllib3.contrib import pyopenssl

    pyopenssl.inject_into_urllib3()
    is_cancelled(Client(url, timeout=PATIENT, verify=TLS_AUTHORITY, session=session_of(kind)))


@KINDS
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("engine", [pytest.param(name, marks=needs(name)) for name in GREEN])
def test_green_threads(engine: str, scheme: str, kind: str) -> None:
    with FaultServer(answer_and_hang(BEGUN), tls=scheme == "https") as server:
        alone(green, server.url, kind, before=GREEN[engine])


@KINDS
@pytest.mark.parametrize("play", [pytest.param(with_pyopenssl, marks=needs("OpenSSL"))])
def test_pyopenssl(play: Any, kind: str) -> None:
    with FaultServer(answer_and_hang(BEGUN), tls=True) as server:
        alone(play, server.url, kind)
