"""What a stream pays: events a second, how soon the first is there, how size counts, how soon a cancel takes effect."""

from __future__ import annotations

import statistics
import threading
import time
from typing import Callable, List

from .measure import Row, at_least, at_most, cpu_per_second, interleaved
from .peers import PEERS, ours, published

EVENTS = 30000


def rows(url: str) -> List[Row]:
    """All rows about streams."""
    return _throughput(url) + _latency(url) + [_linear(), _cancel(url)]


def _throughput(url: str) -> List[Row]:
    found = []
    for each in (1, 64):
        stream = "{}/stream-{}-{}".format(url, EVENTS, each)

        def rate(peer: Callable[[str], int], stream: str = stream) -> Callable[[], float]:
            def measure() -> float:
                def work() -> int:
                    count = peer(stream)
                    assert count == EVENTS + 1, (peer, count)
                    return count

                return cpu_per_second(work)

            return measure

        measures = {name: rate(peer) for name, peer in PEERS.items()}
        measures.update(ours=rate(ours), published=rate(published))
        rates = interleaved(7, measures)
        fastest = max(PEERS, key=lambda name: rates[name])
        found.append(
            at_least("events/s, {} a chunk / {}".format(each, fastest), rates["ours"] / rates[fastest], 1.5)
        )
        found.append(
            at_least("events/s, {} a chunk / published".format(each), rates["ours"] / rates["published"], 2.5)
        )
    return found


def _latency(url: str) -> List[Row]:
    from hestiaos_lite import Client

    found = []
    for framing in ("chunked", "close", "gzip"):
        with Client("{}/slow-{}".format(url, framing)) as client:
            delays = [
                time.monotonic() - event.data["sent"]
                for event in client.run_stream("hi")
                if event.type == "token"
            ]
        found.append(at_most("event in hand, " + framing, statistics.median(delays) * 1000, 5.0, "ms"))
    return found


def _linear() -> Row:
    from hestiaos_lite.sse import iter_events

    def seconds(mebibytes: int) -> float:
        event = b"data: " + b"x" * (mebibytes << 20) + b"\n\n"
        started = time.process_time()
        assert len(list(iter_events(event[at : at + 1024] for at in range(0, len(event), 1024)))) == 1
        return time.process_time() - started

    times = interleaved(9, {"large": lambda: seconds(4), "small": lambda: seconds(1)})
    return at_most("one event of 4 MiB / of 1 MiB, 1 KiB chunks", times["large"] / times["small"], 5.0)


def _cancel(url: str) -> Row:
    from hestiaos_lite import Client

    def seconds() -> float:
        with Client(url + "/silent") as client:
            stream = client.run_stream("hi")
            next(stream)
            called = []

            def cancel() -> None:
                called.append(time.monotonic())
                stream.cancel()

            timer = threading.Timer(0.05, cancel)
            timer.start()
            assert list(stream) == []
            ended = time.monotonic()
            timer.join()
        return ended - called[0]

    return at_most("cancel to the reader's end", max(seconds() for _ in range(10)), 0.2, "s")
