"""A batch that is killed again and again, with faults of the service on top: nothing lost, nothing executed twice."""

from __future__ import annotations

import os
import random
import time
from typing import Any

import pytest

from hestiaos_lite.sandbox import Sandbox

from ..batch.kit import Batch, executions

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kill -9 is POSIX's")


@pytest.mark.parametrize(("count", "kills", "seed"), [
    (200, 2, 41),
    pytest.param(10000, 10, 42, marks=pytest.mark.slow),
    *(pytest.param(300, 10, seed, marks=pytest.mark.slow) for seed in range(100, 110)),
])  # fmt: skip
def test_killed_and_resumed_every_id_has_one_result_and_no_row_is_executed_twice(
    count: int, kills: int, seed: int, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    print("seed", seed)
    rng = random.Random(seed)
    monkeypatch.setattr("hestiaos_lite.sandbox.box.MAX_KEPT_REQUESTS", 2 * count)
    with Sandbox() as box:
        box.random_faults(rate=0.02, seed=seed)
        batch = Batch(tmp_path, box.url)
        batch.give_rows(count)
        killed = 0
        # a kill may leave a whole window in doubt that never reached the service, so fewer requests than rows may come
        for threshold in sorted(rng.sample(range(1, int(count * 0.9) - 8 * kills), kills)):
            child = batch.start("--resume", "--quiet")
            while box.requests_total < threshold and not child.has_ended():
                time.sleep(0.0005)
            time.sleep(rng.random() * 0.003)
            child.kill()
            killed += child.wait() is None
        assert killed == kills
        last = batch.go("--resume", "--quiet")

        batch.check_each_id_once(count)
        executed = executions(box)
        assert set(executed.values()) == {1}
        done = {"row " + line["id"][1:] for line in batch.lines(batch.out)}
        assert done <= set(executed)
        unknown = [line for line in batch.lines(batch.bad) if line["error"]["delivered"] is None]
        assert unknown == batch.lines(batch.bad)
        # in doubt is what a fault left without an answer, and at most the window of each kill
        lost = sum(fault.kind in ("drop", "lose") for fault in box.injected)
        assert len(unknown) <= lost + 8 * kills
        assert last.code == (3 if unknown else 0)

        box.clear_faults()
        assert batch.go("--retry-unknown", "--quiet").code == 0
        batch.check_each_id_once(count)
        assert batch.lines(batch.bad) == []
        assert set(executions(box)) == {"row {}".format(number) for number in range(count)}
