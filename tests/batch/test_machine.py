"""A search for the state in which a batch breaks a promise: answers of every class, kills, lost power, edits, retries.

The command, its files and the sockets are real. A kill comes at any write, sync, truncation or replacement that hypothesis
chooses; a loss of power leaves of each file what was synced, and pages of what was not.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
import threading
from collections import Counter
from typing import Any, Callable, Dict, List, Optional, Set, Tuple
from unittest import mock

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from hestiaos_lite.batch.rate import SharedPause
from hestiaos_lite.batch.results import outcome_of

from ..cli.test_batch import Batch
from ..cli_call import Called
from ..faultserver import FaultServer, Wire, ok, reply
from ..guarantees.test_batch_resume import after_a_loss_of_power, read

PER_ROUND = 4  # rows that are added at a time
ANSWERS = {
    "ok": (True, ok({"result": "ALLOW", "trace_id": "t"})),
    "no json": (True, reply(200, b"<html>")),
    "block": (False, reply(403, b'{"trace_id": "t"}')),
    "refuse": (False, reply(422, b"{}")),
    "busy": (False, reply(503, b"{}")),
    "limit": (False, reply(429, b"{}")),
    "fail": (True, reply(500, b"{}")),
    "gateway": (True, reply(502, b"{}")),
    "lost": (True, b""),
}  # class -> whether it took effect, the answer


class Killed(BaseException):
    """The process is gone; nothing after it happens."""


class Disk:
    """The operations by which a batch changes files: one of them may be the last, and it knows what is synced."""

    NAMES = ("write", "fdatasync", "fsync", "ftruncate", "replace", "unlink")

    def __init__(self) -> None:
        self.synced: Dict[int, int] = {}  # inode -> bytes that survive a loss of power
        self._left: Optional[int] = None

    def run(self, operations: Optional[int], function: Callable[[], Called]) -> Optional[Called]:
        """Call a function that is killed at its n-th operation; None where it was."""
        self._left = operations
        patches = [mock.patch.object(os, name, self._mortal(name)) for name in self.NAMES]
        for patch in patches:
            patch.start()
        try:
            return function()
        except Killed:
            return None
        finally:
            for patch in patches:
                patch.stop()
            for thread in threading.enumerate():
                if thread.name.startswith("hestiaos-lite-batch"):
                    thread.join(
                        30
                    )  # a real kill ends it before its request; either way nothing is sent from now on

    def _mortal(self, name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def operation(*args: Any, **options: Any) -> Any:
            if self._left is not None:
                self._left -= 1
                if self._left == 0 and name == "write":
                    real(args[0], args[1][: len(args[1]) // 2])
                if self._left <= 0:
                    raise Killed
            result = real(*args, **options)
            if name in ("fdatasync", "fsync"):
                found = os.fstat(args[0])
                self.synced[found.st_ino] = found.st_size
            return result

        return operation


class BatchMachine(RuleBasedStateMachine):
    """One input and its results, over many runs."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp()
        self.plan: Dict[int, List[str]] = {}  # row -> its next answers; then ok
        self.effects: Counter[int] = Counter()
        self.allowed: Counter[int] = (
            Counter()
        )  # how often a row may take effect: once, and once for each --retry-unknown
        self.kept: Dict[str, bytes] = {}  # id -> its result line, which must stay
        self.versions: List[int] = []  # of each row's text
        self.disk = Disk()
        self.server = FaultServer(self.serve)
        self.batch = Batch(self.folder, self.server.url)
        self.add_rows()

    def teardown(self) -> None:
        self.server.close()
        shutil.rmtree(self.folder)

    def serve(self, wire: Wire) -> None:
        while True:
            number = int(json.loads(wire.request().body.decode("utf-8"))["input"].split()[1])
            plan = self.plan.get(number)
            takes_effect, answer = ANSWERS[plan.pop(0) if plan else "ok"]
            self.effects[number] += takes_effect
            if not answer:
                return
            wire.send(answer)

    def give(self) -> None:
        self.batch.give(
            [
                {"id": "r{}".format(n), "input": "row {} {}".format(n, version)}
                for n, version in enumerate(self.versions)
            ]
        )

    # -- what happens

    def add_rows(self) -> None:
        for number in range(len(self.versions), len(self.versions) + PER_ROUND):
            self.allowed[number] = 1
            self.versions.append(0)
        self.give()

    @rule(data=st.data())
    def plan_answers(self, data: Any) -> None:
        number = data.draw(st.integers(0, len(self.versions) - 1))
        self.plan[number] = data.draw(st.lists(st.sampled_from(sorted(ANSWERS)), min_size=1, max_size=4))

    @rule(
        retry=st.sampled_from(["--resume", "--resume", "--retry-failed", "--retry-unknown"]),
        jobs=st.integers(1, 3),
        killed_at=st.one_of(st.none(), st.integers(1, 16)),
        power_loss=st.one_of(st.none(), st.integers(0, 999)),
    )
    def go(self, retry: str, jobs: int, killed_at: Optional[int], power_loss: Optional[int]) -> None:
        if len(self.kept) == len(self.versions):
            self.add_rows()  # a run with nothing to send finds nothing
        if retry == "--retry-unknown":
            for number in range(len(self.versions)):
                self.allowed[number] += self.outcome(number) in (None, "unknown") and self.effects[number] > 0
        called = self.run(killed_at, retry, "--jobs", str(jobs), "--retries", "1")
        if called is None and power_loss is not None:
            self.lose_power(random.Random(power_loss))
        self.check(retry, called)

    @rule(data=st.data(), retry=st.sampled_from(["--resume", "--retry-failed", "--retry-unknown"]))
    def edit_a_row(self, data: Any, retry: str) -> None:
        """A changed row is sent in its new form, or the run is refused and changes nothing."""
        number = data.draw(st.integers(0, len(self.versions) - 1))
        before = self.files()
        allowed = Counter(self.allowed)
        if retry == "--retry-unknown":
            for other in range(len(self.versions)):
                self.allowed[other] += self.outcome(other) in (None, "unknown") and self.effects[other] > 0
        self.versions[number] += 1
        self.give()
        called = self.run(None, retry, "--retries", "1")
        assert called is not None
        if called.code == 65:
            assert self.files() == before
            self.allowed = allowed
            self.versions[number] -= 1
            self.give()
        else:
            self.check(retry, called)

    # -- what it leaves

    def run(self, killed_at: Optional[int], *arguments: str) -> Optional[Called]:
        return self.disk.run(killed_at, lambda: self.batch.go(*arguments))

    def files(self) -> Dict[str, bytes]:
        paths = (self.batch.out, self.batch.bad, self.batch.journal)
        return {path: read(path) for path in paths if os.path.exists(path) and os.path.getsize(path)}

    def lose_power(self, rng: random.Random) -> None:
        for path in (self.batch.out, self.batch.bad, self.batch.journal):
            if os.path.exists(path):
                data, synced = read(path), self.disk.synced.get(os.stat(path).st_ino, 0)
                left = after_a_loss_of_power(data, min(synced, len(data)), rng)
                with open(path, "rb+") as file:
                    file.write(left)
                    file.truncate(len(left))

    def lines(self) -> List[Tuple[str, bytes]]:
        """The whole result lines with their ids."""
        found = []
        for path in (self.batch.out, self.batch.bad):
            for line in self.files().get(path, b"").splitlines():
                try:
                    found.append((json.loads(line.decode("utf-8"))["id"], line))
                except ValueError:
                    pass  # damaged, which a resumed run cuts out
        return found

    def outcome(self, number: int) -> Optional[str]:
        line = dict(self.lines()).get("r{}".format(number))
        return None if line is None else outcome_of_line(line)

    def check(self, retry: str, called: Optional[Called]) -> None:
        lines = self.lines()
        ids = [row_id for row_id, _ in lines]
        assert len(set(ids)) == len(ids), "an id has two results"
        results = dict(lines)
        may_go: Set[Optional[str]] = {
            "--retry-failed": {"again", "refused"},
            "--retry-unknown": {"unknown"},
        }.get(retry, set())
        if called is not None:
            assert called.code in (0, 1, 3, 75), called
            for row_id, line in self.kept.items():
                if outcome_of_line(line) not in may_go:
                    assert results.get(row_id) == line, "a result was deleted"
            unsent = int(called.err.partition("unsent ")[2].split()[0])
            assert len(self.versions) - len(results) == unsent, "a row has no result"
        self.kept = results
        for number in range(len(self.versions)):
            assert self.effects[number] <= self.allowed[number], "row {} took effect twice".format(number)
            outcome = self.outcome(number)
            if outcome == "ok":
                assert self.effects[number]
            if outcome in ("blocked", "refused", "again") and self.allowed[number] == 1:
                assert not self.effects[number], "row {} took effect and is {}".format(number, outcome)


def outcome_of_line(line: bytes) -> str:
    return outcome_of(json.loads(line.decode("utf-8")).get("error"))


@pytest.mark.parametrize(
    ("examples", "steps"),
    [(25, 8), pytest.param(500, 25, marks=pytest.mark.slow)],
    ids=["short", "long"],
)
def test_every_id_once_nothing_with_effect_twice_and_no_result_deleted(
    examples: int, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = int(os.environ.get("MACHINE_SEED") or random.randrange(2**32))
    print("MACHINE_SEED={}".format(number))
    monkeypatch.setattr(SharedPause, "base_seconds", 0.001)
    bounds = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        phases=[Phase.generate],  # making what it found smaller would take minutes
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(seed(number)(type("Seeded", (BatchMachine,), {})), settings=bounds)
