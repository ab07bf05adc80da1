"""A 409 says that a key was used, not for what: what for is asked, and a rejection is never reported as an approval."""

from __future__ import annotations

from typing import Any, Callable, Dict, Mapping

import pytest

from hestiaos_lite import ActionResult, AegisClient, FlushReport, IdempotencyConflict, InvalidResponse, Outbox
from hestiaos_lite.sandbox import Sandbox

from ..aegis.kit import queue
from ..cli_call import call

# What a 409 has been seen to say of the first decision, and whether that alone tells which action it was.
BODIES: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "flat": lambda first: first,
    "under detail": lambda first: {"detail": first},
    "in capitals": lambda first: {"action": first["action"].upper()},
    "only a request id": lambda first: {"detail": "duplicate", "request_id": first["request_id"]},
    "only a request id, under detail": lambda first: {"detail": {"request_id": first["request_id"]}},
}
SILENT: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "empty": lambda first: b"",
    "a word": lambda first: {"detail": "duplicate"},
    "a list": lambda first: [first],
    "a request id that nobody knows": lambda first: {"request_id": "another"},
    "a request id that is no text": lambda first: {"request_id": 7},
    "a request id that is no path": lambda first: {"request_id": ".."},
}


def client_of(box: Sandbox, **options: Any) -> AegisClient:
    return AegisClient(box.url, **dict({"tenant_id": "acme", "thread_id": "T", "max_retries": 0}, **options))


def facts(result: ActionResult) -> Any:
    return (result.status_code, result.duplicate, result.confirmed)


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_who_decided_otherwise_first_is_told(box: Sandbox, outbox: Outbox, body: Any) -> None:
    """By a call, by a flush, and by a call that an outbox records first."""
    box.hitl.conflict_body = body
    with client_of(box) as first:
        for key, action in (("same", "approve"), ("other", "reject"), ("k", "reject")):
            assert first.execute(action, key).accepted
        assert facts(first.reject("k")) == (409, True, True)
        with pytest.raises(IdempotencyConflict) as caught:
            first.approve("k")
    assert (caught.value.status, caught.value.exit_code) == (409, 1)
    assert "recorded 'reject' under this idempotency key, not 'approve'" in str(caught.value)
    queue(outbox, "same", "other", base_url=box.url)
    with client_of(box, outbox=outbox) as aegis:
        assert aegis.flush() == FlushReport(duplicate=1, dead=1)
        with pytest.raises(IdempotencyConflict):
            aegis.approve("k")
    rows = [(row.idempotency_key, row.state, row.confirmed) for row in outbox.list()]
    assert rows == [("same", "settled", True), ("other", "dead", True), ("k", "dead", True)]


@pytest.mark.parametrize("body", SILENT.values(), ids=SILENT.keys())
def test_where_nobody_says_it_is_not_confirmed(box: Sandbox, outbox: Outbox, body: Any) -> None:
    box.hitl.conflict_body = body
    with client_of(box) as aegis:
        aegis.reject("k")
        assert facts(aegis.approve("k")) == (409, True, False)
    with client_of(box, outbox=outbox) as aegis:
        for _ in range(2):  # the second is from the outbox, which remembers that nobody said
            assert facts(aegis.approve("k")) == (409, True, False)
    options = ("-u", box.url, "--tenant", "acme", "--thread", "T")
    called = call("hitl", "approve", "k", *options)
    assert called.code == 0
    assert "the service does not say whether to approve or to reject" in called.err
    assert call("hitl", "approve", "k", "-j", *options).json["confirmed"] is False


# How the look at the first request may fail; it never raises, and never says more than was learned.
OTHER = {"request_id": "x", "status": "COMMITTED", "action": "approve"}
LOOKS: Dict[str, Dict[str, Any]] = {
    "not found": {"status": 404},
    "not allowed": {"status": 401},
    "broken": {"status": 500, "times": 9},
    "an answer about another request": {"status": 200, "body": OTHER},
    "no JSON": {"status": 200, "body": "<html>"},
    "without an action": {"status": 200, "body": {"status": "COMMITTED"}},
}


