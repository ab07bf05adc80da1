"""AegisClient against the sandbox: what is sent, what comes back, and that nothing is decided twice."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any, Iterator, List, Type

import pytest

from hestiaos_lite import (
    ActionResult,
    AegisClient,
    AuthenticationError,
    ConnectionFailed,
    InvalidInput,
    InvalidResponse,
    NotFound,
    Outbox,
    RateLimited,
    RequestTimeout,
    ServerError,
)
from hestiaos_lite.sandbox import Sandbox

from ..faultserver import FaultServer, hang

REPOSITORY = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(name="box")
def _box() -> Iterator[Sandbox]:
    with Sandbox() as box:
        yield box


@pytest.fixture(name="aegis")
def _aegis(box: Sandbox) -> Iterator[AegisClient]:
    with AegisClient(box.url, tenant_id="acme", thread_id="main") as client:
        yield client


def keys_of(box: Sandbox) -> List[str]:
    return [action["idempotency_key"] for action in box.actions()]


# What goes over the wire


def test_a_decision_on_the_wire(box: Sandbox, aegis: AegisClient) -> None:
    result = aegis.approve("key-1", payload={"amount": 120})
    (request,) = box.requests
    assert (request.method, request.path, request.json) == ("POST", "/api/v1/hitl/approve", {"amount": 120})
    names = ("Thread-Id", "Idempotency-Key", "Tenant-Id", "Authorization")
    assert [request.headers.get(name) for name in names] == ["main", "key-1", "acme", None]
    request_id = request.headers["X-Request-Id"]
    data = {"request_id": request_id, "status": "PENDING", "action": "approve", "idempotency_key": "key-1"}
    assert result == ActionResult("key-1", request_id, status_code=202, attempts=1, data=data)
    assert (result.accepted, result.duplicate, result.queued, result.settled) == (True, False, False, True)
    assert repr(aegis) == "<AegisClient {}>".format(box.url)


def test_hosted_mode_sends_the_key_and_no_tenant(tmp_path: Path) -> None:
    with Sandbox(api_key="s3cr3t") as box, AegisClient(box.url, api_key="s3cr3t", thread_id="main") as client:
        assert client.reject("key-1").accepted
        (request,) = box.requests
        assert (request.headers["Authorization"], request.headers.get("Tenant-Id")) == ("Bearer s3cr3t", None)
        assert client.get_status(request.headers["X-Request-Id"]).action == "reject"


def test_tenant_and_thread_of_a_call_win(box: Sandbox, aegis: AegisClient) -> None:
    aegis.execute("reject", "key-1", tenant_id="other", thread_id="side")
    (action,) = box.actions()
    assert (action["tenant"], action["thread_id"], action["action"]) == ("other", "side", "reject")


@pytest.mark.parametrize("prefix", ["", "/"])
def test_the_first_release_had_no_prefix(box: Sandbox, prefix: str) -> None:
    with AegisClient(box.url, tenant_id="acme", thread_id="main", api_prefix=prefix) as client:
        assert client.approve("key-1").accepted
    assert [request.path for request in box.requests] == ["/hitl/approve"]


# What is refused before anything is sent


def inside_itself() -> Any:
    payload: Any = {"text": "more than eight characters", "list": []}
    payload["list"].append(payload)
    return payload


@pytest.mark.parametrize(("call", "error", "words"), [
    (lambda c: AegisClient(c.base_url, tenant_id="t").approve("k"), ValueError, "missing: thread_id"),
    (lambda c: AegisClient(c.base_url, thread_id="t").approve("k"), ValueError, "missing: tenant_id"),
    (lambda c: AegisClient(c.base_url).approve("k"), ValueError, "thread_id .* and tenant_id"),
    (lambda c: c.execute("postpone", "k"), ValueError, "'approve' or 'reject'"),
    (lambda c: c.flush(), ValueError, "no outbox"),
    (lambda c: c.approve(""), InvalidInput, "Idempotency-Key"),
    (lambda c: c.approve("a\r\nX-Evil: 1"), InvalidInput, "Idempotency-Key"),
    (lambda c: c.approve("k\N{EURO SIGN}"), InvalidInput, "Idempotency-Key"),
    (lambda c: c.approve(None), InvalidInput, "Idempotency-Key"),
    (lambda c: c.approve("k", thread_id="a\nb"), InvalidInput, "Thread-Id"),
    (lambda c: c.approve("k", tenant_id="\x7f"), InvalidInput, "Tenant-Id"),
    (lambda c: c.approve("k", payload=["a"]), InvalidInput, "payload"),
    (lambda c: c.approve("k", payload={"a": object()}), InvalidInput, "JSON"),
    (lambda c: c.approve("k", payload={"a": float("nan")}), InvalidInput, "JSON"),
    (lambda c: c.approve("k", payload=inside_itself()), InvalidInput, "contains itself"),
    (lambda c: c.conclude("k", payload=inside_itself()), InvalidInput, "contains itself"),
    (lambda c: c.get_status(".."), InvalidInput, "path segment"),
    (lambda c: c.wait("id", timeout=-1), InvalidInput, "timeout"),
])  # fmt: skip
def test_refused_before_it_is_sent(
    box: Sandbox, aegis: AegisClient, call: Any, error: Type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        call(aegis)
    assert box.requests_total == 0


# Answers and retries


def test_a_duplicate_is_a_result_that_names_the_first_request(box: Sandbox, aegis: AegisClient) -> None:
    first, again = aegis.approve("key-1"), aegis.approve("key-1")
    assert (again.status_code, again.duplicate, again.settled, again.attempts) == (409, True, True, 1)
    assert aegis.get_status(again.request_id).committed
    assert again.request_id == first.request_id
    assert keys_of(box) == ["key-1"]


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, {"status": "ok"}), (202, [1, 2]), (204, None), (201, {})],
    ids=lambda value: str(value),
)
def test_another_service_does_not_swallow_an_approval(
    box: Sandbox, aegis: AegisClient, outbox: Outbox, status: int, body: Any
) -> None:
    box.fail_next(status=status, times=2, body=body)
    with pytest.raises(InvalidResponse):
        aegis.approve("key-1")
    with AegisClient(box.url, tenant_id="acme", thread_id="main", outbox=outbox, max_retries=0) as client:
        assert client.approve("key-1").queued


def test_an_answer_lost_after_the_commit_is_settled_by_the_retry(box: Sandbox, aegis: AegisClient) -> None:
    box.hitl.conflict_body = lambda first: {"detail": "duplicate", "request_id": first["request_id"]}
    box.lose_next_answer()
    result = aegis.approve("key-1")
    assert (result.status_code, result.settled, result.attempts, result.confirmed) == (409, True, 2, True)
    assert keys_of(box) == ["key-1"]
    first, second = box.requests[:2]
    for header in ("Idempotency-Key", "X-Request-Id", "Thread-Id"):
        assert first.headers[header] == second.headers[header]


# What the service answers first, and how often it may be asked again -> what is raised, or None; how often it was asked.
# fmt: off
TRIED: List[Any] = [
    (500, 3, None, 2), (504, 3, None, 2), (503, 3, None, 2), (500, 0, ServerError, 1),
    (400, 3, InvalidInput, 1), (401, 3, AuthenticationError, 1), (404, 3, NotFound, 1), (422, 3, InvalidInput, 1),
    (429, 3, RateLimited, 1),
]
# fmt: on


@pytest.mark.parametrize(("status", "retries", "error", "attempts"), TRIED)
def test_a_5xx_is_tried_again_under_the_same_key_and_a_4xx_never(
    box: Sandbox, status: int, retries: int, error: Any, attempts: int
) -> None:
    box.fail_next(status=status, times=1)
    with AegisClient(box.url, tenant_id="acme", thread_id="main", max_retries=retries) as client:
        if error is None:
            result = client.approve("key-1")
            assert (result.status_code, result.attempts) == (202, attempts)
        else:
            with pytest.raises(error) as caught:
                client.approve("key-1")
            facts = (caught.value.status, caught.value.attempts, caught.value.delivered)
            assert facts == (status, attempts, True)
    assert box.requests_total == attempts
    assert len({request.headers["X-Request-Id"] for request in box.requests}) == 1


def test_what_the_service_echoes_of_a_payload_is_masked_unless_it_is_a_common_word(
    box: Sandbox, aegis: AegisClient
) -> None:
    box.fail_next(status=422, body={"detail": "not valid: 12345678, invoice"})
    with pytest.raises(InvalidInput, match=r"not valid: \*\*\*, invoice"):
        aegis.approve("key-1", payload={"of": ["invoice"], "card": {"number": "12345678"}})


def test_the_waits_are_half_one_and_two_seconds_within_the_deadline() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = "http://127.0.0.1:{}".format(nobody.getsockname()[1])
        with AegisClient(url, tenant_id="acme", thread_id="main", timeout=2.0) as client:
            started = time.monotonic()
            with pytest.raises(ConnectionFailed) as caught:
                client.approve("key-1")
    # 0.5 s and 1 s are paid for by 2 s, the next 2 s are not: no wait that the deadline cannot pay
    assert caught.value.attempts == 3
    assert caught.value.delivered is False
    assert time.monotonic() - started >= 1.5


# Waiting


# a look that fails for a passing reason is taken again
BUSY_ONCE: Any = {"status": 429, "path": "*/hitl/status/*"}


@pytest.mark.parametrize(("delay_seconds", "before", "timeout", "expected"), [
    (0.3, lambda box: box.fail_next(**BUSY_ONCE), 10, ("COMMITTED", True, True)),
    (0.0, lambda box: box.fail_next_action(), 10, ("FAILED", True, False)),
    (60, lambda box: None, 0.2, ("PENDING", False, False)),  # its time is up
])  # fmt: skip
def test_wait(delay_seconds: float, before: Any, timeout: float, expected: Any) -> None:
    with Sandbox(hitl_delay_seconds=delay_seconds) as box:
        with AegisClient(box.url, tenant_id="acme", thread_id="main") as client:
            before(box)
            request_id = client.approve("key-1").request_id
            status = client.wait(request_id, timeout=timeout, poll=0.05)
    assert (status.status, status.done, status.committed) == expected


def test_wait_ends_with_its_last_look_however_long_a_look_takes() -> None:
    with FaultServer(hang) as server:
        with AegisClient(server.url, tenant_id="t", thread_id="th", timeout=1) as client:
            with pytest.raises(RequestTimeout):
                client.wait("r-1", timeout=0.2)
        assert server.hits == 2  # one within its time, and the last


def test_wait_does_not_wait_for_what_nobody_knows(aegis: AegisClient) -> None:
    with pytest.raises(NotFound):
        aegis.wait("no-such-request", timeout=30)


# Through an outbox


def test_the_lease_must_outlast_the_timeout(tmp_path: Path) -> None:
    with Outbox(tmp_path / "o.db", lease_seconds=5) as outbox, pytest.raises(InvalidInput, match="lease"):
        AegisClient("http://127.0.0.1:1", outbox=outbox, timeout=5)


def test_the_key_is_never_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    with Sandbox(api_key="canary-5a1f") as box, Outbox(path) as outbox:
        with AegisClient(box.url, api_key="canary-5a1f", thread_id="main", outbox=outbox) as client:
            client.approve("key-1")
            box.fail_next(status=401, body={"detail": "canary-5a1f is not known"})
            with pytest.raises(AuthenticationError):
                client.approve("key-2")
    for name in os.listdir(str(tmp_path)):
        assert b"canary-5a1f" not in (tmp_path / name).read_bytes()
