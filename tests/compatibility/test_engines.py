"""Pythons without ``ssl``, and green threads: what is there works, and nothing is printed at the end."""

from __future__ import annotations

import sys

import pytest

from hestiaos_lite import Client, InvalidInput
from hestiaos_lite.sandbox import Sandbox

from . import GREEN, alone, needs
from .play import call_everything

WITHOUT_SSL = "import sys; sys.modules['ssl'] = sys.modules['_ssl'] = None"


def call_without_ssl(url: str) -> None:
    call_everything(url)
    with pytest.raises(InvalidInput, match="has no ssl module") as caught:
        Client("https://service.example")
    assert caught.value.code == "CONFIGURATION"
    assert sys.modules["ssl"] is None


def test_a_python_without_ssl() -> None:
    with Sandbox() as box:
        assert alone(call_without_ssl, box.url, before=WITHOUT_SSL) == ""


def leave_open(url: str) -> None:
    """End with clients, streams and threads' sessions that nobody has closed."""
    import threading

    global client, stream
    client = Client(url)
    threads = [threading.Thread(target=client.health) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stream = client.run_stream("hello")
    next(stream)
    client.health()


@pytest.mark.parametrize("engine", [pytest.param(name, marks=needs(name)) for name in GREEN])
def test_green_threads_end_in_silence(engine: str) -> None:
    with Sandbox() as box:
        assert alone(call_everything, box.url, before=GREEN[engine]) == ""
        assert alone(leave_open, box.url, before=GREEN[engine]) == ""
