"""AEGIS in the sandbox: each decision accepted exactly once, and the faults one may script."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter

import pytest

from hestiaos_lite.sandbox import Sandbox

from ..sandbox_call import A, call, events_of

APPROVE = "/api/v1/hitl/approve"
REJECT = "/api/v1/hitl/reject"
JSON = {"Content_Type": "application/json"}


def headers(key="k-1", **changes):
    """The headers of a self-hosted decision; a change to None leaves one out."""
    found = {"Tenant-Id": "acme", "Thread-Id": "t-1", "Idempotency-Key": key, "X-Request-Id": "r-" + key}
    found.update((name.replace("_", "-"), value) for name, value in changes.items())
    return {name: value for name, value in found.items() if value is not None}


@pytest.fixture()
def box():
    with Sandbox() as running:
        yield running


# -- accepted once


@pytest.mark.parametrize("prefix", ["/api/v1", ""], ids=["prefix", "no prefix"])
@pytest.mark.parametrize("action", ["approve", "reject"])
def test_a_decision_and_its_status(box, prefix, action):
    answer = call(box, "POST", "{}/hitl/{}".format(prefix, action), {"amount": 3}, headers())
    assert (answer.status, answer.body) == (
        202,
        {"request_id": "r-k-1", "status": "PENDING", "action": action, "idempotency_key": "k-1"},
    )
    committed = {
        "request_id": "r-k-1",
        "status": "COMMITTED",
        "action": action,
        "idempotency_key": "k-1",
        "thread_id": "t-1",
    }
    assert call(box, "GET", prefix + "/hitl/status/r-k-1")[:2] == (200, committed)
    assert box.actions() == [dict(committed, tenant="acme", payload={"amount": 3}, accepted_ms=A(int))]


def test_a_duplicate_is_a_409_with_the_original(box):
    call(box, "POST", APPROVE, {}, headers())
    answer = call(box, "POST", REJECT, {"other": 1}, headers(X_Request_Id="r-later"))
    facts = {
        "code": "DUPLICATE",
        "message": "this idempotency key was already processed",
        "request_id": "r-k-1",
        "status": "COMMITTED",
        "action": "approve",
        "idempotency_key": "k-1",
        "thread_id": "t-1",
    }
    assert (answer.status, answer.body) == (409, dict(facts, detail=facts))
    assert [row["request_id"] for row in box.actions()] == ["r-k-1"]


@pytest.mark.parametrize(
    "changes",
    [{"Tenant_Id": "other"}, {"Thread_Id": "other"}, {"Idempotency_Key": "other"}],
    ids=["tenant", "thread", "key"],
)
def test_a_key_is_one_within_tenant_and_thread(box, changes):
    assert call(box, "POST", APPROVE, {}, headers()).status == 202
    assert call(box, "POST", APPROVE, {}, headers(**changes)).status == 202
    assert call(box, "POST", APPROVE, {}, headers(**changes)).status == 409


@pytest.mark.parametrize("shared_file", [False, True], ids=["memory", "two sandboxes on one file"])
def test_500_posts_under_one_key_at_once(tmp_path, shared_file):
    db = tmp_path / "sandbox.db" if shared_file else None
    with Sandbox(db=db) as one, Sandbox(db=db) as other:
        targets = [one, other] if shared_file else [one]
        statuses = []
        together = threading.Barrier(50)

        def post(number):
            box = targets[number % len(targets)]
            connection = http.client.HTTPConnection(box.host, box.port, timeout=30)
            connection.connect()
            together.wait(30)
            for _ in range(10):
                connection.request("POST", APPROVE, b"{}", headers("once", X_Request_Id=str(number), **JSON))
                response = connection.getresponse()
                response.read()
                statuses.append(response.status)
            connection.close()

        threads = [threading.Thread(target=post, args=(number,)) for number in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert Counter(statuses) == {202: 1, 409: 499}
        assert len(one.actions()) == 1


def test_500_connections_with_one_key_at_once(box):
    statuses = []
    together = threading.Barrier(500)

    def post():
        connection = http.client.HTTPConnection(box.host, box.port, timeout=30)
        connection.connect()
        together.wait(30)
        connection.request("POST", APPROVE, b"{}", headers("once", **JSON))
        statuses.append(connection.getresponse().status)
        connection.close()

    threads = [threading.Thread(target=post) for _ in range(500)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(statuses) == {202: 1, 409: 499}


FIRST = {
    "request_id": "r-k-1",
    "status": "COMMITTED",
    "action": "approve",
    "idempotency_key": "k-1",
    "thread_id": "t-1",
}


@pytest.mark.parametrize(
    ("conflict_body", "body"),
    [
        (lambda action: action, FIRST),
        (lambda action: {"detail": action}, {"detail": FIRST}),
        (lambda action: {"detail": "duplicate", "request_id": action["request_id"]}, A(dict)),
        (lambda action: b"", b""),
        (lambda action: "<html>", b"<html>"),
    ],
    ids=["flat", "under detail", "a request id alone", "empty", "a page"],
)
def test_the_body_of_a_409_may_have_any_shape(box, conflict_body, body):
    box.hitl.conflict_body = conflict_body
    call(box, "POST", APPROVE, {}, headers())
    assert call(box, "POST", REJECT, {}, headers(X_Request_Id="r-later"))[:2] == (409, body)
    assert [row["request_id"] for row in box.actions()] == ["r-k-1"]


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        (APPROVE, 202, {"request_id": "r-k-1", "status": "PENDING", "action": "reject"}),
        ("/api/governance/explain", 200, {"result": "block"}),
        ("/api/governance/explain", 200, []),
    ],
)
def test_any_answer_may_be_scripted_in_place_of_the_services_own(box, path, status, body):
    box.fail_next(status, body=body, path=path)
    assert call(box, "POST", path, {}, headers())[:2] == (status, body)
    assert box.actions() == []


# -- headers and body


def missing(*names):
    return [{"loc": ["header", name], "msg": "Field required", "type": "missing"} for name in names]


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"Tenant_Id": None}, ["tenant-id"]),
        ({"Thread_Id": None}, ["thread-id"]),
        ({"Idempotency_Key": None}, ["idempotency-key"]),
        ({"Idempotency_Key": ""}, ["idempotency-key"]),
        (
            {"Tenant_Id": None, "Thread_Id": None, "Idempotency_Key": None},
            ["tenant-id", "thread-id", "idempotency-key"],
        ),
        ({"Tenant_Id": None, "Thread_Id": None, "Authorization": "Bearer K"}, ["thread-id"]),
    ],
    ids=["tenant", "thread", "key", "empty key", "all", "hosted"],
)
def test_a_missing_header_is_named(box, changes, names):
    answer = call(box, "POST", APPROVE, {}, headers(**changes))
    assert answer[:2] == (422, {"detail": missing(*names)})
    assert box.actions() == []


@pytest.mark.parametrize(
    ("body", "status", "payload"),
    [
        (None, 202, {}),
        ({}, 202, {}),
        ({"a": [1, None, "\ud800"]}, 202, {"a": [1, None, "\ud800"]}),
        ([], 422, None),
    ],
    ids=["none", "empty", "any JSON", "list"],
)
def test_the_body_is_the_payload(box, body, status, payload):
    assert call(box, "POST", APPROVE, body, headers()).status == status
    assert [row["payload"] for row in box.actions()] == ([payload] if status == 202 else [])


def test_a_request_id_is_given_where_none_came(box):
    request_id = call(box, "POST", APPROVE, {}, headers(X_Request_Id=None)).body["request_id"]
    assert call(box, "GET", "/hitl/status/" + request_id).body["status"] == "COMMITTED"


def test_an_unknown_request_id_is_a_404(box):
    facts = {"code": "NOT_FOUND", "message": "no action has this request id"}
    assert call(box, "GET", "/hitl/status/none")[:2] == (404, dict(facts, detail=facts))


# -- hosted


def test_hosted_callers_are_told_apart_by_their_key(box):
    def hosted(key):
        return headers(Tenant_Id=None, Authorization="Bearer " + key, X_Request_Id="r-" + key)

    assert [call(box, "POST", APPROVE, {}, hosted(key)).status for key in ("one", "two", "one")] == [
        202,
        202,
        409,
    ]
    assert "one" not in json.dumps([row["tenant"] for row in box.actions()])
    assert len({row["tenant"] for row in box.actions()}) == 2
    seen = [
        call(box, "GET", "/hitl/status/r-one", headers={"Authorization": "Bearer " + key}).status
        for key in ("one", "two")
    ]
    assert seen == [200, 404]
    assert call(box, "GET", "/hitl/status/r-one").status == 200  # self-hosted: the request id is the secret


def test_a_sandbox_with_a_key_wants_it_here_too():
    with Sandbox(api_key="K") as box:
        assert call(box, "POST", APPROVE, {}, headers()).status == 401
        assert call(box, "POST", APPROVE, {}, headers(Authorization="Bearer K")).status == 202


# -- pending, failed, quota


def test_an_action_is_pending_until_its_delay_is_over():
    with Sandbox(hitl_delay_seconds=0.4) as box:
        call(box, "POST", APPROVE, {}, headers())
        assert call(box, "POST", APPROVE, {}, headers()).body["status"] == "PENDING"
        seen = []
        deadline = time.monotonic() + 10
        while "COMMITTED" not in seen and time.monotonic() < deadline:
            status = call(box, "GET", "/hitl/status/r-k-1").body["status"]
            if status not in seen:
                seen.append(status)
        assert seen == ["PENDING", "COMMITTED"]


def test_a_delay_outlives_a_restart(tmp_path):
    with Sandbox(db=tmp_path / "s.db", hitl_delay_seconds=600) as box:
        call(box, "POST", APPROVE, {}, headers())
    with Sandbox(db=tmp_path / "s.db") as box:
        assert call(box, "GET", "/hitl/status/r-k-1").body["status"] == "PENDING"
        assert call(box, "POST", APPROVE, {}, headers()).status == 409


def test_a_scripted_failure_is_used_by_an_accepted_action_only(box):
    call(box, "POST", APPROVE, {}, headers("before"))
    box.fail_next_action()
    assert call(box, "POST", APPROVE, {}, headers("before")).status == 409
    for key in ("fails", "after"):
        call(box, "POST", APPROVE, {}, headers(key))
    assert [row["status"] for row in box.actions()] == ["COMMITTED", "FAILED", "COMMITTED"]
    assert call(box, "GET", "/hitl/status/r-fails").body["status"] == "FAILED"


def test_the_quota_counts_accepted_actions_of_a_tenant():
    with Sandbox(hitl_quota=2) as box:

        def post(key, tenant="acme"):
            return call(box, "POST", APPROVE, {}, headers(key, Tenant_Id=tenant))

        assert [post(key).status for key in ("a", "a", "b", "c", "a")] == [202, 409, 202, 429, 409]
        facts = {"code": "QUOTA_EXCEEDED", "message": "this tenant has used up its 2 actions"}
        assert post("c").body == dict(facts, detail=facts)
        assert post("c", tenant="other").status == 202
        box.hitl.quota = None
        assert post("c").status == 202


# -- faults


def test_a_lost_answer_was_committed(box):
    box.lose_next_answer()
    with pytest.raises(http.client.RemoteDisconnected):
        call(box, "POST", APPROVE, {}, headers())
    assert call(box, "POST", APPROVE, {}, headers()).status == 409
    assert len(box.actions()) == 1
    assert box.injected == [("lose", "POST", APPROVE, "r-k-1")]


@pytest.mark.parametrize("fault", ["fail", "drop"])
def test_a_fault_before_the_work_changes_nothing(box, fault):
    if fault == "fail":
        box.fail_next(status=500)
        assert call(box, "POST", APPROVE, {}, headers()).status == 500
    else:
        box.drop_next()
        with pytest.raises(http.client.RemoteDisconnected):
            call(box, "POST", APPROVE, {}, headers())
    assert box.actions() == []
    assert call(box, "POST", APPROVE, {}, headers()).status == 202
    assert box.requests_total == 2


@pytest.mark.parametrize(
    ("script", "status", "body", "fields"),
    [
        (
            {},
            503,
            {"detail": {"code": "SCRIPTED_FAULT", "message": "the sandbox was told to answer 503"}},
            {"Content-Type": "application/json", "Retry-After": None},
        ),
        ({"status": 429, "retry_after": 1, "body": [1]}, 429, [1], {"Retry-After": "1"}),
        ({"status": 502, "body": "<html>"}, 502, b"<html>", {"Content-Type": "text/html; charset=utf-8"}),
        ({"status": 502, "body": "é"}, 502, "é".encode(), {"Content-Type": "text/plain; charset=utf-8"}),
        ({"status": 200, "body": b"null"}, 200, None, {"Content-Type": "application/json"}),
        ({"status": 204, "body": b""}, 204, b"", {"Content-Length": None}),
        ({"status": 599}, 599, A(dict), {}),
    ],
    ids=["default", "json", "html", "text", "bytes", "no content", "unknown status"],
)
def test_scripted_answers(box, script, status, body, fields):
    box.fail_next(**script)
    answer = call(box, "GET", "/api/v1/health")
    assert answer[:2] == (status, body)
    assert {name: answer.headers[name] for name in fields} == fields
    assert call(box, "GET", "/api/v1/health").status == 200


def test_faults_come_in_the_order_of_the_script(box):
    box.fail_next(times=2)
    box.fail_next(status=429, path="/api/v1/hitl/*")
    box.fail_next(status=500)
    paths = ["/api/v1/health"] * 2 + [
        "/api/v1/health",
        "/hitl/status/x",
        "/api/v1/hitl/status/x",
        "/api/v1/health",
    ]
    assert [call(box, "GET", path).status for path in paths] == [503, 503, 500, 404, 429, 200]
    assert [(fault.kind, fault.path) for fault in box.injected] == [
        ("503", "/api/v1/health"),
        ("503", "/api/v1/health"),
        ("500", "/api/v1/health"),
        ("429", "/api/v1/hitl/status/x"),
    ]


def test_a_delay_goes_with_any_outcome(box):
    box.delay_next(0.2)
    box.fail_next()
    started = time.monotonic()
    assert call(box, "GET", "/api/v1/health").status == 503
    assert time.monotonic() - started >= 0.2
    assert [fault.kind for fault in box.injected] == ["delay", "503"]


@pytest.mark.parametrize("after_events", [0, 3, 99], ids=["at once", "inside", "before its last chunk"])
def test_a_stream_is_cut(box, after_events):
    box.drop_next_stream(after_events=after_events)
    assert call(box, "POST", "/api/v1/run", {"input": "x"}).status == 200  # no stream, so not this one
    with pytest.raises(http.client.IncompleteRead) as caught:
        call(box, "POST", "/api/v1/run/stream", {"input": "one two three"})
    kinds = ["start", "token", "token", "token", "token", "final", "done"]
    blocks = caught.value.partial.decode("utf-8").split("\n\n")[:-1]
    assert [json.loads(block[6:])["type"] for block in blocks] == kinds[:after_events]
    assert len(events_of(call(box, "POST", "/api/v1/run/stream", {"input": "one two three"}))) == 7


def test_random_faults_follow_their_seed_and_are_recorded():
    def kinds(seed):
        with Sandbox() as box:
            box.random_faults(rate=0.5, seed=seed, kinds=("503", "lose", "drop"))
            for number in range(60):
                try:
                    call(box, "POST", APPROVE, {}, headers(str(number)))
                except http.client.RemoteDisconnected:
                    pass
            injected = box.injected
            done = {row["request_id"] for row in box.actions()}
        undone = {fault.request_id for fault in injected if fault.kind != "lose"}
        assert done == {"r-{}".format(number) for number in range(60)} - undone
        return [(fault.kind, fault.request_id) for fault in injected]

    assert 0 < len(kinds(1)) < 60
    assert kinds(1) == kinds(1)
    assert kinds(1) != kinds(2)


def test_faults_can_be_cleared(box):
    box.fail_next(times=100)
    box.random_faults(rate=1.0)
    box.clear_faults()
    assert call(box, "GET", "/api/v1/health").status == 200


@pytest.mark.parametrize(
    "script",
    [
        lambda box: box.fail_next(times=0),
        lambda box: box.fail_next(status=100),
        lambda box: box.delay_next(-1),
        lambda box: box.random_faults(rate=2),
        lambda box: box.random_faults(kinds=("200",)),
        lambda box: box.random_faults(kinds=()),
    ],
    ids=["times", "status", "delay", "rate", "kind", "no kind"],
)
def test_a_script_that_makes_no_sense_is_refused(box, script):
    with pytest.raises(ValueError, match="must|unknown|name"):
        script(box)
