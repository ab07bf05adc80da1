"""Throughput of a batch against a bare ThreadPoolExecutor over requests, and its memory over the number of rows.

    python -m tests.bench.bench_batch throughput
    python -m tests.bench.bench_batch memory

``throughput`` takes turns in one process, against a server in another; the ratio is of the median rates, 1.0 being the bare
pool's. The command is a process of its own, its start included. ``memory`` runs the command over 1,000 and 100,000 rows.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Dict, List

import requests

from hestiaos_lite import Client, run_batch

JOBS = 8
ROUNDS = 7
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
        "import sys, resource; from hestiaos_lite.cli import main; code = main(sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(code)"
    )
    arguments = ["batch", "in.jsonl", "--out", "out.jsonl", "--quiet", "--jobs", str(JOBS), "--base-url", url]
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    printed = subprocess.run(
        [sys.executable, "-c", code] + arguments,
        cwd=folder, env=dict(os.environ, PYTHONPATH=root), stdout=subprocess.PIPE, check=True,
    ).stdout  # fmt: skip
    return int(printed)


def throughput(url: str) -> None:
    """Print the median rate of each way and its ratio to the bare pool's."""
    ways: List[Callable[[str, int], int]] = [bare_pool, library, command]
    rates: Dict[str, List[float]] = {way.__name__: [] for way in ways}
    for _ in range(ROUNDS):
        for way in ways:
            began = time.perf_counter()
            assert way(url, ROWS) == ROWS
            rates[way.__name__].append(ROWS / (time.perf_counter() - began))
    base = statistics.median(rates["bare_pool"])
    for name, found in rates.items():
        median = statistics.median(found)
        print("{:10} {:6.0f} rows/s, {:.2f} of the bare pool's".format(name, median, median / base))


def memory(url: str) -> None:
    """Print the command's peak memory for 1,000 and 100,000 rows."""
    peaks = []
    for count in (1000, 100000):
        with tempfile.TemporaryDirectory() as folder:
            peaks.append(run_command(url, count, folder) / 1024)
            print("{:7} rows: peak {:.1f} MiB".format(count, peaks[-1]))
    print("difference {:.1f} MiB".format(peaks[1] - peaks[0]))


def main() -> None:
    server = subprocess.Popen([sys.executable, "-m", "tests.bench.server"], stdout=subprocess.PIPE)
    assert server.stdout is not None
    try:
        url = "http://127.0.0.1:{}/calls".format(int(server.stdout.readline()))
        {"throughput": throughput, "memory": memory}[sys.argv[1]](url)
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


if __name__ == "__main__":
    main()
