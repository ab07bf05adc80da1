"""How everything here is measured: interleaved, side by side in one run, as medians; processor time for work."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import time
from typing import Callable, Dict, Iterator, List, Mapping, NamedTuple, Sequence

VALGRIND = shutil.which("valgrind")
COST = "cpu" if VALGRIND is None else "instructions"
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Row(NamedTuple):
    """One line of the table: what was compared, the ratio or figure, and what it should reach."""

    name: str
    value: float
    unit: str
    goal: str
    met: bool


def at_most(name: str, value: float, limit: float, unit: str = "x") -> Row:
    """A row whose figure should stay at or below a limit."""
    return Row(name, round(value, 3), unit, "at most {:g}".format(limit), value <= limit)


def at_least(name: str, value: float, limit: float, unit: str = "x") -> Row:
    """A row whose figure should reach a limit."""
    return Row(name, round(value, 3), unit, "at least {:g}".format(limit), value >= limit)


@contextlib.contextmanager
def server() -> Iterator[str]:
    """Run the prepared-bytes server in a process of its own; yields its URL."""
    process = subprocess.Popen([sys.executable, "-m", "tests.bench.server"], stdout=subprocess.PIPE, cwd=ROOT)
    try:
        assert process.stdout is not None
        yield "http://127.0.0.1:{}".format(int(process.stdout.readline()))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]


def interleaved(runs: int, measures: Mapping[str, Callable[[], float]]) -> Dict[str, float]:
    """Take each measure ``runs`` times, in turn, so that a slow moment meets all alike; return the medians."""
    taken: Dict[str, List[float]] = {name: [] for name in measures}
    for _ in range(runs):
        for name, measure in measures.items():
            taken[name].append(measure())
    return {name: statistics.median(values) for name, values in taken.items()}


def median_ratio(runs: int, ours: Callable[[], float], theirs: Callable[[], float]) -> float:
    """Median of ours / theirs over interleaved pairs."""
    return statistics.median(ours() / theirs() for _ in range(runs))


def told(name: str, value: float) -> Row:
    """A row that is shown for what it is: what the libraries below cost is not ours to lower."""
    return Row(name, round(value, 3), "x", "", True)


def process_cpu_seconds(command: Sequence[str]) -> float:
    """User and system time of a whole process that must succeed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/", env=clean_environment())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def process_cost(command: Sequence[str]) -> float:
    """What a whole process that must succeed costs: instructions in user space where valgrind is installed, else seconds.

    Instructions are the same at every run, whatever else the machine does.
    """
    if VALGRIND is None:
        return process_cpu_seconds(command)
    count = [VALGRIND, "--tool=callgrind", "--callgrind-out-file=/dev/null", *command]
    environment = dict(clean_environment(), PYTHONHASHSEED="0")
    done = subprocess.run(
        count,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd="/",
        env=environment,
        text=True,
    )
    counted = re.search(r"Collected : ([0-9]+)", done.stderr)
    assert counted is not None, done.stderr
    return float(counted.group(1))


def process_peak_kib(code: str) -> int:
    """Largest resident size of a Python process that runs ``code``."""
    # VmHWM and not ru_maxrss, which a process inherits from the one that started it
    command = [
        sys.executable,
        "-c",
        code + "\nprint(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])",
    ]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd="/", env=clean_environment())
    return int(done.stdout.split()[-1])


def cpu_per_second(work: Callable[[], int]) -> float:
    """Things done a second of this process's processor time."""
    started = time.process_time()
    count = work()
    return count / (time.process_time() - started)


def clean_environment() -> Dict[str, str]:
    """The environment without what would make two runs differ."""
    dropped = ("HESTIAOS_", "AEGIS_", "PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "HTTP_PROXY", "http_proxy")
    return {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
