"""The deadline is a decision: a job that concludes a key and the people who decide it never disagree."""

from __future__ import annotations

import random
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Dict, List, Mapping, Optional

import pytest
import requests

from hestiaos_lite import (
    AegisClient,
    Conclusion,
    ConnectionFailed,
    IdempotencyConflict,
    InvalidResponse,
    Outbox,
    ServerError,
)
from hestiaos_lite.sandbox import Sandbox

from ..aegis.kit import Service
from ..aegis.kit import client_of as aegis_client
from ..cli_call import call

# What the 409 of a server says of the first decision; the last one leaves all but its request id to the status.
BODIES: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "flat": lambda first: first,
    "under detail": lambda first: {"detail": first},
    "only a request id": lambda first: {"detail": "duplicate", "request_id": first["request_id"]},
}
FACTS = {"tenant_id": "acme", "thread_id": "T"}
EXIT_CODES = {"approved": 0, "pending": 75, "rejected": 1, "expired": 1, "failed": 1, "unknown": 3}


def client_of(box: Sandbox, **options: Any) -> AegisClient:
    return AegisClient(box.url, **dict(FACTS, **options))


def on(box: Sandbox) -> List[str]:
    return ["-u", box.url, "--tenant", "acme", "--thread", "T"]


def bring_about(box: Sandbox, outcome: str) -> None:
    """Let somebody decide so that the outcome of the key "k" is this one."""
    with client_of(box) as person:
        if outcome in ("approved", "unknown"):
            person.approve("k")
        elif outcome == "rejected":
            person.reject("k")
        elif outcome == "pending":
            box.hitl.delay_seconds = 60
            person.approve("k")
        elif outcome == "failed":
            box.fail_next_action()
            person.approve("k")
    if outcome == "unknown":
        box.hitl.conflict_body = lambda first: b""


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
@pytest.mark.parametrize("outcome", EXIT_CODES)
def test_the_six_outcomes(box: Sandbox, outcome: str, body: Any) -> None:
    box.hitl.conflict_body = body
    bring_about(box, outcome)
    with client_of(box) as job:
        conclusion = job.conclude("k")
    (action,) = box.actions()
    request_id = None if outcome == "unknown" else action["request_id"]
    status = {"approved": "COMMITTED", "failed": "FAILED", "unknown": None, "rejected": conclusion.status}
    assert conclusion == Conclusion("k", outcome, request_id, status.get(outcome, "PENDING"), 1)
    assert conclusion.approved is (outcome == "approved")


@pytest.mark.parametrize("outcome", EXIT_CODES)
def test_the_six_outcomes_on_the_command_line(box: Sandbox, outcome: str) -> None:
    bring_about(box, outcome)
    called = call("hitl", "conclude", "k", *on(box))
    assert called.code == EXIT_CODES[outcome]
    assert called.out.split()[0] == outcome
    assert called.err.startswith(outcome + ": ")
    again = call("hitl", "conclude", "k", "-j", "-q", *on(box))
    if outcome == "expired":  # what it decided is by now a decision like any other
        assert (again.code, again.json["outcome"]) == (1, "rejected")
        words = "rejected: it was rejected before, by somebody or by an earlier conclude\n"
        assert call("hitl", "conclude", "k", *on(box)).err == words
    else:
        assert (again.code, again.err) == (EXIT_CODES[outcome], "")
        facts = again.json["idempotency_key"], again.json["outcome"], again.json["attempts"]
        assert facts == ("k", outcome, 1)


LATE = "k was rejected before this was sent: by somebody, or because its deadline had passed and it was concluded"


def test_a_late_approver_is_told(box: Sandbox) -> None:
    with client_of(box) as job, client_of(box) as person:
        assert job.conclude("k").outcome == "expired"
        with pytest.raises(IdempotencyConflict, match=LATE):
            person.approve("k")
    called = call("hitl", "approve", "k", *on(box))
    assert called.code == 1
    assert re.search(LATE, called.err)
    assert "make a new key" not in called.err  # no job would look at it
    assert [action["action"] for action in box.actions()] == ["reject"]


