"""Fixtures of the outbox's tests: real files, real processes, real kills."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from hestiaos_lite import Outbox

from .kit import Clock, started


@pytest.fixture()
def clock():
    return Clock()


@pytest.fixture()
def path(tmp_path):
    return tmp_path / "outbox.db"


@pytest.fixture()
def box(path, clock):
    with Outbox(path, clock=clock) as opened:
        yield opened


@pytest.fixture()
def script():
    """Start Python processes; none outlives its test."""
    with contextlib.ExitStack() as running:

        def start(code: str, *arguments: Any, **options: Any):
            process = started(code, *arguments, **options)
            running.enter_context(process)
            running.callback(process.kill)
            return process

        yield start
