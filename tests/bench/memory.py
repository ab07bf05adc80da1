"""What a job holds: largest resident size of whole processes, above that of one bare requests call."""

from __future__ import annotations

from typing import List

from .measure import Row, at_most, interleaved, process_peak_kib

BARE = "import requests; requests.post({!r}, json={{}}, timeout=30).json()"
CALL = "from hestiaos_lite import Client; Client({!r}).run('hi')"
STREAM = "from hestiaos_lite import Client; assert sum(1 for _ in Client({!r}).run_stream('hi')) == 300001"


def rows(url: str) -> List[Row]:
    """One call, and a stream of 300,000 events."""
    peaks = interleaved(
        5,
        {
            "bare": lambda: process_peak_kib(BARE.format(url + "/calls/api/v1/run")),
            "call": lambda: process_peak_kib(CALL.format(url + "/calls")),
            "stream": lambda: process_peak_kib(STREAM.format(url + "/stream-300000-64")),
        },
    )
    return [
        at_most(
            "peak memory of a call over bare requests", (peaks["call"] - peaks["bare"]) / 1024, 1.0, "MiB"
        ),
        at_most(
            "peak memory of 300,000 events over the same",
            (peaks["stream"] - peaks["bare"]) / 1024,
            6.0,
            "MiB",
        ),
    ]
