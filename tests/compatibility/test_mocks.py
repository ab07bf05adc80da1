"""requests-mock, betamax, pook, httpretty and mocket: each plays the service for every call and the stream."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from ..faultserver import closed_port
from . import alone, needs
from .play import EXCHANGES, URL

SESSIONS = pytest.mark.parametrize("kind", ["own", "callers"])


def session_of(kind: str) -> Any:
    return requests.Session() if kind == "callers" else None


def play_requests_mock(kind: str) -> None:
    import requests_mock

    for exchange in EXCHANGES:
        with requests_mock.Mocker() as mock:
            mock.register_uri(
                exchange.method,
                URL + exchange.path,
                text=exchange.body,
                status_code=exchange.status,
                headers={"Content-Type": exchange.content_type},
            )
            assert exchange.played(session_of(kind)) == exchange.outcome, exchange.name


def play_pook(kind: str) -> None:
    import pook

    for exchange in EXCHANGES:
        with pook.use():
            mock = pook.mock(URL + exchange.path, method=exchange.method).persist()
            mock.reply(exchange.status).header("Content-Type", exchange.content_type).body(exchange.body)
            assert exchange.played(session_of(kind)) == exchange.outcome, exchange.name


def play_httpretty(kind: str) -> None:
    import httpretty

    # where the tool lets something through (with urllib3 from 2.3 on it has to), nobody is met
    url = "http://127.0.0.1:{}".format(closed_port())
    for exchange in EXCHANGES:
        with httpretty.enabled():
            httpretty.register_uri(
                exchange.method,
                url + exchange.path,
                body=exchange.body,
                status=exchange.status,
                content_type=exchange.content_type,
            )
            assert exchange.played(session_of(kind), url) == exchange.outcome, exchange.name


def play_mocket(kind: str) -> None:
    from mocket import Mocketizer
    from mocket.mockhttp import Entry

    for exchange in EXCHANGES:
        with Mocketizer(strict_mode=True):
            Entry.single_register(
                exchange.method,
                URL + exchange.path,
                body=exchange.body,
                status=exchange.status,
                headers={"Content-Type": exchange.content_type},
            )
            assert exchange.played(session_of(kind)) == exchange.outcome, exchange.name


@pytest.mark.parametrize("kind", ["own", "callers"])
@pytest.mark.parametrize("play", [
    pytest.param(play_requests_mock, marks=needs("requests_mock"), id="requests-mock"),
    pytest.param(play_pook, marks=needs("pook"), id="pook"),
    pytest.param(play_httpretty, marks=needs("httpretty"), id="httpretty"),
    pytest.param(play_mocket, marks=needs("mocket"), id="mocket"),
])  # fmt: skip
def test_each_call(play: Any, kind: str) -> None:
    alone(play, kind)
