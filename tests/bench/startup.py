"""What a one-shot job pays: whole processes, from the interpreter's start to its end."""

from __future__ import annotations

import os
import sys
from typing import List

from .measure import COST, VALGRIND, Row, at_most, median_ratio, process_cost, process_cpu_seconds

RUNS = 15


def rows(url: str) -> List[Row]:
    """Start-up and import, against the published command line and against the bare libraries."""
    folder = os.path.dirname(sys.executable)
    ours = os.path.join(folder, "hestiaos-lite")
    published = os.path.join(folder, "hestiaos")
    calls = url + "/calls"
    health = [ours, "--base-url", calls, "health"]
    one_run = _python("from hestiaos_lite import Client; print(Client({!r}).run('hi').text)".format(calls))
    one_get = _python("import requests; print(requests.get({!r}).json())".format(calls + "/api/v1/health"))
    parser = _python("import argparse, json")
    libraries = _python("import requests, sseclient")
    return [
        _cost("health, process / bare requests.get", health, one_get, 1.00),
        _cost("Client(u).run, process / the same", one_run, one_get, 1.05),
        at_most(
            "health, process / published command, cpu",
            median_ratio(
                RUNS,
                lambda: process_cpu_seconds(health),
                lambda: process_cpu_seconds([published, "--base-url", calls, "health"]),
            ),
            0.36,
        ),
        _cost("--help / import argparse, json", [ours, "--help"], parser, 1.6),
        _cost("--version / import argparse, json", [ours, "--version"], parser, 1.6),
        _cost(
            "import hestiaos_lite / import requests, sseclient",
            _python("import hestiaos_lite"),
            libraries,
            1.10,
        ),
        _cost(
            "from hestiaos_lite import Client / the same",
            _python("from hestiaos_lite import Client"),
            libraries,
            1.10,
        ),
    ]


def _python(code: str) -> List[str]:
    return [sys.executable, "-c", code]


def _cost(name: str, command: List[str], other: List[str], limit: float) -> Row:
    """A row of one process's cost over another's: one pair of counted instructions says what many of seconds do."""
    runs = RUNS if VALGRIND is None else 1
    process_cpu_seconds(command)  # once before, for the files of compiled code
    ratio = median_ratio(runs, lambda: process_cost(command), lambda: process_cost(other))
    return at_most("{}, {}".format(name, COST), ratio, limit)
