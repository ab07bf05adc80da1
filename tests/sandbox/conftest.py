"""A sandbox for all the tests of a file that leave nothing behind that another would see."""

from __future__ import annotations

from typing import Iterator

import pytest

from hestiaos_lite.sandbox import Sandbox

from ..sandbox_call import call, decision

SECRET = "s3cret-canary"


@pytest.fixture(scope="module")
def lasting() -> Iterator[Sandbox]:
    """It has the secret ``db`` and an approval of the key ``first``."""
    with Sandbox() as running:
        body = {"credential_ref": "db", "secret": SECRET}
        assert call(running, "POST", "/api/secrets", body).status == 200
        assert call(running, "POST", "/api/v1/hitl/approve", {"amount": 3}, decision("first")).status == 202
        yield running
