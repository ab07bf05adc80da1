"""The pytest plugin ``hestiaos_lite``: the fixture ``hestia_sandbox``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Iterator

import pytest

if TYPE_CHECKING:
    from .box import Sandbox


@pytest.fixture
def hestia_sandbox() -> Iterator[Sandbox]:
    """A running Sandbox for this test: HestiaOS and AEGIS at ``hestia_sandbox.url``, state in memory."""
    from .box import Sandbox  # here, so that a run without sandbox tests does not pay for it

    with Sandbox() as box:
        yield box
