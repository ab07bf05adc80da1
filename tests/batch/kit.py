"""What the batch's tests share: a batch in a folder, rows, and what the sandbox executed of them."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections import Counter
from typing import Any, Dict, Iterator, List, Sequence

from hestiaos_lite import Client
from hestiaos_lite.sandbox import Sandbox

from ..cli_call import Called, call, command, environment

BLOCKED_TEXT = "rm -rf /"


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
        self.give([{"id": "r{}".format(number), "input": "row {}".format(number)} for number in range(count)])

    def arguments(self, *more: str) -> List[str]:
        return ["batch", self.input, "--out", self.out, "--failed", self.bad, "--base-url", self.url] + list(
            more
        )

    def go(self, *more: str) -> Called:
        return call(*self.arguments(*more))

    def start(self, *more: str) -> subprocess.Popen[bytes]:
        """Run it in a process of its own."""
        return subprocess.Popen(
            command(*self.arguments(*more)), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

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


def wait_for_requests(box: Sandbox, count: int, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while box.requests_total < count:
        assert time.monotonic() < deadline, "only {} requests came".format(box.requests_total)
        time.sleep(0.005)
