"""A search for the state in which an outbox breaks a promise: random decisions, flushes, faults, kills and clocks.

Everything is reached as a program reaches it; the service is an adapter in this process. A process is killed where it looks
at the clock, which it does before it writes anything: the transaction it is in is undone, and it does nothing more.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import tempfile
import threading
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

import pytest
import requests
import urllib3
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from requests.adapters import HTTPAdapter

from hestiaos_lite import AegisClient, HestiaError, Outbox, errors

from .kit import LEASE_SECONDS, NOON, answered, text

SLACK_SECONDS = 60.0  # a clock that was set back by less counts as right


class Account(NamedTuple):
    """One service and one mode of it; what is recorded for one account is sent by no other."""

    url: str
    tenant_id: Optional[str]


ACCOUNTS = (Account("https://a", None), Account("https://a", "acme"), Account("https://b", None))
PARTITIONS = tuple(
    (account, thread) for account in ACCOUNTS for thread in "TU"[: 2 - bool(account.tenant_id)]
)
FAULTS = ("", "", "lost", "refused", "401", "422", "429", "503", "bare 409", "broken")

an_outbox, a_partition, an_account = (
    st.sampled_from([0, 1]),
    st.sampled_from(PARTITIONS),
    st.sampled_from(ACCOUNTS),
)
a_key, an_action = st.sampled_from("abc"), st.sampled_from(["approve", "reject"])


class Killed(BaseException):
    """The process is gone; nothing after it happens."""


class Clock:
    """The wall clock; the process that looks at it may be killed at its n-th look."""

    def __init__(self) -> None:
        self.now = NOON
        self.looks_left: Optional[int] = None

    def __call__(self) -> float:
        if self.looks_left is not None:
            self.looks_left -= 1
            if self.looks_left < 0:
                raise Killed
        return self.now


class Stopped(NamedTuple):
    """A sender that was stopped, with SIGSTOP say, while it was sending a row."""

    row_id: int
    goes_on: threading.Event
    thread: threading.Thread


class Way(HTTPAdapter):
    """The way from one client to its service."""

    def __init__(self, machine: OutboxMachine, account: Account) -> None:
        super().__init__()
        self.machine, self.account = machine, account

    def send(self, request: Any, **options: Any) -> requests.Response:
        if request.method == "GET":
            first = self.machine.requested[request.url.rpartition("/")[2]]
            status = {"request_id": request.url.rpartition("/")[2], "status": "COMMITTED", "action": first}
            return answered(request, 200, status)
        return self.machine.arrived(self.account, request)


class OutboxMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        # no power fails here, and a disk would be most of the time
        self.folder = tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
        self.clock = Clock()
        self.true_now = NOON
        # account, thread and key -> the first action, its request id
        self.decided: Dict[Any, Tuple[str, str]] = {}
        self.requested: Dict[str, str] = {"another": "approve"}  # request id -> its action
        self.recorded: Set[Any] = set()
        self.said: Dict[int, List[str]] = {}  # of a row: what the service has said to it
        # of a row: since when, and how long, nobody may send it
        self.resting: Dict[int, Tuple[float, float]] = {}
        self.fault = ""
        self.stops_next = False
        self.stopped: Optional[Stopped] = None
        self.boxes: List[Outbox] = []
        self.clients: List[Dict[Account, AegisClient]] = []
        for which in (0, 1):
            self.boxes.append(self.open())
            self.clients.append(self.connect(which))

    def open(self) -> Outbox:
        return Outbox(os.path.join(self.folder, "outbox.db"), lease_seconds=LEASE_SECONDS, clock=self.clock)

    def connect(self, which: int) -> Dict[Account, AegisClient]:
        clients = {}
        for account in ACCOUNTS:
            session = requests.Session()
            session.trust_env = False
            session.mount("https://", Way(self, account))
            facts: Any = {"tenant_id": account.tenant_id} if account.tenant_id else {"api_key": "k"}
            clients[account] = AegisClient(
                account.url, outbox=self.boxes[which], session=session, max_retries=0, **facts
            )
        return clients

    def reopen(self, which: int) -> None:
        self.boxes[which].close()
        self.boxes[which] = self.open()
        self.clients[which] = self.connect(which)

    def teardown(self) -> None:
        """In the end, with a right clock, a well service and the causes put right, everything goes out."""
        self.fault = ""
        self.stops_next = False
        if self.stopped is not None:
            self.go_on_to_send()
        self.clock.now = self.true_now = self.true_now + 2 * LEASE_SECONDS + 200
        self.resting.clear()
        self.boxes[0].requeue_all()
        for account in ACCOUNTS:
            self.clients[0][account].flush()
        self.promises()
        for row in self.boxes[0].list():
            is_a_conflict = row.state == "dead" and self.said[row.id][-1] == "conflict"
            assert row.state == "settled" or is_a_conflict, row
        for box in self.boxes:
            box.close()
        shutil.rmtree(self.folder)

    # The service

    def arrived(self, account: Account, request: Any) -> requests.Response:
        """Take a decision that has left a client, or do what the fault of the day says."""
        headers = {name: text(value) for name, value in request.headers.items()}
        tenant, thread, key = headers.get("Tenant-Id"), headers["Thread-Id"], headers["Idempotency-Key"]
        assert tenant == account.tenant_id, "sent to another account"
        rows = self.boxes[0].list()
        mine = [row for row in rows if (account, row.thread_id) == (account_of(row), thread)]
        (row,) = (row for row in mine if row.idempotency_key == key)
        for older in mine:
            is_over = older.state in ("settled", "dead")
            assert older.id >= row.id or is_over, "row {} sent before row {}".format(row.id, older.id)
        assert headers["X-Request-Id"] == row.request_id
        if self.stops_next:
            self.stop_here(row.id)
        elif row.id in self.resting:
            since, seconds = self.resting.pop(row.id)
            was_ahead = self.clock.now < since - SLACK_SECONDS
            assert was_ahead or self.clock.now >= since + seconds, "sent before it was due"
        return self.answer(request, (account, thread, key), row)

    def answer(self, request: Any, place: Any, row: Any) -> requests.Response:
        fault, said = self.fault, self.said.setdefault(row.id, [])
        said.append(fault or "nothing")
        if fault == "refused":
            raise requests.ConnectionError(urllib3.exceptions.NewConnectionError(None, "refused"))  # type: ignore[arg-type]
        if fault == "429":
            self.resting[row.id] = (self.clock.now, 100.0)
            return answered(request, 429, None, {"Retry-After": "100"})
        if fault.isdigit():
            return answered(request, int(fault))
        is_first = place not in self.decided
        action, request_id = self.decided.setdefault(place, (row.action, row.request_id))
        self.requested.setdefault(request_id, action)
        if fault == "lost":
            raise requests.ConnectionError("reset")
        if fault == "broken":
            return answered(request, 202, [])
        said[-1] = "taken" if fault == "bare 409" or action == row.action else "conflict"
        body = {"request_id": request_id} if fault != "bare 409" else None
        return answered(request, 202 if is_first else 409, body)

    def stop_here(self, row_id: int) -> None:
        self.stops_next = False
        self.resting[row_id] = (self.clock.now, LEASE_SECONDS)
        goes_on = threading.Event()
        self.stopped = Stopped(row_id, goes_on, threading.current_thread())
        self.stopping.set()
        goes_on.wait()

    # What happens

    @rule(
        which=an_outbox,
        partition=a_partition,
        key=a_key,
        action=an_action,
        looks=st.none() | st.integers(0, 8),
    )
    def decide(self, which, partition, key, action, looks):
        account, thread = partition
        if partition in [(account_of(row), row.thread_id) for row in self.boxes[0].list(["claimed"])]:
            return  # it would wait for whoever is sending, until its deadline
        with self.mortal(which, looks):
            try:
                self.clients[which][account].execute(action, key, thread_id=thread)
            finally:
                rows = self.boxes[1 - which].list()
                self.recorded |= {
                    row.id for row in rows if (account_of(row), row.idempotency_key) == (account, key)
                }

    @rule(which=an_outbox, account=an_account, looks=st.none() | st.integers(0, 20))
    def flush(self, which, account, looks):
        with self.mortal(which, looks):
            self.clients[which][account].flush()

    @contextlib.contextmanager
    def mortal(self, which: int, looks: Optional[int]) -> Iterator[None]:
        """Let the process that has an outbox open be killed at its n-th look at the clock, and start another."""
        self.clock.looks_left = looks
        try:
            yield
        except Killed:
            self.clock.looks_left = None
            if self.stopped is None or which == 1:
                self.reopen(which)
            for row in self.boxes[which].list():
                # killed with an answer in hand that nobody has written down: its lease is all that it waits for
                if row.state == "claimed" and (self.stopped is None or self.stopped.row_id != row.id):
                    self.resting.pop(row.id, None)
        except (errors.AuthenticationError, errors.IdempotencyConflict, errors.InvalidInput, errors.Conflict):
            pass
        finally:
            self.clock.looks_left = None

    @precondition(lambda self: self.stopped is None)
    @rule(account=an_account)
    def begin_to_send(self, account):
        """A sender is stopped, with SIGSTOP say, once it has claimed a row."""

        def flush() -> None:
            with contextlib.suppress(HestiaError):
                self.clients[0][account].flush()

        self.stops_next = True
        self.stopping = threading.Event()
        thread = threading.Thread(target=lambda: (flush(), self.stopping.set()))
        thread.start()
        self.stopping.wait()
        self.stops_next = False
        if self.stopped is None:
            thread.join()

    @precondition(lambda self: self.stopped is not None)
    @rule()
    def go_on_to_send(self):
        """It goes on, however late."""
        assert self.stopped is not None
        stopped, self.stopped = self.stopped, None
        self.resting.pop(stopped.row_id, None)
        stopped.goes_on.set()
        stopped.thread.join()

    @rule(partition=a_partition, key=a_key, action=an_action)
    def somebody_else_decides(self, partition, key, action):
        """On another machine, where there is another outbox or none."""
        request_id = "r{}".format(len(self.requested))
        self.requested[request_id] = action
        self.decided.setdefault((*partition, key), (action, request_id))

    @rule(fault=st.sampled_from(FAULTS))
    def service_is(self, fault):
        self.fault = fault

    @rule(seconds=st.sampled_from([1.0, LEASE_SECONDS + 1, 3600.0]))
    def time_passes(self, seconds):
        self.true_now += seconds
        self.clock.now += seconds

    @rule(seconds=st.sampled_from([-86400.0, -3600.0, -30.0, 0.0, 30.0, 3600.0, 86400.0]))
    def clock_jumps(self, seconds):
        self.clock.now = self.true_now + seconds

    @rule()
    def requeue(self):
        for row in self.boxes[1].list(["dead"]):
            self.resting.pop(row.id, None)
        self.boxes[1].requeue_all()

    @rule()
    def close_and_open(self):
        self.reopen(1)

    # What is promised

    @invariant()
    def promises(self):
        rows = {row.id: row for row in self.boxes[0].list()}
        assert self.recorded <= set(rows), "a decision is lost"
        for row in rows.values():
            said = self.said.get(row.id, [])
            if row.state == "settled":
                assert "taken" in said, "settled without the service's word: {}".format(row)
                first = self.decided[account_of(row), row.thread_id, row.idempotency_key][0]
                assert first == row.action or not row.confirmed, "the other action was first: {}".format(row)
            if row.state == "dead":
                assert set(said) & {"422", "conflict"}, "dead for no fault of its own: {}".format(row)


def account_of(row: Any) -> Account:
    return Account(row.service.rpartition("/api")[0], row.tenant_id)


@pytest.mark.parametrize(("examples", "steps"), [
    (40, 25), pytest.param(600, 50, marks=pytest.mark.slow),
], ids=["short", "long"])  # fmt: skip
def test_no_promise_is_broken(examples, steps):
    number = int(os.environ.get("MACHINE_SEED") or random.randrange(2**32))
    print("MACHINE_SEED={}".format(number))
    bounds = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(seed(number)(type("Seeded", (OutboxMachine,), {})), settings=bounds)
