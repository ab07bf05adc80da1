"""A search for the state in which the outbox breaks a promise: random recordings, flushes, faults, kills and clocks.

The service is a mapping of keys to the action that was first; everything else is real: the file, its transactions, the
reading of answers. A kill comes before any transaction that hypothesis chooses, and leaves the file as it is then.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import tempfile
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from hestiaos_lite import errors
from hestiaos_lite._sqlite import SqliteFile
from hestiaos_lite.aegis.flush import Delivery, flush, send_in_turn
from hestiaos_lite.aegis.outbox import Outbox
from hestiaos_lite.aegis.rows import CLOCK_SLACK_MS, Decision, Entry
from hestiaos_lite.aegis.truth import Verdict, judged
from hestiaos_lite.deadline import Deadline
from hestiaos_lite.models import ActionStatus
from hestiaos_lite.wire.answers import Answer

from .outbox_kit import NOON, Clock

SERVICES = ("http://a/api/v1", "http://b/api/v1")
LANES = (
    (SERVICES[0], None, "T"),
    (SERVICES[0], None, "U"),
    (SERVICES[0], "acme", "T"),
    (SERVICES[1], None, "T"),
)
MODES = ((SERVICES[0], True), (SERVICES[0], False), (SERVICES[1], True))
LEASE_SECONDS = 60.0
FAULTS = ("", "", "lost", "refused", "401", "422", "429", "503", "bare 409", "broken")


class Killed(BaseException):
    """The process is gone; nothing after it happens."""


class MortalFile(SqliteFile):
    """An outbox file in a process that is killed before its n-th transaction."""

    transactions_left: Optional[int] = None

    @contextlib.contextmanager
    def transaction(self, **options: Any) -> Iterator[Any]:
        if self.transactions_left is not None:
            if self.transactions_left <= 0:
                raise Killed
            self.transactions_left -= 1
        with super().transaction(**options) as connection:
            yield connection


class Sent(NamedTuple):
    by: Tuple[str, bool]
    decision: Decision


class OutboxMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        # no power fails here, and a disk would be most of the time
        self.folder = tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
        self.clock = Clock()
        self.true_now = NOON
        self.decided: Dict[Any, Tuple[str, str]] = {}  # lane and key -> the first action and its request id
        self.recorded: Set[int] = set()
        self.said: Dict[int, List[str]] = {}  # of a row: what the service has said to it
        self.fault = ""
        self.resting: Dict[
            int, Tuple[float, float]
        ] = {}  # of a row: since when nobody may send it, and for how long
        self.paused: Optional[Tuple[Delivery, Entry]] = None
        self.boxes = [self.open(), self.open()]

    def open(self) -> Outbox:
        box = Outbox(os.path.join(self.folder, "outbox.db"), lease_seconds=LEASE_SECONDS, clock=self.clock)
        box._file.__class__ = MortalFile
        return box

    def teardown(self) -> None:
        """In the end, with a right clock, a well service and the causes put right, everything goes out."""
        self.clock.now = self.true_now = self.true_now + 2 * LEASE_SECONDS + 200
        self.fault = ""
        self.boxes[0].requeue_all()
        for service, hosted in MODES:
            self.flush_one(self.boxes[0], service, hosted)
        self.promises()
        for row in self.boxes[0].list():
            assert row.state == "settled" or (row.state == "dead" and self.said[row.id][-1] == "conflict"), (
                row
            )
        for box in self.boxes:
            box.close()
        shutil.rmtree(self.folder)

    # The service

    def sender(self, by: Tuple[str, bool], box: Outbox) -> Any:
        def send(decision: Decision, deadline: Deadline) -> Verdict:
            assert (decision.service, decision.tenant_id is None) == by, "sent to another service"
            assert isinstance(decision, Entry)
            for row in box.list():
                if row.lane == decision.lane and row.id < decision.id:
                    assert not row.is_open, "row {} sent before row {}".format(decision.id, row.id)
            if decision.id in self.resting:
                since, seconds = self.resting.pop(decision.id)
                was_ahead = self.clock.now < since - CLOCK_SLACK_MS / 1000
                assert was_ahead or self.clock.now >= since + seconds, "sent before it was due"
            return self.answer(decision)

        return send

    def answer(self, decision: Entry) -> Verdict:
        fault, said = self.fault, self.said.setdefault(decision.id, [])
        said.append(fault or "nothing")
        if fault == "refused":
            raise errors.ConnectionFailed(delivered=False, attempts=1)
        if fault == "401":
            raise errors.AuthenticationError(status=401, delivered=True)
        if fault == "422":
            raise errors.InvalidInput(status=422, delivered=True)
        if fault == "429":
            self.resting[decision.id] = (self.clock.now, 100.0)
            raise errors.RateLimited(status=429, delivered=True, retry_after=100.0)
        if fault == "503":
            raise errors.ServerError(status=503, delivered=True)
        place = (decision.lane, decision.idempotency_key)
        is_first = place not in self.decided
        action, request_id = self.decided.setdefault(place, (decision.action, decision.request_id))
        if fault == "lost":
            raise errors.ConnectionFailed(delivered=None, attempts=1)
        if fault == "broken":
            raise errors.InvalidResponse(status=202, delivered=True)
        body = {"request_id": request_id} if fault != "bare 409" else None
        answer = Answer(202 if is_first else 409, body, 1)
        try:
            verdict = judged(
                decision, answer, lambda asked: ActionStatus(asked, "COMMITTED", action, {"action": action})
            )
        except errors.IdempotencyConflict:
            said[-1] = "conflict"
            raise
        said[-1] = "taken"
        return verdict

    # What happens

    @rule(
        which=st.sampled_from([0, 1]),
        lane=st.sampled_from(LANES),
        key=st.sampled_from("abc"),
        action=st.sampled_from(["approve", "reject"]),
        sends=st.booleans(),
        lives=st.one_of(st.none(), st.integers(0, 6)),
    )
    def decide(self, which, lane, key, action, sends, lives):
        service, tenant, thread = lane
        box = self.boxes[which]
        decision = Decision(service, action, key, tenant, thread, "r{}".format(len(self.said)), {"by": "me"})
        with self.mortal(which, lives):
            try:
                turn = box.queue.submit(decision)
            except errors.IdempotencyConflict:
                return
            self.recorded.add(turn.own.id)
            self.said.setdefault(turn.own.id, [])
            if not sends:
                raise Killed
            with contextlib.suppress(errors.AuthenticationError):
                # no time for what somebody else holds
                deadline = Deadline(10) if turn.claimed is not None else Deadline(0)
                send_in_turn(box, turn, self.sender((service, tenant is None), box), deadline)

    @rule(
        which=st.sampled_from([0, 1]),
        mode=st.sampled_from(MODES),
        lives=st.one_of(st.none(), st.integers(0, 12)),
    )
    def flush(self, which, mode, lives):
        service, hosted = mode
        with self.mortal(which, lives), contextlib.suppress(errors.AuthenticationError):
            self.flush_one(self.boxes[which], service, hosted)

    def flush_one(self, box: Outbox, service: str, hosted: bool) -> None:
        flush(box, self.sender((service, hosted), box), service=service, hosted=hosted, timeout_seconds=10)

    @contextlib.contextmanager
    def mortal(self, which: int, lives: Optional[int]) -> Iterator[None]:
        """Let the process that has an outbox open be killed after so many transactions, and start another."""
        file = self.boxes[which]._file
        assert isinstance(file, MortalFile)
        file.transactions_left = lives
        try:
            yield
        except Killed:
            self.boxes[which].close()
            self.boxes[which] = self.open()
            stopped = self.paused[1].id if self.paused is not None else None
            for row in self.boxes[which].list():
                # killed with an answer in hand that nobody has written down: its lease is all that it waits for
                if row.state == "claimed" and row.id != stopped:
                    self.resting.pop(row.id, None)
        finally:
            file.transactions_left = None

    @precondition(lambda self: self.paused is None)
    @rule(lane=st.sampled_from(LANES))
    def begin_to_send(self, lane):
        """A sender claims a row and is stopped, with SIGSTOP say."""
        service, tenant, thread = lane
        entry = self.boxes[0].queue.claim((service, tenant or "", thread))
        if entry is not None:
            self.resting[entry.id] = (self.clock.now, LEASE_SECONDS)
            self.paused = (Delivery(self.boxes[0], entry, Deadline(10)), entry)

    @precondition(lambda self: self.paused is not None)
    @rule()
    def go_on_to_send(self):
        """It goes on, however late."""
        assert self.paused is not None
        delivery, entry = self.paused
        self.paused = None
        self.resting.pop(entry.id, None)
        delivery._outbox = self.boxes[0]
        with contextlib.suppress(errors.AuthenticationError), delivery:
            delivery.verdict = self.answer(entry)

    @rule(
        lane=st.sampled_from(LANES),
        key=st.sampled_from("abc"),
        action=st.sampled_from(["approve", "reject"]),
    )
    def somebody_else_decides(self, lane, key, action):
        """On another machine, where there is another outbox or none."""
        service, tenant, thread = lane
        self.decided.setdefault(((service, tenant or "", thread), key), (action, "another"))

    @rule(fault=st.sampled_from(FAULTS))
    def service_is(self, fault):
        self.fault = fault

    @rule(seconds=st.sampled_from([1.0, LEASE_SECONDS + 1, 3600.0]))
    def time_passes(self, seconds):
        self.true_now += seconds
        self.clock.now += seconds

    @rule(seconds=st.sampled_from([-86400.0, -3600.0, -30.0, 30.0, 3600.0, 86400.0]))
    def clock_jumps(self, seconds):
        self.clock.now = self.true_now + seconds

    @rule()
    def clock_is_right(self):
        self.clock.now = self.true_now

    @rule()
    def requeue(self):
        self.resting.clear()
        self.boxes[1].requeue_all()

    @rule(which=st.sampled_from([0, 1]))
    def close_and_open(self, which):
        self.boxes[which].close()
        self.boxes[which] = self.open()

    # What is promised

    @invariant()
    def promises(self):
        rows = {row.id: row for row in self.boxes[0].list()}
        assert self.recorded <= set(rows), "a decision is lost"
        for row in rows.values():
            said = self.said.get(row.id, [])
            if row.state == "settled":
                assert "taken" in said, "settled without the service's word: {}".format(row)
                first = self.decided[row.lane, row.idempotency_key][0]
                assert first == row.action or not row.confirmed, "the other action was first: {}".format(row)
            if row.state == "dead":
                assert set(said) & {"422", "conflict"}, "dead for no fault of its own: {}".format(row)


@pytest.mark.parametrize(
    ("examples", "steps"), [(60, 30), pytest.param(3000, 60, marks=pytest.mark.slow)], ids=["short", "long"]
)
def test_no_promise_is_broken(examples, steps):
    number = int(os.environ.get("MACHINE_SEED") or random.randrange(2**32))
    print("MACHINE_SEED={}".format(number))
    machine = seed(number)(type("Seeded", (OutboxMachine,), {}))
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
