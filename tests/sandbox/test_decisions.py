"""AEGIS in the sandbox: each decision accepted exactly once, and the faults one may script."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, List, Optional

import pytest

from hestiaos_lite.sandbox import Sandbox

from ..sandbox_call import A, Answer, call, decision, error, events_of, name_of

APPROVE, REJECT, HEALTH = "/api/v1/hitl/approve", "/api/v1/hitl/reject", "/api/v1/health"
FIRST = {"request_id": "r-k-1", "status": "COMMITTED", "action": "approve"}
FIRST.update(idempotency_key="k-1", thread_id="t-1")


def approve(box: Any, key: str = "k-1", body: Any = None, **changes: Optional[str]) -> Answer:
    return call(box, "POST", APPROVE, body, decision(key, **changes))


# -- accepted once


@pytest.mark.parametrize("prefix", ["/api/v1", ""], ids=["prefix", "no prefix"])
@pytest.mark.parametrize("action", ["approve", "reject"])
def test_a_decision_its_status_and_its_duplicate(box: Any, prefix: str, action: str) -> None:
    answer = call(box, "POST", "{}/hitl/{}".format(prefix, action), {"amount": 3}, decision())
    pending = {"request_id": "r-k-1", "status": "PENDING", "action": action, "idempotency_key": "k-1"}
    assert answer[:2] == (202, pending)
    committed = dict(FIRST, action=action)
    assert call(box, "GET", prefix + "/hitl/status/r-k-1")[:2] == (200, committed)
    answer = call(box, "POST", REJECT, {"other": 1}, decision(X_Request_Id="r-later"))
    assert answer[:2] == (409, error("DUPLICATE", "this idempotency key was already processed", **committed))
    assert box.actions() == [dict(committed, tenant="acme", payload={"amount": 3}, accepted_ms=A(int))]


@pytest.mark.parametrize(
    "changes", [{"Tenant_Id": "b"}, {"Thread_Id": "b"}, {"Idempotency_Key": "b"}], ids=name_of
)
def test_a_key_is_one_within_tenant_and_thread(box: Any, changes: Dict[str, str]) -> None:
    seen = [approve(box).status, approve(box, **changes).status, approve(box, **changes).status]
    assert seen == [202, 202, 409]


@pytest.mark.parametrize("shared_file", [False, True], ids=["memory", "two sandboxes on one file"])
def test_500_posts_under_one_key_at_once(tmp_path: Any, shared_file: bool) -> None:
    db = tmp_path / "sandbox.db" if shared_file else None
    with Sandbox(db=db) as one, Sandbox(db=db) as other:
        statuses: List[int] = []
        together = threading.Barrier(50)

        def post(number: int) -> None:
            box = (one, other)[number % 2] if shared_file else one
            together.wait(30)
            for _ in range(10):
                statuses.append(approve(box, "once", {}, X_Request_Id=str(number)).status)

        with ThreadPoolExecutor(50) as pool:
            list(pool.map(post, range(50)))
        assert Counter(statuses) == {202: 1, 409: 499}
        assert len(one.actions()) == 1


CONFLICT_BODIES = [
    (lambda action: action, FIRST),
    (lambda action: {"detail": action}, {"detail": FIRST}),
    (lambda action: {"request_id": action["request_id"]}, {"request_id": "r-k-1"}),
    (lambda action: b"", b""),
    (lambda action: "<html>", b"<html>"),
]


def test_the_body_of_a_409_may_have_any_shape(box: Any) -> None:
    approve(box)
    for conflict_body, body in CONFLICT_BODIES:
        box.hitl.conflict_body = conflict_body
        assert approve(box, X_Request_Id="r-later")[:2] == (409, body)
    assert [row["request_id"] for row in box.actions()] == ["r-k-1"]


@pytest.mark.parametrize("body", [None, {}, {"a": [1, None, "\ud800"]}], ids=["none", "empty", "surrogate"])
def test_the_body_is_the_payload_and_a_request_id_is_given_where_none_came(box: Any, body: Any) -> None:
    answer = approve(box, body=body, X_Request_Id=None)
    assert (answer.status, [row["payload"] for row in box.actions()]) == (202, [body or {}])
    assert call(box, "GET", "/hitl/status/" + answer.body["request_id"]).body["status"] == "COMMITTED"


def test_hosted_callers_are_told_apart_by_their_key(box: Any) -> None:
    def hosted(key: str) -> Dict[str, Optional[str]]:
        return {"Tenant_Id": None, "Authorization": "Bearer " + key, "X_Request_Id": "r-" + key}

    assert [approve(box, **hosted(key)).status for key in ("one", "two", "one")] == [202, 202, 409]
    tenants = {row["tenant"] for row in box.actions()}
    assert len(tenants) == 2
    assert "one" not in json.dumps(sorted(tenants))
    # self-hosted, the request id is the secret
    callers = [{"Authorization": key} for key in ("Bearer one", "Bearer two", "Basic x")] + [{}]
    seen = [call(box, "GET", "/hitl/status/r-one", headers=headers).status for headers in callers]
    assert seen == [200, 404, 401, 200]


# -- pending, failed, quota


def test_an_action_is_pending_until_its_delay_is_over(tmp_path: Any) -> None:
    with Sandbox(db=tmp_path / "s.db", hitl_delay_seconds=600) as box:
        approve(box)
        box.hitl.delay_seconds = 0.2
        assert approve(box, "soon").body["status"] == "PENDING"
        while call(box, "GET", "/hitl/status/r-soon").body["status"] == "PENDING":
            pass
        assert [row["status"] for row in box.actions()] == ["PENDING", "COMMITTED"]
    with Sandbox(db=tmp_path / "s.db") as box:  # a delay outlives a restart
        assert call(box, "GET", "/hitl/status/r-k-1").body["status"] == "PENDING"
        assert approve(box).status == 409


def test_a_scripted_failure_is_used_by_an_accepted_action_only(box: Any) -> None:
    approve(box, "before")
    box.fail_next_action()
    assert [approve(box, key).status for key in ("before", "fails", "after")] == [409, 202, 202]
    assert [row["status"] for row in box.actions()] == ["COMMITTED", "FAILED", "COMMITTED"]
    assert call(box, "GET", "/hitl/status/r-fails").body["status"] == "FAILED"


def test_the_quota_counts_accepted_actions_of_a_tenant() -> None:
    with Sandbox(hitl_quota=2) as box:
        assert [approve(box, key).status for key in "aabca"] == [202, 409, 202, 429, 409]
        assert approve(box, "c").body == error("QUOTA_EXCEEDED", "this tenant has used up its 2 actions")
        assert approve(box, "c", Tenant_Id="other").status == 202
        box.hitl.quota = None
        assert approve(box, "c").status == 202
    with Sandbox(hitl_quota=0) as box:
        assert approve(box).status == 429


# -- faults


@pytest.mark.parametrize(
    ("script", "kind", "actions", "status_again"),
    [("fail_next", "503", 0, 202), ("drop_next", "drop", 0, 202), ("lose_next_answer", "lose", 1, 409)],
)
def test_what_a_fault_leaves_done(box: Any, script: str, kind: str, actions: int, status_again: int) -> None:
    getattr(box, script)()
    if kind == "503":
        assert approve(box).status == 503
    else:
        with pytest.raises(http.client.RemoteDisconnected):
            approve(box)
    assert box.injected == [(kind, "POST", APPROVE, "r-k-1")]
    assert len(box.actions()) == actions
    assert (approve(box).status, box.requests_total) == (status_again, 2)


# fmt: off
SCRIPTED = [
    # script, status, body, fields
    ({}, 503, {"detail": {"code": "SCRIPTED_FAULT", "message": "the sandbox was set to answer 503"}}, {"Content-Type": "application/json", "Retry-After": None}),
    ({"status": 429, "retry_after": 1, "body": [1]}, 429, [1], {"Retry-After": "1"}),
    ({"status": 502, "body": "<html>"}, 502, b"<html>", {"Content-Type": "text/html; charset=utf-8"}),
    ({"status": 502, "body": "\xe9"}, 502, b"\xc3\xa9", {"Content-Type": "text/plain; charset=utf-8"}),
    ({"status": 200, "body": b"null"}, 200, None, {"Content-Type": "application/json"}),
    ({"status": 200, "body": []}, 200, [], {}),
    ({"status": 204, "body": b""}, 204, b"", {"Content-Length": None}),
    ({"status": 304, "body": b"x"}, 304, b"", {"Content-Length": None}),
    ({"status": 599}, 599, A(dict), {}),
]
NO_SCRIPT = [
    lambda box: box.fail_next(times=0), lambda box: box.fail_next(status=199), lambda box: box.fail_next(status=600), lambda box: box.delay_next(-1),
    lambda box: box.delay_next(float("nan")), lambda box: box.delay_next(float("inf")), lambda box: box.random_faults(rate=2),
    lambda box: box.random_faults(kinds=("399",)), lambda box: box.random_faults(kinds=("600",)), lambda box: box.random_faults(kinds=()),
]
# fmt: on


def test_scripted_answers(box: Any) -> None:
    for script, status, body, fields in SCRIPTED:
        box.fail_next(path=HEALTH, **script)
        answer = call(box, "GET", HEALTH)
        assert answer[:2] == (status, body)
        assert {name: answer.headers[name] for name in fields} == fields
        assert call(box, "GET", HEALTH).status == 200
    with pytest.raises(TypeError, match="not JSON"):
        box.fail_next(body=object())
    for script in NO_SCRIPT:
        with pytest.raises(ValueError, match="must|unknown|name"):
            script(box)


def test_faults_come_in_the_order_of_the_script_and_can_be_cleared(box: Any) -> None:
    box.fail_next(times=2)
    box.fail_next(status=429, path="/api/v1/hitl/*")
    box.fail_next(status=500)
    paths = [HEALTH, HEALTH, HEALTH, "/hitl/status/x", "/api/v1/hitl/status/x", HEALTH]
    assert [call(box, "GET", path).status for path in paths] == [503, 503, 500, 404, 429, 200]
    met = [("503", paths[0]), ("503", paths[1]), ("500", paths[2]), ("429", paths[4])]
    assert [(fault.kind, fault.path) for fault in box.injected] == met
    box.lose_next_answer()
    with pytest.raises(http.client.RemoteDisconnected):
        call(box, "GET", "/nope")  # a refusal is an answer
    box.fail_next(times=100)
    box.random_faults(rate=1.0)
    box.clear_faults()
    assert call(box, "GET", HEALTH).status == 200
    for status in (400, 599):
        box.random_faults(rate=1.0, kinds=[str(status)])
        assert call(box, "GET", HEALTH).status == status
    box.random_faults(rate=0)
    assert call(box, "GET", HEALTH).status == 200


def test_a_delay_goes_with_any_outcome(box: Any) -> None:
    box.delay_next(0.2)
    box.fail_next()
    started = time.monotonic()
    assert [call(box, "GET", HEALTH).status for _ in range(2)] == [503, 200]
    assert time.monotonic() - started >= 0.2
    assert [fault.kind for fault in box.injected] == ["delay", "503"]


@pytest.mark.parametrize("after_events", [0, 3, 99], ids=["at once", "inside", "before its last chunk"])
def test_a_stream_is_cut(box: Any, after_events: int) -> None:
    def stream() -> Answer:
        return call(box, "POST", "/api/v1/run/stream", {"input": "one two three"})

    box.drop_next_stream(after_events=after_events)
    assert call(box, "POST", "/api/v1/run", {"input": "x"}).status == 200  # no stream, so not this one
    with pytest.raises(http.client.IncompleteRead) as caught:
        stream()
    kinds = ["start", "token", "token", "token", "token", "final", "done"]
    blocks = caught.value.partial.decode("utf-8").split("\n\n")[:-1]
    assert [json.loads(block[6:])["type"] for block in blocks] == kinds[:after_events]
    assert [event["type"] for event in events_of(stream())] == kinds


def test_random_faults_follow_their_seed_and_are_recorded() -> None:
    def kinds(seed: int) -> List[Any]:
        with Sandbox() as box:
            box.random_faults(rate=0.5, seed=seed, kinds=("503", "lose", "drop"))
            for number in range(30):
                with contextlib.suppress(http.client.RemoteDisconnected):
                    approve(box, str(number))
            box.clear_faults()
            undone = {fault.request_id for fault in box.injected if fault.kind != "lose"}
            done = {row["request_id"] for row in box.actions()}
            assert done == {"r-{}".format(number) for number in range(30)} - undone
            return [(fault.kind, fault.request_id) for fault in box.injected]

    assert 0 < len(kinds(1)) < 30
    assert kinds(1) == kinds(1) != kinds(2)
