"""``python -m tests.bench [--json FILE] [--svg FILE] [PART...]``: every figure of speed that the project holds, as ratios.

Needs the package installed with its extra ``bench``. Asserts nothing: a machine's mood is not a test.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from typing import List

from . import batch, calls, memory, outbox, picture, startup, streams
from .measure import Row, server

PARTS = {
    "startup": startup.rows,
    "calls": calls.rows,
    "streams": streams.rows,
    "memory": memory.rows,
    "batch": batch.rows,
    "outbox": outbox.rows,
}


def main() -> int:
    """Run the parts asked for, print the table, write the JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("part", nargs="*", choices=[[], *PARTS], help="what to measure; default all")
    parser.add_argument("--json", metavar="FILE", help="write the figures to this file as well")
    parser.add_argument("--svg", metavar="FILE", help="draw them to this file")
    options = parser.parse_args()
    found: List[Row] = []
    with server() as url:
        for name in options.part or PARTS:
            for row in PARTS[name](url):
                found.append(row)
                missed = "" if row.met else "MISSED"
                shown = "{0.name:<55} {0.value:>8g} {0.unit:<4} {0.goal:<14} {1}".format(row, missed)
                print(shown, flush=True)
    python, machine = platform.python_version(), platform.machine()
    if options.svg:
        with open(options.svg, "w", encoding="utf-8") as file:
            file.write(picture.drawn(found, "CPython {}, {}".format(python, machine)))
    if options.json:
        facts = {"python": python, "machine": machine, "rows": [row._asdict() for row in found]}
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(facts, file, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
