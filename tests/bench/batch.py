"""What a night of inputs pays: a batch against a bare ThreadPoolExecutor over requests, and its memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, List

import requests

from hestiaos_lite import Client, run_batch

from .measure import ROOT, Row, at_least, at_most, interleaved

JOBS = 8
ROWS = 4000


def bare_pool(url: str, count: int) -> int:
    """A session a thread, as one would write it."""
    local = threading.local()

    def send(number: int) -> Any:
        if not hasattr(local, "session"):
            local.session = requests.Session()
        body = {
            "input": "row {}".format(number),
            "context": {"session_id": None, "agent_id": None, "mode_hint": None},
            "options": {"timeout_ms": 30000, "stream": False},
        }
        response = local.session.post(url + "/api/v1/run", json=body, timeout=30)
        response.raise_for_status()
        return response.json()

    with ThreadPoolExecutor(JOBS) as pool:
        return sum(answer["result"] == "ALLOW" for answer in pool.map(send, range(count)))


def library(url: str, count: int) -> int:
    """run_batch with its own pool."""
    with Client(url) as client:
        rows = ({"id": number, "input": "row {}".format(number)} for number in range(count))
        return sum(result.ok for result in run_batch(client, rows, jobs=JOBS))


def command(url: str, count: int) -> int:
    """The command: files, journal and index included."""
    with tempfile.TemporaryDirectory() as folder:
        run_command(url, count, folder)
        with open(os.path.join(folder, "out.jsonl"), encoding="utf-8") as file:
            return sum(json.loads(line)["ok"] for line in file)


def run_command(url: str, count: int, folder: str) -> int:
    """Run the command over ``count`` rows and return its peak memory in KiB."""
    with open(os.path.join(folder, "in.jsonl"), "w", encoding="utf-8") as file:
        for number in range(count):
            file.write('{{"id": "row-{}", "input": "row {}"}}\n'.format(number, number))
    code = (
        "import sys; from hestiaos_lite.cli import main; code = main(sys.argv[1:]);"
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]); sys.exit(code)"
    )
    arguments = ["batch", "in.jsonl", "--out", "out.jsonl", "--quiet", "--jobs", str(JOBS), "--base-url", url]
    printed = subprocess.run(
        [sys.executable, "-c", code] + arguments,
        cwd=folder,
        env=dict(os.environ, PYTHONPATH=ROOT),
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    return int(printed)


def rows(url: str) -> List[Row]:
    """Rows a second against a bare pool, and the command's peak memory over the number of rows."""
    service = url + "/calls"

    def rate(way: Callable[[str, int], int]) -> float:
        began = time.perf_counter()
        assert way(service, ROWS) == ROWS
        return ROWS / (time.perf_counter() - began)

    def peak_kib(count: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            return run_command(service, count, folder)

    ways = {way.__name__: (lambda way=way: rate(way)) for way in (bare_pool, library, command)}
    rates = interleaved(7, ways)
    peaks = interleaved(3, {"many": lambda: peak_kib(100000), "few": lambda: peak_kib(1000)})
    return [
        at_least("run_batch, 8 jobs / a bare thread pool", rates["library"] / rates["bare_pool"], 1.6),
        at_least("hestiaos-lite batch, whole process / the same", rates["command"] / rates["bare_pool"], 0.8),
        at_most("peak memory of 100,000 rows over 1,000", (peaks["many"] - peaks["few"]) / 1024, 15.0, "MiB"),
    ]