@pytest.mark.parametrize("fault", LOOKS.values(), ids=LOOKS.keys())
def test_a_look_that_fails_leaves_it_unconfirmed(box: Sandbox, fault: Any) -> None:
    box.hitl.conflict_body = BODIES["only a request id"]
    with client_of(box) as aegis:
        aegis.reject("k")
        box.fail_next(path="*/hitl/status/*", **fault)
        assert facts(aegis.approve("k")) == (409, True, False)


@pytest.mark.parametrize("action", [["approve"], {"approve": True}, 1, "approved", "REJECTED", "deny"])
def test_a_word_that_is_not_ours_is_another_action(box: Sandbox, action: Any) -> None:
    box.hitl.conflict_body = lambda first: {"action": action}
    with client_of(box) as aegis:
        aegis.approve("k")
        with pytest.raises(IdempotencyConflict):
            aegis.approve("k")


def test_two_levels_that_disagree_are_no_approval(box: Sandbox) -> None:
    box.hitl.conflict_body = lambda first: {"action": "approve", "detail": {"action": "reject"}}
    with client_of(box) as aegis:
        aegis.reject("k")
        with pytest.raises(IdempotencyConflict):
            aegis.approve("k")


def test_the_look_is_within_the_deadline_of_the_call(box: Sandbox) -> None:
    box.hitl.conflict_body = BODIES["only a request id"]
    with client_of(box) as aegis:
        aegis.approve("k")
    with client_of(box, timeout=0.5) as aegis:
        box.delay_next(60, path="*/hitl/status/*")
        assert facts(aegis.approve("k")) == (409, True, False)


@pytest.mark.parametrize(
    "body", [{"action": "reject"}, {"detail": {"action": "reject"}}, {"action": ["approve"]}]
)
def test_a_202_that_names_another_action_is_a_conflict(box: Sandbox, outbox: Outbox, body: Any) -> None:
    with client_of(box) as aegis:
        box.fail_next(202, body=body)
        with pytest.raises(IdempotencyConflict) as caught:
            aegis.approve("k")
        assert (caught.value.status, caught.value.effect, caught.value.exit_code) == (202, "accepted", 1)
        assert "before this was sent" not in str(caught.value)  # it was taken now, for something else
    with client_of(box, outbox=outbox) as aegis:
        box.fail_next(202, body=body)
        with pytest.raises(IdempotencyConflict):
            aegis.approve("k2")
        queue(outbox, "k3", base_url=box.url)
        box.fail_next(202, body=body)
        assert aegis.flush().dead == 1
    assert [row.state for row in outbox.list()] == ["dead", "dead"]


# A status

STATUSES = [
    ("COMMITTED", "approve", 0), ("COMMITTED", "reject", 1), ("COMMITTED", "REJECT", 1), ("COMMITTED", "rejected", 1),
    ("COMMITTED", "deny", 1), ("COMMITTED", "Approve", 1), ("COMMITTED", None, 1), ("COMMITTED", 1, 1),
    ("COMMITTED", ["approve"], 1), ("FAILED", "approve", 1), ("REJECTED", "approve", 1), ("rejected", None, 1),
    ("PENDING", "approve", 75), ("QUEUED", None, 75),
]  # fmt: skip


@pytest.mark.parametrize(("status", "action", "code"), STATUSES)
def test_only_a_committed_approval_is_exit_0(box: Sandbox, status: str, action: Any, code: int) -> None:
    box.fail_next(200, body={"request_id": "r", "status": status, "action": action})
    assert call("hitl", "status", "r", "-u", box.url).code == code


def test_a_status_of_another_request_is_not_taken(box: Sandbox) -> None:
    box.fail_next(200, body={"request_id": "another", "status": "COMMITTED", "action": "approve"}, times=2)
    with client_of(box) as aegis, pytest.raises(InvalidResponse, match="about another request"):
        aegis.get_status("r")
    assert call("hitl", "status", "r", "-u", box.url).code == 76
