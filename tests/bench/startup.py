"""What a one-shot job pays: whole processes, from the interpreter's start to its end."""

from __future__ import annotations

import os
import sys
from typing import List

from .measure import Row, at_most, median_ratio, process_cpu_seconds

RUNS = 15


def rows(url: str) -> List[Row]:
    """Start-up and import, against the published command line and against the bare libraries."""
    folder = os.path.dirname(sys.executable)
    ours = os.path.join(folder, "hestiaos-lite")
    published = os.path.join(folder, "hestiaos")
    calls = url + "/calls"
    one_get = "import requests; print(requests.get({!r}).json())".format(calls + "/api/v1/health")

    def python(code: str) -> List[str]:
        return [sys.executable, "-c", code]

    def ratio(command: List[str], other: List[str]) -> float:
        return median_ratio(RUNS, lambda: process_cpu_seconds(command), lambda: process_cpu_seconds(other))

    health = [ours, "--base-url", calls, "health"]
    found = [
        at_most(
            "health, process / published command",
            ratio(health, [published, "--base-url", calls, "health"]),
            0.38,
        ),
        at_most("health, process / bare requests.get", ratio(health, python(one_get)), 1.20),
    ]
    for option in ("--help", "--version"):
        found.append(
            at_most(
                option + " / import argparse, json",
                ratio([ours, option], python("import argparse, json")),
                2.0,
            )
        )
    base = python("import requests, sseclient")
    found.append(
        at_most(
            "import hestiaos_lite / import requests, sseclient",
            ratio(python("import hestiaos_lite"), base),
            1.10,
        )
    )
    found.append(
        at_most(
            "from hestiaos_lite import Client / the same",
            ratio(python("from hestiaos_lite import Client"), base),
            1.10,
        )
    )
    return found
