"""betamax, vcrpy and pytest-recording: what was recorded once is played back without a service."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, List

import pytest
import requests

from hestiaos_lite import Client
from hestiaos_lite.sandbox import Sandbox

from ..cli_call import ROOT, environment
from . import alone, needs
from .play import KINDS, session_of


def calls(url: str, session: Any = None) -> List[Any]:
    """A call, a stream and a refusal; the sandbox makes a new trace id each time, a record does not."""
    with Client(url, session=session, retries=0, timeout=10) as client:
        events = [(event.type, event.text, event.trace_id) for event in client.run_stream("hello")]
        return [client.run("hello"), events, client.health(), client.governance.trace("none")]


def play_betamax(folder: str) -> None:
    from betamax import Betamax

    def played(url: str) -> List[Any]:
        session = requests.Session()
        with Betamax(session, cassette_library_dir=folder).use_cassette("calls"):
            return calls(url, session)

    with Sandbox() as box:
        recorded = played(box.url)
        url = box.url
    assert played(url) == recorded


def play_vcr(kind: str, folder: str) -> None:
    import vcr

    def played(url: str, record_mode: str) -> List[Any]:
        with vcr.use_cassette(os.path.join(folder, "calls.yaml"), record_mode=record_mode):
            return calls(url, session_of(kind))

    with Sandbox() as box:
        recorded = played(box.url, "once")
        url = box.url
        assert calls(url)[0] != recorded[0]  # the service again, once the cassette is out
        assert played(url, "none") == recorded
    assert played(url, "none") == recorded


def let_nothing_leave(kind: str, folder: str) -> None:
    """A request that is not on record does not leave, not even over a connection that was kept from before."""
    import vcr

    with Sandbox() as box, requests.Session() as callers:
        with Client(box.url, session=callers if kind == "callers" else None, retries=0) as client:
            client.health()
            with vcr.use_cassette(os.path.join(folder, "empty.yaml"), record_mode="none"):
                try:
                    client.run("hello")
                except vcr.errors.CannotOverwriteExistingCassetteException:
                    pass
                else:
                    raise AssertionError("it was answered")
            assert client.run("hello").result == "ALLOW"
        assert len([request for request in box.requests if request.path == "/api/v1/run"]) == 1


def import_inside_a_cassette(folder: str) -> None:
    """What is decided while a tool is at work does not last longer than that."""
    import vcr

    for name in [name for name in sys.modules if name.partition(".")[0] == "hestiaos_lite"]:
        del sys.modules[name]
    with vcr.use_cassette(os.path.join(folder, "first.yaml"), record_mode="all") as cassette:
        from hestiaos_lite import Client

        with Sandbox() as box, Client(box.url) as client:
            client.health()
    with Sandbox() as box, Client(box.url) as client:
        client.health()
        assert (len(box.requests), len(cassette)) == (1, 1)


@pytest.mark.parametrize("play", [pytest.param(play_betamax, marks=needs("betamax"))])
def test_betamax(play: Any, tmp_path: Path) -> None:
    alone(play, str(tmp_path))


class TestVcrpy:
    pytestmark = needs("vcr")

    @KINDS
    @pytest.mark.parametrize("play", [play_vcr, let_nothing_leave])
    def test_in_a_cassette(self, play: Any, kind: str, tmp_path: Path) -> None:
        alone(play, kind, str(tmp_path))

    def test_imported_inside_a_cassette(self, tmp_path: Path) -> None:
        alone(import_inside_a_cassette, str(tmp_path))


USERS_OWN = """
import os
import pytest
from hestiaos_lite import Client

@pytest.mark.vcr
def test_mine():
    with Client(os.environ["URL"], retries=0) as client:
        events = list(client.run_stream("hello"))
        print("TRACE", client.run("hello").trace_id, events[0].trace_id)
"""


class TestPytestRecording:
    pytestmark = needs("vcr", "pytest_recording")

    def test_a_users_own_test(self, tmp_path: Path) -> None:
        (tmp_path / "test_mine.py").write_text(USERS_OWN)

        def run(*options: str) -> str:
            done = subprocess.run(
                [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", *options],
                cwd=str(tmp_path),
                env=environment(URL=url, PYTHONWARNINGS="default", PYTHONPATH=ROOT),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=60,
            )
            output = done.stdout.decode("utf-8")
            assert done.returncode == 0, output
            return next(line for line in output.splitlines() if "TRACE" in line)

        with Sandbox() as box:
            url = box.url
            recorded = run("--record-mode=once")
        assert run("--block-network") == recorded  # and without an option nothing is recorded
