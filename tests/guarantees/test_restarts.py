"""Against a service that is killed and started again and again, no error lies about ``delivered``.

The service is a process of its own that writes the id of each request to a file as soon as the request's head is read,
before anything else, and is ended by SIGKILL: the file is the truth that every outcome is held against.
"""

from __future__ import annotations

import collections
import itertools
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Dict, List, NamedTuple, Optional

import pytest
import requests

from hestiaos_lite import AegisClient, Client, HestiaError

from ..sandbox_call import steady_port

SERVICE = """
import os, random, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

log = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        os.write(log, (self.headers["X-Request-Id"] + "\\n").encode())
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        time.sleep(random.random() * 0.02)
        body = b'{"result": "ALLOW", "trace_id": "t"}'
        self.send_response(202 if "hitl" in self.path else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_DELETE = answer

    def log_message(self, *args):
        pass

class Server(ThreadingHTTPServer):
    request_queue_size = 64

    def handle_error(self, *args):
        pass

server = Server(("127.0.0.1", int(sys.argv[1])), Handler)
print("ready", flush=True)
server.serve_forever()
"""
CALLS: Dict[str, Callable[[Client, AegisClient, int], Any]] = {
    "run": lambda client, aegis, number: client.run("hello"),
    "delete": lambda client, aegis, number: client.secrets.delete("k"),
    "approve": lambda client, aegis, number: aegis.approve("key-{}".format(number)),
}


class Outcome(NamedTuple):
    call: str
    request_id: Optional[str]
    error: Optional[HestiaError]


class Service:
    """Kept running but for short breaks, until it is closed."""

    def __init__(self, log: str, up_seconds: float) -> None:
        self.port = steady_port()
        self._command = [sys.executable, "-S", "-c", SERVICE, str(self.port), log]
        self._up_seconds = up_seconds
        self._over = threading.Event()
        self.starts = 0
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()

    def _keep(self) -> None:
        while not self._over.is_set():
            with subprocess.Popen(
                self._command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            ) as process:
                assert process.stdout is not None
                process.stdout.readline()  # it listens
                self.starts += 1
                self._over.wait(self._up_seconds)
                process.send_signal(signal.SIGKILL)
            self._over.wait(0.05)

    def close(self) -> None:
        self._over.set()
        self._keeper.join()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="ends the service by SIGKILL")
@pytest.mark.parametrize(
    ("calls", "up_seconds"), [(200, 0.15), pytest.param(10_000, 2.0, marks=pytest.mark.slow)]
)
def test_no_lie_about_delivered(calls: int, up_seconds: float, tmp_path: Any) -> None:
    log = str(tmp_path / "reached")
    open(log, "w").close()
    service = Service(log, up_seconds)
    url = "http://127.0.0.1:{}".format(service.port)
    outcomes: List[Outcome] = []
    numbers = itertools.count()

    def work(is_lent: bool) -> None:
        # few retries: an error is worth more here than a success
        with requests.Session() as session, Client(
            url, timeout=5, retries=1, session=session if is_lent else None
        ) as client, AegisClient(
            url, api_key="k", thread_id="t", timeout=5, max_retries=1, session=session if is_lent else None
        ) as aegis:
            while len(outcomes) < calls or service.starts < 4:
                number = next(numbers)
                name = list(CALLS)[number % len(CALLS)]
                try:
                    CALLS[name](client, aegis, number)
                    outcomes.append(Outcome(name, None, None))
                except HestiaError as error:
                    outcomes.append(Outcome(name, error.request_id, error))
                    time.sleep(0.02)  # so that a break does not eat up the calls

    with ThreadPoolExecutor(8) as pool:
        # half of the workers lend a session
        workers = [pool.submit(work, n % 2 == 1) for n in range(8)]
    service.close()
    for worker in workers:
        worker.result()

    with open(log, encoding="ascii") as file:
        reached = collections.Counter(file.read().split())
    told = collections.Counter(
        "success" if outcome.error is None else str(outcome.error.delivered) for outcome in outcomes
    )
    # "in doubt" (None) is never a lie
    lies = [
        outcome
        for outcome in outcomes
        if outcome.error is not None and outcome.error.delivered is not None
        if outcome.error.delivered != bool(reached[outcome.request_id])
    ]
    print(
        "{} calls, {} starts, told {}, {} lies".format(len(outcomes), service.starts, dict(told), len(lies))
    )
    assert lies == []
    assert sum(reached.values()) >= told["success"]
    assert min(told["success"], told["False"], told["None"]) > 0  # each was seen
