"""requests-mock, pook, httpretty and mocket: each plays the service for every call and the stream."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Iterator

import pytest

from ..faultserver import closed_port
from . import alone, needs
from .play import EXCHANGES, KINDS, URL, Exchange, session_of


@contextmanager
def requests_mock(url: str, exchange: Exchange) -> Iterator[None]:
    import requests_mock

    with requests_mock.Mocker() as mock:
        headers = {"Content-Type": exchange.content_type}
        mock.register_uri(
            exchange.method, url, text=exchange.body, status_code=exchange.status, headers=headers
        )
        yield


@contextmanager
def pook(url: str, exchange: Exchange) -> Iterator[None]:
    import pook

    with pook.use():
        mock = pook.mock(url, method=exchange.method).persist()
        mock.reply(exchange.status).header("Content-Type", exchange.content_type).body(exchange.body)
        yield


@contextmanager
def httpretty(url: str, exchange: Exchange) -> Iterator[None]:
    import httpretty

    with httpretty.enabled():
        answer = {"status": exchange.status, "content_type": exchange.content_type}
        httpretty.register_uri(exchange.method, url, body=exchange.body, **answer)
        yield


@contextmanager
def mocket(url: str, exchange: Exchange) -> Iterator[None]:
    from mocket import Mocketizer
    from mocket.mockhttp import Entry

    with Mocketizer(strict_mode=True):
        answer = {"status": exchange.status, "headers": {"Content-Type": exchange.content_type}}
        Entry.single_register(exchange.method, url, body=exchange.body, **answer)
        yield


def play(tool: str, kind: str) -> None:
    # where httpretty lets something through (with urllib3 from 2.3 on it has to), nobody is met
    url = "http://127.0.0.1:{}".format(closed_port()) if tool == "httpretty" else URL
    for exchange in EXCHANGES:
        with globals()[tool](url + exchange.path, exchange):
            assert exchange.played(session_of(kind), url) == exchange.outcome, exchange.name


@KINDS
@pytest.mark.parametrize(
    "tool",
    [pytest.param(tool, marks=needs(tool)) for tool in ("requests_mock", "pook", "httpretty", "mocket")],
)
def test_each_call(tool: str, kind: str) -> None:
    alone(play, tool, kind)