def test_a_late_row_of_an_outbox_is_dead(box: Sandbox, outbox: Outbox) -> None:
    box.stop()
    with client_of(box, outbox=outbox, max_retries=0) as person:
        assert person.approve("k").queued
        box.start()
        with client_of(box) as job:
            assert job.conclude("k").outcome == "expired"
        assert person.flush().dead == 1
    (row,) = outbox.list()
    assert row.state == "dead"
    assert re.search(LATE, row.reason or "")


def test_the_trail_does_not_take_a_timeout_for_a_person(box: Sandbox) -> None:
    with client_of(box) as job:
        job.conclude("k")
        job.conclude("k2", payload={"by": "cron"})
        job.conclude("k3", payload={})
    payloads = [action["payload"] for action in box.actions()]
    assert payloads == [{"reason": "no decision by the deadline"}, {"by": "cron"}, {}]


def test_its_own_lost_answer_is_no_decision_of_another(box: Sandbox) -> None:
    box.hitl.conflict_body = BODIES["only a request id"]
    box.lose_next_answer()
    with client_of(box) as job:
        conclusion = job.conclude("k")
    assert (conclusion.outcome, conclusion.attempts) == ("expired", 2)


APPROVED = {"status": "COMMITTED", "action": "approve"}
REJECTED = {"status": "COMMITTED", "action": "reject"}
ECHOES = {  # was an answer lost before, what the status of that request says -> what was concluded
    "nobody knows it": (False, None, "unknown"),
    "it was an approval": (False, APPROVED, "approved"),
    "it was a rejection": (False, REJECTED, "rejected"),
    "nobody knows it, after a lost answer": (True, None, "expired"),
    "an approval was first, after a lost answer": (True, APPROVED, "approved"),
}


@pytest.mark.parametrize(("is_lost", "status", "outcome"), ECHOES.values(), ids=ECHOES.keys())
def test_a_409_that_echoes_our_request_id_is_ours_only_after_a_lost_answer(
    is_lost: bool, status: Any, outcome: str
) -> None:
    """Some services name the request that they answer, not the first one."""
    lost = [requests.ConnectionError("reset")] if is_lost else []

    def conflict(request: Any) -> Any:
        return lost.pop() if lost else (409, {"request_id": request.headers["X-Request-Id"]})

    service = Service(k=conflict, status=404 if status is None else (200, status))
    with aegis_client(None, service, max_retries=1) as job:
        assert job.conclude("k").outcome == outcome


def test_a_409_that_leaves_out_the_status_is_looked_up() -> None:
    service = Service(
        k=(409, {"action": "approve", "request_id": "first"}),
        status=(200, dict(APPROVED, request_id="first")),
    )
    with aegis_client(None, service) as job:
        assert job.conclude("k") == Conclusion("k", "approved", "first", "COMMITTED", 1)


WORDS: Dict[str, Any] = {
    "approved in another word": ({"action": "approved", "status": "COMMITTED"}, "unknown"),
    "in capitals": ({"action": "APPROVE", "status": "COMMITTED"}, "approved"),
    "rejected in another word": ({"action": "REJECTED", "status": "COMMITTED"}, "rejected"),
    "two words": ({"action": "approve", "detail": {"action": "reject"}, "status": "COMMITTED"}, "rejected"),
    "a list": ({"action": ["approve"], "status": "COMMITTED"}, "unknown"),
    "no status": ({"action": "approve"}, "unknown"),
    "a status of its own": ({"action": "approve", "status": "QUEUED"}, "pending"),
    "a status that says no": ({"action": "approve", "status": "REJECTED"}, "rejected"),
    "no action": ({"status": "COMMITTED"}, "unknown"),
}


@pytest.mark.parametrize(("body", "outcome"), WORDS.values(), ids=WORDS.keys())
def test_only_certain_words_are_an_approval(box: Sandbox, body: Any, outcome: str) -> None:
    box.fail_next(409, body=body)
    with client_of(box) as job:
        assert job.conclude("k").outcome == outcome


def test_what_is_no_conclusion(box: Sandbox) -> None:
    with client_of(box, max_retries=0) as job:
        box.fail_next(202, body={"action": "approve"})
        with pytest.raises(IdempotencyConflict):
            job.conclude("k")
        box.fail_next(200, body={"status": "ok"})
        with pytest.raises(InvalidResponse):
            job.conclude("k")
        box.fail_next(500)
        with pytest.raises(ServerError) as caught:
            job.conclude("k")
        assert caught.value.exit_code == 3
        box.stop()
        with pytest.raises(ConnectionFailed) as never_sent:
            job.conclude("k")
        assert never_sent.value.exit_code == 69


