"""What the tests of the outbox share: a clock that can be set, and a service in this process that can be told what to say."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

import requests
import urllib3
from requests.adapters import HTTPAdapter

from hestiaos_lite import AegisClient, FlushReport, HestiaError, Outbox

NOON = 1800000000.0  # seconds since the epoch
NOON_MS = 1800000000000
LEASE_SECONDS = 60.0
URL = "http://127.0.0.1:1"
PACKAGE_PARENT = str(Path(__file__).resolve().parent.parent.parent)


class Clock:
    """A clock that does not run until it is told to."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Service(HTTPAdapter):
    """A service in this process: a client reaches it by the session that it is lent.

    Args:
        answers: by idempotency key (``status`` for a look at a status): a status, a pair of status and body, a triple with
            headers, what is raised, or a function of the request that gives one of these; 202 otherwise.

    Attributes:
        keys: what was sent.
        meanwhile: called with the key while a decision is being sent.
    """

    def __init__(self, **answers: Any) -> None:
        super().__init__()
        self.answers = answers
        self.keys: List[str] = []
        self.meanwhile: Callable[[str], Any] = lambda key: None

    def send(self, request: Any, **options: Any) -> requests.Response:
        key = text(request.headers.get("Idempotency-Key", "status"))
        self.keys.append(key)
        self.meanwhile(key)
        answer = self.answers.get(key, self.answers.get("others", 202))
        if callable(answer):
            answer = answer(request)
        if isinstance(answer, BaseException):
            raise answer
        return answered(request, *(answer if isinstance(answer, tuple) else (answer,)))


def answered(
    request: Any, status: int, body: Any = None, headers: Optional[Dict[str, str]] = None
) -> requests.Response:
    """An answer to a request as an adapter gives it."""
    response = requests.Response()
    response.status_code = status
    response.url, response.request = request.url, request
    response.headers.update(headers or {}, **{"Content-Type": "application/json"})
    content = b"" if body is None else json.dumps(body).encode()
    response.raw = urllib3.HTTPResponse(io.BytesIO(content), status=status, preload_content=False)
    return response


def text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def nobody_there() -> Service:
    """No connection can be made."""
    refused = urllib3.exceptions.NewConnectionError(None, "refused")  # type: ignore[arg-type]
    return Service(others=requests.ConnectionError(refused))


def client_of(box: Optional[Outbox], service: HTTPAdapter, **options: Any) -> AegisClient:
    """A client of tenant acme, thread T, whose every request the service in this process answers."""
    session = requests.Session()
    session.trust_env = False
    for scheme in ("http://", "https://"):
        session.mount(scheme, service)
    facts = {"base_url": URL, "tenant_id": "acme", "thread_id": "T", "max_retries": 0}
    return AegisClient(outbox=box, session=session, **dict(facts, **options))


def queue(box: Outbox, *keys: str, payload: Any = None, **options: Any) -> None:
    """Approve while the service is away."""
    with client_of(box, nobody_there(), **options) as client:
        for key in keys:
            assert client.approve(key, payload=payload).queued


def leave_claimed(box: Outbox, row_id: int, until: float) -> None:
    """Leave a row as a sender does that was killed: claimed until its lease runs out."""
    claim = "UPDATE decision SET state = 'claimed', owner = 'killed', lease_until_ms = {}, attempts = attempts + 1 WHERE id = {}"
    sqlite_file(Path(box.path), claim.format(int(until * 1000), row_id))


def flushed(box: Outbox, service: HTTPAdapter, **options: Any) -> FlushReport:
    with client_of(box, service, **options) as client:
        return client.flush()


def refused(act: Callable[[], Any], path: Path, *words: str) -> HestiaError:
    """Run what must fail with the one error an outbox file may raise."""
    import pytest  # here: it is most of a start, and many tests start processes that import this file

    with pytest.raises(HestiaError) as caught:
        act()
    error = caught.value
    assert type(error) is HestiaError
    assert error.code == ("OUTBOX_BUSY" if "locked too long" in str(error) else "OUTBOX")
    for word in (str(path),) + words:
        assert word in str(error)
    return error


def sqlite_file(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(str(path))
    for statement in statements:
        connection.execute(statement).fetchall()
    connection.commit()
    connection.close()


def started(code: str, *arguments: Any, **options: Any) -> subprocess.Popen:
    """Start a Python process on some code, with every warning an error."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)] + [str(a) for a in arguments],
        env=dict(os.environ, PYTHONPATH=PACKAGE_PARENT),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
        **options,
    )


def finished(process: subprocess.Popen) -> str:
    """Wait for a process that must succeed without a word on standard error; give its standard output."""
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    return out
