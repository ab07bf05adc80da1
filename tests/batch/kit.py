"""What the batch's tests share: a batch in a folder, rows, and what the sandbox executed of them."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from hestiaos_lite import Client
from hestiaos_lite.cli import main
from hestiaos_lite.sandbox import Sandbox

from ..cli_call import Called, call
from ..faultserver import FaultServer, Wire, ok

BLOCKED_TEXT = "rm -rf /"
PAGE = 512  # bytes


def rows(count: int) -> Iterator[Dict[str, Any]]:
    return ({"id": "r{}".format(number), "input": "row {}".format(number)} for number in range(count))


def client_of_environment() -> Client:
    """A factory that a worker process can import."""
    return Client(retries=0)


def executions(box: Sandbox) -> Counter[str]:
    """How often the sandbox executed each input: a request that met an error answer or a drop was not executed."""
    spared = {fault.request_id for fault in box.injected if fault.kind not in ("lose", "delay")}
    return Counter(
        request.json["input"] for request in box.requests if request.headers["X-Request-Id"] not in spared
    )


def once(count: int) -> Counter[str]:
    return Counter({"row {}".format(number): 1 for number in range(count)})


class Timed(FaultServer):
    """A service that notes when each row comes; ``judge(input, sequence)`` gives the refusal it meets, or None."""

    def __init__(self, judge: Callable[[str, int], Optional[bytes]]) -> None:
        self.arrivals: List[Tuple[str, float]] = []
        self.most_at_once = 0
        self._at_once = 0
        self._judge = judge
        self._lock_of_counts = threading.Lock()
        super().__init__(self._script)

    def _script(self, wire: Wire) -> None:
        while True:
            text = json.loads(wire.request().body.decode("utf-8"))["input"]
            with self._lock_of_counts:
                self.arrivals.append((text, time.monotonic()))
                sequence = len(self.arrivals)
                self._at_once += 1
                self.most_at_once = max(self.most_at_once, self._at_once)
            answer = self._judge(text, sequence) or ok({"result": "ALLOW", "trace_id": "t"})
            with self._lock_of_counts:
                self._at_once -= 1
            wire.send(answer)


class Child:
    """The command in a forked process, which a test may signal or kill: what the kernel has of its files is what stays."""

    def __init__(self, arguments: List[str], prepare: Callable[[], None] = lambda: None) -> None:
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - `wait` closes it
        self._status: Optional[int] = None
        with warnings.catch_warnings():
            # 3.12 and later warn of every fork beside threads
            warnings.simplefilter("ignore", DeprecationWarning)
            self._pid = os.fork()
        if self._pid == 0:
            code = 70
            try:
                os.dup2(self._output.fileno(), 1)
                os.dup2(1, 2)
                sys.stdout = sys.stderr = os.fdopen(2, "w", closefd=False)
                prepare()
                code = main(arguments)
            except BaseException:  # noqa: BLE001 - of a fork, which must not go on as its parent would
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)

    def signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if not self.has_ended():
            os.kill(self._pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)

    def has_ended(self, options: int = os.WNOHANG if os.name == "posix" else 0) -> bool:
        if self._status is None:
            pid, status = os.waitpid(self._pid, options)
            self._status = status if pid else None
        return self._status is not None

    def said(self) -> str:
        """What it has written until now, to either output."""
        return os.pread(self._output.fileno(), 1 << 20, 0).decode("utf-8")

    def wait(self) -> Optional[Called]:
        """What it said; None where it was killed. One that does not end is killed, and is a failure."""
        try:
            wait_until(self.has_ended, 120)
        finally:
            self.kill()
        assert self._status is not None
        with self._output:
            said = self.said()
        return None if os.WIFSIGNALED(self._status) else Called(os.WEXITSTATUS(self._status), "", said)

    def ended(self) -> Called:
        """The same, of one that is not killed."""
        called = self.wait()
        assert called is not None
        return called


class Batch:
    """The files of one batch in a folder, and the command over them."""

    def __init__(self, folder: Any, url: str) -> None:
        self.folder = str(folder)
        self.url = url
        self.input, self.out, self.bad = (
            os.path.join(self.folder, name) for name in ("in.jsonl", "out.jsonl", "bad.jsonl")
        )
        self.journal = self.out + ".journal"

    def give(self, rows: Sequence[Dict[str, Any]]) -> None:
        with open(self.input, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)

    def give_rows(self, count: int) -> None:
        self.give(list(rows(count)))

    def arguments(self, *more: str) -> List[str]:
        return ["batch", self.input, "--out", self.out, "--failed", self.bad, "--base-url", self.url] + list(
            more
        )

    def go(self, *more: str) -> Called:
        return call(*self.arguments(*more))

    def start(self, *more: str, prepare: Callable[[], None] = lambda: None) -> Child:
        """Run it in a process of its own."""
        return Child(self.arguments(*more), prepare)

    def lines(self, path: str) -> List[Dict[str, Any]]:
        with open(path, encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def ids(self, path: str) -> List[Any]:
        return sorted(line["id"] for line in self.lines(path))

    def check_each_id_once(self, count: int) -> None:
        """Every id of the input stands in exactly one of OUT and BAD, and only what is ok stands in OUT."""
        out, bad = self.lines(self.out), self.lines(self.bad)
        assert Counter(line["id"] for line in out + bad) == Counter(
            {"r{}".format(n): 1 for n in range(count)}
        )
        assert all(line["ok"] for line in out)
        assert not any(line["ok"] for line in bad)


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def put(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)


def after_a_loss_of_power(data: bytes, synced: int, rng: random.Random) -> bytes:
    """What may be left of a file: whole up to ``synced``; of what follows, pages may be missing before later ones."""
    left = bytearray(data[: rng.randint(synced, len(data))])
    for start in range(synced, len(left), PAGE):
        if rng.random() < 0.3:
            end = min(start + PAGE, len(left))
            left[start:end] = bytes(end - start)
    return bytes(left)


def wait_until(holds: Callable[[], Any], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited {} s".format(seconds)
        time.sleep(0.005)


def wait_for_requests(box: Sandbox, count: int) -> None:
    wait_until(lambda: box.requests_total >= count)