# With an outbox


def test_what_waits_in_the_outbox_goes_first(box: Sandbox, outbox: Outbox) -> None:
    box.stop()
    with client_of(box, outbox=outbox, max_retries=0) as client:
        for key, thread_id in (("older", "T"), ("k", "T"), ("other", "U")):
            assert client.approve(key, thread_id=thread_id).queued
        box.start()
        assert client.conclude("k").outcome == "approved"
        assert client.conclude("nobody").outcome == "expired"
    assert [action["idempotency_key"] for action in box.actions()] == ["older", "k", "nobody"]
    # the conclusion is no row
    assert [row.state for row in outbox.list()] == ["settled", "settled", "queued"]


def test_while_a_decision_of_the_key_cannot_be_sent_nothing_is_concluded(
    box: Sandbox, outbox: Outbox
) -> None:
    box.stop()
    with client_of(box, outbox=outbox, max_retries=0) as client:
        client.approve("k")
        box.start()
        box.fail_next(503, path="*/hitl/approve")
        conclusion = client.conclude("k")
        assert (conclusion.outcome, conclusion.status) == ("pending", None)
        assert box.actions() == []
        box.fail_next(503, path="*/hitl/approve")
        called = call("hitl", "conclude", "k", *on(box), "--retries", "0", "--outbox", outbox.path)
        assert called.code == 75
        assert "waits in the outbox and cannot be sent" in called.err
        assert client.conclude("k").outcome == "approved"
        box.hitl.delay_seconds = 60
        client.approve("k2")
        called = call("hitl", "conclude", "k2", *on(box), "--retries", "0", "--outbox", outbox.path)
        assert (called.code, "not committed yet" in called.err) == (75, True)  # pending at the service


# Races


def race(box: Sandbox, rounds: int, seed: int) -> Dict[str, int]:
    """Let a person approve and a job conclude at once, ten keys at a time, on a service that loses answers."""
    print("seed", seed)
    box.random_faults(rate=0.2, seed=seed, kinds=("lose",))
    seen: Dict[str, int] = {}
    told: Dict[str, Any] = {}
    with client_of(box, timeout=30) as person, client_of(box, timeout=30) as job:

        def approve(key: str) -> None:
            try:
                told["person of " + key] = certainly(lambda: person.approve(key).confirmed or None)
            except IdempotencyConflict:
                told["person of " + key] = False

        def conclude(key: str) -> None:
            told["job of " + key] = certainly(lambda: _known(job.conclude(key).outcome))

        keys = ["k{}".format(number) for number in range(rounds)]
        with ThreadPoolExecutor(20) as pool:
            calls = [pool.submit(act, key) for key in keys for act in random.sample([approve, conclude], 2)]
        for called in calls:
            called.result()
    for key in keys:
        outcome = told["job of " + key]
        assert told["person of " + key] is (outcome in ("approved", "pending")), (key, told)
        seen[outcome] = seen.get(outcome, 0) + 1
    decided = {action["idempotency_key"]: action["action"] for action in box.actions()}
    assert len(decided) == len(box.actions()) == rounds
    return seen


def certainly(ask: Callable[[], Any]) -> Any:
    """Ask again where every answer about the first decision was lost: running it again is safe, and tells.

    A fifth of the answers is lost, so one call in some six hundred loses all of its four attempts.
    """
    for _ in range(5):
        try:
            known = ask()
        except ConnectionFailed as error:
            assert error.effect == "unknown", error
        else:
            if known is not None:
                return known
    raise AssertionError("five calls in a row told nothing")


def _known(outcome: str) -> Optional[str]:
    return None if outcome == "unknown" else outcome


@pytest.mark.parametrize("rounds", [10, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("body", ["flat", "only a request id"])
def test_a_person_and_a_job_never_disagree(box: Sandbox, body: str, rounds: int) -> None:
    box.hitl.conflict_body = BODIES[body]
    seen = race(box, rounds, random.randrange(2**32))
    print(seen)
    assert set(seen) <= {"approved", "pending", "expired", "rejected"}
