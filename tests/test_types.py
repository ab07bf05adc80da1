"""What a user's editor and type checker see: a sample of user code under ``mypy --strict``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .markdown import ROOT

SAMPLE = """
from typing import Any, Dict, Iterator, Mapping, Optional

from typing_extensions import assert_type

import hestiaos_lite
from hestiaos_lite import (
    ActionResult, ActionStatus, AegisClient, BatchResult, Client, EventStream, FlushReport, GovernanceBlock, Outbox,
    RequestTimeout, RunResponse, StreamEvent, idempotency_key, is_done_event, run_batch,
)


def report(client: Client) -> str:
    answer = client.run("create a report", timeout_ms=1000)
    assert_type(answer, RunResponse)
    assert_type(answer.output, Optional[str])
    assert_type(answer.latency_ms, Optional[float])
    return answer.text


def stream(client: Client) -> Iterator[str]:
    with client.run_stream("hi", timeout=5) as events:
        assert_type(events, EventStream)
        for event in events:
            assert_type(event, StreamEvent)
            assert_type(event.data, Mapping[str, Any])
            if not is_done_event(event):
                yield event.text


with Client(base_url="http://localhost:8000", headers={"X-Team": "ops"}) as client:
    assert_type(client, Client)
    assert_type(client.health().ok, bool)
    assert_type(client.chat("hi").response, str)
    assert_type(client.agents("a", "task").output, Optional[str])
    assert_type(client.secrets("key"), str)
    assert_type(client.system.config(), Dict[str, Any])
    assert_type(client.governance.trace("id"), Optional[Dict[str, Any]])
    try:
        report(client)
    except GovernanceBlock as error:
        assert_type(error.trace_id, Optional[str])
        assert_type(error.delivered, Optional[bool])
    except RequestTimeout as error:
        late: TimeoutError = error
    for result in run_batch(client, [{"id": 1, "input": "hi"}]):
        assert_type(result, BatchResult)

with Outbox("o.db") as outbox, AegisClient(outbox=outbox) as aegis:
    assert_type(aegis.approve(idempotency_key("invoice", 42)), ActionResult)
    assert_type(aegis.wait("id", timeout=3), ActionStatus)
    assert_type(aegis.flush(), FlushReport)

assert_type(hestiaos_lite.__version__, str)
Client(timeout="soon")  # type: ignore[arg-type]
client.run(42)  # type: ignore[arg-type]
print(hestiaos_lite.AsyncClient)  # type: ignore[attr-defined]
"""


STAR = """
from hestiaos_lite import *

def approved(aegis: AegisClient, request_id: str) -> bool:
    return aegis.get_status(request_id).approved
"""


@pytest.mark.slow  # CI's part "package" runs it
def test_user_code_type_checks(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="linters run on the newest Python alone")
    (tmp_path / "sample.py").write_text(SAMPLE, encoding="utf-8")
    (tmp_path / "star.py").write_text(STAR, encoding="utf-8")
    options = ["--strict", "--no-incremental", "--config-file="]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "sample.py", "star.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=str(tmp_path),
        text=True,
        env=dict(os.environ, MYPYPATH=str(ROOT)),
    )
    assert done.returncode == 0, done.stdout
