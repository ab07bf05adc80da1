"""A call reaches the wire in three hops of ours, so that a reader can follow it and a traceback stays short."""

from __future__ import annotations

import os
import sys
from typing import Any, Callable, Dict, List

import pytest
import requests

import hestiaos_lite
from hestiaos_lite import AegisClient, Client, ConnectionFailed, Outbox

from ..faultserver import closed_port

PACKAGE = os.path.dirname(os.path.abspath(hestiaos_lite.__file__))
CALLS: Dict[str, Callable[[Client], Any]] = {
    "run": lambda client: client.run("hello"),
    "run_stream": lambda client: client.run_stream("hello"),
    "health": lambda client: client.health(),
    "trace": lambda client: client.trace("t"),
    "chat.run": lambda client: client.chat.run("hello"),
    "agents.run": lambda client: client.agents.run("a", "task"),
    "system.status": lambda client: client.system.status(),
    "system.config": lambda client: client.system.config(),
    "system.metrics": lambda client: client.system.metrics(),
    "secrets.get": lambda client: client.secrets.get("k"),
    "secrets.set": lambda client: client.secrets.set("k", "v"),
    "secrets.delete": lambda client: client.secrets.delete("k"),
    "governance.explain": lambda client: client.governance.explain("x"),
    "governance.status": lambda client: client.governance.status(),
    "governance.trace": lambda client: client.governance.trace("x"),
}


class Watching(requests.Session):
    """Notes which functions of ours are on the way when a request is handed to requests."""

    def __init__(self) -> None:
        super().__init__()
        self.way: List[str] = []

    def send(self, request: requests.PreparedRequest, **settings: Any) -> requests.Response:
        frame = sys._getframe(1)
        while frame is not None:
            code = frame.f_code
            if code.co_filename.startswith(PACKAGE):
                self.way.insert(0, code.co_name)
            frame = frame.f_back
        return super().send(request, **settings)


def way_of(call: Callable[[Any], Any], client: Any, session: Watching) -> List[str]:
    with client, pytest.raises(ConnectionFailed):
        call(client)
    return session.way


@pytest.mark.parametrize("name", CALLS)
def test_three_hops(name: str) -> None:
    session = Watching()
    client = Client("http://127.0.0.1:{}".format(closed_port()), retries=0, session=session)
    verbs = {"run_stream": "stream", "secrets.set": "send", "secrets.delete": "send"}
    verbs.update(dict.fromkeys(["run", "chat.run", "agents.run", "governance.explain"], "post"))
    way = [name.split(".")[-1], verbs.get(name, "get"), "request"]
    assert way_of(CALLS[name], client, session) == way


@pytest.mark.parametrize("with_outbox", [False, True])
def test_the_way_of_a_decision(tmp_path: Any, with_outbox: bool) -> None:
    """An outbox puts its own steps in between; the way from the send to the wire is the same."""
    session = Watching()
    outbox = Outbox(tmp_path / "outbox.db") if with_outbox else None
    url = "http://127.0.0.1:{}".format(closed_port())
    with AegisClient(
        url, api_key="k", thread_id="t", max_retries=0, session=session, outbox=outbox
    ) as client:
        with pytest.raises(ConnectionFailed):
            client.get_status("r")
        assert (session.way[0], session.way[-2:]) == ("get_status", ["get", "request"])
        assert len(session.way) <= 4, session.way
        session.way.clear()
        if outbox is None:
            with pytest.raises(ConnectionFailed):
                client.approve("key")
        else:
            assert client.approve("key").queued
            outbox.close()
    assert (session.way[0], session.way[-1]) == ("approve", "request")
    assert len(session.way) <= (9 if with_outbox else 6), session.way
