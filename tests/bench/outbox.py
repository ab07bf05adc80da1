"""What an approval pays while the service is away: processor time, which must not grow with what is queued."""

from __future__ import annotations

import os
import tempfile
import time
from typing import List

from hestiaos_lite import AegisClient, Outbox

from .measure import Row, at_most, median_ratio

AWAY = "http://127.0.0.1:9"  # the discard port: nobody listens
APPROVALS = 100


def rows(url: str) -> List[Row]:
    """One hundred approvals onto a long queue against as many onto a short one."""
    with tempfile.TemporaryDirectory() as folder:
        long, short = (_queue(os.path.join(folder, str(count) + ".db"), count) for count in (4000, 300))
        with long, short:
            ratio = median_ratio(5, lambda: _approve(long), lambda: _approve(short))
    return [at_most("approve while the service is away, 4,000 queued / 300", ratio, 1.2)]


def _queue(path: str, count: int) -> Outbox:
    outbox = Outbox(path)
    with _client(outbox) as client:
        for number in range(count):
            assert client.approve("first-{}".format(number)).queued
    return outbox


def _client(outbox: Outbox) -> AegisClient:
    return AegisClient(AWAY, tenant_id="acme", thread_id="t", outbox=outbox, max_retries=0)


def _approve(outbox: Outbox) -> float:
    with _client(outbox) as client:
        started = time.process_time()
        for _ in range(APPROVALS):
            assert client.approve("later-" + os.urandom(8).hex()).queued
        return time.process_time() - started
