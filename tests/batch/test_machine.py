"""A search for the state in which a batch breaks a promise: answers of every class, kills, lost power, edits, retries.

The command, its files and the sockets are real, and so is a kill: of a forked process, as a request of hypothesis' choice has
come. OUT and BAD may be damaged or gone at any time, and the service away for longer than the retries.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import sqlite3
import tempfile
import threading
from collections import Counter
from typing import Any, Dict, List, Optional, Set, Tuple

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from hestiaos_lite.batch.rate import Backoff
from hestiaos_lite.batch.rows import outcome_of

from ..batch.kit import Batch, Child, after_a_loss_of_power, read, wait_until
from ..cli_call import Called, call
from ..faultserver import FaultServer, Wire, ok, reply

PER_ROUND = 4  # rows that are added at a time
ANY_ROW = 839  # a multiple of every likely number of rows, less one: each is as likely
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


OUTAGE = reply(503, b"{}")  # answered to everything while it lasts


class BatchMachine(RuleBasedStateMachine):
    """One input and its results, over many runs.

    What is drawn depends on nothing that came before: where a kill meets a run differs from one run to the next, and to
    hypothesis a draw whose bounds differ is an error.
    """

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
        self.outage = 0  # so many requests find the service away
        self.child: Optional[Child] = None
        self.kill_in = 0  # the child is killed as so many more requests have come; 0: it is not
        self.active = 0
        self.lock = threading.Lock()
        self.server = FaultServer(self.serve)
        self.batch = Batch(self.folder, self.server.url)
        self.add_rows()

    def teardown(self) -> None:
        self.server.close()
        shutil.rmtree(self.folder)

    def serve(self, wire: Wire) -> None:
        with self.lock:
            self.active += 1
        try:
            while True:
                text = json.loads(wire.request().body.decode("utf-8"))["input"]
                with self.lock:
                    answer = self.answer(int(text.split()[1]))
                if not answer:
                    return
                wire.send(answer)
        finally:
            with self.lock:
                self.active -= 1

    def answer(self, number: int) -> bytes:
        plan = self.plan.get(number)
        self.kill_in -= 1
        if self.kill_in == 0 and self.child is not None:
            self.child.kill()
        if self.outage:
            self.outage -= 1
            return OUTAGE
        takes_effect, answer = ANSWERS[plan.pop(0) if plan else "ok"]
        self.effects[number] += takes_effect
        return answer

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

    @rule(
        number=st.integers(0, ANY_ROW),
        answers=st.lists(st.sampled_from(sorted(ANSWERS)), min_size=1, max_size=4),
    )
    def plan_answers(self, number: int, answers: List[str]) -> None:
        self.plan[number % len(self.versions)] = list(answers)

    @rule(requests=st.integers(1, 12))
    def service_is_away(self, requests: int) -> None:
        self.outage = requests

    @rule(number=st.integers(0, 999), name=st.sampled_from(["out", "bad"]))
    def somebody_changes_a_file(self, number: int, name: str) -> None:
        path = getattr(self.batch, name)
        if os.path.exists(path):
            left = after_a_loss_of_power(read(path), 0, random.Random(number))
            with open(path, "wb") as file:
                file.write(left)

    @rule()
    def another_input_is_refused(self) -> None:
        """Of the same ids: what was sent under them is another thing, and nobody's journal is deleted."""
        finished = [n for n in range(len(self.versions)) if self.effects[n]]
        if not finished or not os.path.exists(self.batch.journal):
            return
        before = self.files()
        self.batch.give([{"id": "r{}".format(n), "input": "row {} other".format(n)} for n in finished])
        assert self.run(0, "--resume").code == 65
        assert self.files() == before
        self.batch.give([{"id": "another", "input": "row 0 {}".format(self.versions[0])}])
        before_effects = Counter(self.effects)
        assert call(*self.batch.arguments("--resume", "--deadline", "0.000001")).code in (3, 75)
        assert os.path.exists(self.batch.journal)
        assert self.effects == before_effects
        self.give()
        self.check("--resume", None)

    @rule(
        retry=st.sampled_from(["--resume", "--resume", "--retry-failed", "--retry-unknown"]),
        jobs=st.integers(1, 3),
        kill_in=st.one_of(st.just(0), st.integers(1, 5)),
    )
    def go(self, retry: str, jobs: int, kill_in: int) -> None:
        if len(self.kept) == len(self.versions):
            self.add_rows()  # a run with nothing to send finds nothing
        self.allow_for(retry)
        called = self.run(kill_in, retry, "--jobs", str(jobs), "--retries", "1", "--patience", "0.05")
        self.check(retry, called)

    def allow_for(self, retry: str) -> None:
        if retry == "--retry-unknown":
            for number in range(len(self.versions)):
                self.allowed[number] += self.outcome(number) in (None, "unknown") and self.effects[number] > 0

    @rule(
        number=st.integers(0, ANY_ROW),
        retry=st.sampled_from(["--resume", "--retry-failed", "--retry-unknown"]),
    )
    def edit_a_row(self, number: int, retry: str) -> None:
        """A changed row is sent in its new form, or the run is refused and changes nothing."""
        number %= len(self.versions)
        before = self.files()
        allowed = Counter(self.allowed)
        self.allow_for(retry)
        self.versions[number] += 1
        self.give()
        called = self.run(0, retry, "--retries", "1", "--patience", "0.05")
        if called.code == 65:
            assert self.files() == before
            self.allowed = allowed
            self.versions[number] -= 1
            self.give()
        else:
            self.check(retry, called)

    # -- what it leaves

    def run(self, kill_in: int, *arguments: str) -> Any:
        """Run the command; None where it was killed. In-process where it is not to be: a fork is dearer."""
        if not kill_in:
            return self.batch.go(*arguments)
        with self.lock:
            self.child, self.kill_in = self.batch.start(*arguments), kill_in
        called = self.child.wait()
        with self.lock:
            self.child = None
        # what was on its way when it was killed has come, or never will
        wait_until(lambda: not self.active, 60)
        return called

    def files(self) -> Dict[str, bytes]:
        """OUT and BAD as they are, and what the journal says of rows and results."""
        found = {path: read(path) for path in (self.batch.out, self.batch.bad) if os.path.exists(path)}
        if os.path.exists(self.batch.journal):
            with contextlib.closing(sqlite3.connect(self.batch.journal)) as db:
                for table in ("rows", "results"):
                    found[table] = repr(db.execute("SELECT * FROM " + table).fetchall()).encode()
        return found

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
        line = dict(self.kept, **dict(self.lines())).get("r{}".format(number))
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
        else:  # what was damaged before is repaired by the next run
            left = {row_id: line for row_id, line in self.kept.items() if outcome_of_line(line) not in may_go}
            results = dict(left, **results)
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
    [(16, 8), pytest.param(40, 20, marks=pytest.mark.slow)],
    ids=["short", "long"],
)
def test_every_id_once_nothing_with_effect_twice_and_no_result_deleted(
    examples: int, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = int(os.environ.get("MACHINE_SEED") or random.randrange(2**32))
    print("MACHINE_SEED={}".format(number))
    monkeypatch.setattr(Backoff, "base_seconds", 0.001)
    bounds = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        phases=[Phase.generate],  # making what it found smaller would take minutes
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(seed(number)(type("Seeded", (BatchMachine,), {})), settings=bounds)
