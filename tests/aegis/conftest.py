"""Fixtures of the outbox's tests: real files, real processes, real kills."""

from __future__ import annotations

import pytest

from hestiaos_lite import Outbox

from .kit import Clock


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
