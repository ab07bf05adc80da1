"""dask runs the rows of a worker that died once more, finished ones too; with a claim on its scheduler none is sent twice."""

from __future__ import annotations

import os
import time
from collections import Counter
from typing import Any, Union

import pytest

from hestiaos_lite import run_batch
from hestiaos_lite.batch.rate import Backoff
from hestiaos_lite.sandbox import Sandbox

from ..batch.kit import client_of_environment, executions, rows

pytestmark = pytest.mark.dask


def _add(row_id: Union[str, int], dask_scheduler: Any = None) -> bool:
    """Runs on the scheduler, whose loop is one thread: nothing comes between the look and the note."""
    claimed = dask_scheduler.__dict__.setdefault("claimed_rows", set())
    is_free = row_id not in claimed
    claimed.add(row_id)
    return is_free


def claim(row_id: Union[str, int]) -> Any:
    """Claim a row on the scheduler of the cluster that this worker is one of."""
    distributed = pytest.importorskip("distributed")
    return distributed.get_client().run_on_scheduler(_add, row_id)


def test_a_worker_that_is_killed_makes_no_row_execute_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(Backoff, "base_seconds", 0.01)
    for seed in range(6):
        with Sandbox(api_key="key-of-the-environment") as box:
            monkeypatch.setenv("HESTIAOS_BASE_URL", box.url)
            monkeypatch.setenv("HESTIAOS_API_KEY", "key-of-the-environment")
            box.delay_next(0.05, times=60)
            box.random_faults(rate=0.05, seed=seed)  # after these
            with distributed.LocalCluster(
                n_workers=2, threads_per_worker=2, processes=True, dashboard_address=None
            ) as cluster, distributed.Client(cluster) as scheduler:
                executor = scheduler.get_executor(pure=False)
                pids = list(scheduler.run(os.getpid).values())
                results = []
                for result in run_batch(client_of_environment, rows(120), executor=executor, claim=claim):
                    results.append(result)
                    if len(results) == 40:
                        os.kill(pids[0], 9)
            executed = executions(box)
            assert set(executed.values()) == {1}
            assert Counter(result.id for result in results) == {"r{}".format(n): 1 for n in range(120)}
            assert {result.outcome for result in results} <= {"ok", "unknown"}
            assert {"row {}".format(str(result.id)[1:]) for result in results if result.ok} <= set(executed)
            lost = sum(fault.kind in ("drop", "lose") for fault in box.injected)
            assert sum(result.ok for result in results) >= 100 - lost
            time.sleep(0.1)
