"""Sandbox: both services behind one port, and what a demo or a test may set and script."""

from __future__ import annotations

import hmac
import os
import threading
import time
from collections import deque
from functools import partial
from typing import Any, Deque, Dict, List, Mapping, Optional, Sequence, Union

from .aegis import AegisRoutes
from .faults import Faults
from .hestia import VERSION, HestiaRoutes, Metrics
from .http import MAX_BODY_BYTES, Server, is_loopback, refuse_foreign
from .messages import Drop, Events, Refusal, Reply, Request, dispatch
from .policy import Policy, load_policy
from .store import Store

MAX_KEPT_REQUESTS = 10_000
MAX_KEPT_BYTES = 64 * 1024 * 1024


class Sandbox(Faults):
    """HestiaOS and AEGIS in this process, on a loopback port.

    >>> with Sandbox() as box:
    ...     print(box.url)  # doctest: +SKIP
    http://127.0.0.1:43127

    Args:
        host: where to listen. Any address but a loopback one needs an ``api_key``.
        port: 0 takes a free port, to be read from ``port`` or ``url`` once started.
        db: SQLite file that keeps traces, secrets and actions across restarts; None keeps them in memory, as
            long as this object lives.
        policy: governance rules, a JSON file's path or a list of mappings; see ``policy.load_policy``.
        api_key: demanded of every request as ``Authorization: Bearer KEY`` when given. Without it only requests
            that name a loopback host, or ``host``, are answered, and none that a page of another site makes.
        hitl_delay_seconds: how long an AEGIS action stays PENDING.
        hitl_quota: AEGIS actions a tenant may have before 429; None for no limit.
        token_delay_seconds: pause before each token of a stream.

    Raises ValueError for a host that is not loopback without a key, a bad policy (naming the file and the rule), a
    negative number, and at ``start`` for a database that is not a sandbox's. OSError at ``start`` when the port is
    taken.

    Attributes:
        host, port, url: where it listens; ``port`` and ``url`` are final once started.
        hitl: the AEGIS half; its ``delay_seconds``, ``quota`` and ``conflict_body`` may be changed at any time.
        token_delay_seconds: may be changed at any time.
        silence_seconds: how long a connection may be silent before it is closed; read at ``start``.

    It can be stopped and started again: same port, same state. Everything is safe to call from any thread.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        db: Union[None, str, os.PathLike[str]] = None,
        policy: Union[None, str, os.PathLike[str], Sequence[Mapping[str, Any]]] = None,
        api_key: Optional[str] = None,
        hitl_delay_seconds: float = 0.0,
        hitl_quota: Optional[int] = None,
        token_delay_seconds: float = 0.0,
    ) -> None:
        if api_key is not None and not (api_key.strip() and api_key.isprintable()):
            raise ValueError("api_key must be printable and not empty")
        if api_key is None and not is_loopback(host):
            raise ValueError("{!r} is not a loopback address: listening there needs an api_key".format(host))
        if not 0 <= port <= 65535:
            raise ValueError("port must be from 0 to 65535, not {}".format(port))
        for seconds in (hitl_delay_seconds, token_delay_seconds):
            if not 0 <= seconds <= threading.TIMEOUT_MAX:
                raise ValueError("a delay must be from 0 to {:.0f} s".format(threading.TIMEOUT_MAX))
        if hitl_quota is not None and hitl_quota < 0:
            raise ValueError("the quota must not be negative")
        super().__init__()
        self.host = host
        self.port = port
        self.token_delay_seconds = token_delay_seconds
        self.silence_seconds = 120.0
        self._api_key = None if api_key is None else api_key.strip().encode("utf-8")
        rules = load_policy(policy)
        self._store = Store(db)
        self._metrics = Metrics()
        self.hitl = AegisRoutes(self._store, hitl_delay_seconds, hitl_quota)
        # No handler knows this object, which would else be part of a cycle: see Store.__del__.
        config = partial(_config, self._store.path, rules, api_key is not None, self.hitl)
        hestia = HestiaRoutes(self._store, rules, self._metrics, config)
        self._routes = {**hestia.routes(), **self.hitl.routes()}
        self._life = threading.RLock()  # of starting and stopping; a signal may stop what is being started
        self._lock = threading.Lock()
        self._kept: Deque[Request] = deque()
        self._kept_bytes = 0
        self._server: Optional[Server] = None
        self._stopped = threading.Event()

    def __repr__(self) -> str:
        return "<Sandbox {} {}>".format(self.url, "running" if self._server else "stopped")

    # -- life

    @property
    def url(self) -> str:
        """The base URL for both clients."""
        host = "[{}]".format(self.host) if ":" in self.host else self.host
        return "http://{}:{}".format(host, self.port)

    def start(self) -> Sandbox:
        """Listen. Returns itself; no effect when it runs already."""
        with self._life:
            if self._server is None:
                self._store.open()
                self._stopped.clear()
                self._server = Server(self._answer, self.host, self.port, self.silence_seconds)
                self.port = self._server.port
        return self

    def stop(self) -> None:
        """Stop at once: port released, connections closed, threads ended. No effect when it does not run."""
        with self._life:
            self._stopped.set()  # before the server stops, so that requests in a delay wake
            server, self._server = self._server, None
            if server is not None:
                server.stop()
            self._store.close()  # opened by a start that failed, too

    def serve_forever(self) -> None:
        """Start, and return once another thread calls ``stop``.

        Ctrl-C stops it and goes on as KeyboardInterrupt.
        """
        self.start()
        try:
            while not self._stopped.wait(1.0):
                pass  # Windows does not interrupt a wait for Ctrl-C, and no system where another thread gets the signal
        finally:
            self.stop()

    def __enter__(self) -> Sandbox:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    # -- what it saw

    @property
    def requests(self) -> List[Request]:
        """The requests received, oldest first: the last 10,000, or fewer where their bodies exceed 64 MiB."""
        with self._lock:
            return list(self._kept)

    @property
    def requests_total(self) -> int:
        """How many requests were received in all."""
        return self._metrics.counted("requests")

    def actions(self) -> List[Dict[str, Any]]:
        """The AEGIS actions accepted, oldest first.

        Each a dict of tenant, thread_id, idempotency_key, action, status, request_id, payload, accepted_ms.
        Works after ``stop`` too.
        """
        return self.hitl.actions()

    def fail_next_action(self, times: int = 1) -> None:
        """Let the next ``times`` accepted AEGIS actions end FAILED instead of COMMITTED."""
        self.hitl.fail_next(times)

    # -- answering

    def _answer(self, request: Request) -> Reply:
        self._keep(request)
        self._metrics.count("requests")
        fault = None
        try:
            if self._api_key is None:
                refuse_foreign(request, self.host)
            delay = self._scripted(request, "delay")
            if delay is not None:
                self._pause(delay.delay_seconds)
            fault = self._scripted(request, "reply", "drop", "lose") or self._drawn(request)
            if fault is not None and fault.kind == "drop":
                raise Drop
            if fault is not None and fault.reply is not None:
                return fault.reply
            started = time.perf_counter()
            try:
                self._authenticate(request)
                reply = dispatch(self._routes, request)
            finally:
                self._metrics.count("answers")
                self._metrics.count("seconds", time.perf_counter() - started)
        except Refusal as refused:
            reply = refused.reply
        if fault is not None:  # lose: the work is done, its answer is not sent
            raise Drop
        if reply.events is not None:
            cut = self._scripted(request, "drop_stream")
            reply.events = self._paced(reply.events, None if cut is None else cut.after_events)
        return reply

    def _paced(self, events: Events, after_events: Optional[int]) -> Events:
        """A stream's events, each token after its pause; raises Drop after so many, or where the sandbox stops."""
        for number, event in enumerate(events):
            if number == after_events:
                break
            if event["type"] == "token":
                self._pause(self.token_delay_seconds)
            yield event
        if after_events is not None:
            raise Drop

    def _pause(self, seconds: float) -> None:
        """Wait; raises Drop where the sandbox stops meanwhile."""
        if self._stopped.is_set() or (seconds and self._stopped.wait(seconds)):
            raise Drop

    def _authenticate(self, request: Request) -> None:
        if self._api_key is None:
            return
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        offered = key.strip().encode("latin-1")  # fields were read as Latin-1: this is what was sent
        if scheme.lower() != "bearer" or not hmac.compare_digest(offered, self._api_key):
            message = "this sandbox demands its API key as a Bearer token"
            problem = {"code": "UNAUTHORIZED", "message": message}
            raise Refusal(401, problem, {"WWW-Authenticate": "Bearer"})

    def _keep(self, request: Request) -> None:
        with self._lock:
            self._kept.append(request)
            self._kept_bytes += len(request.body)
            while len(self._kept) > MAX_KEPT_REQUESTS or self._kept_bytes > MAX_KEPT_BYTES:
                self._kept_bytes -= len(self._kept.popleft().body)


def _config(path: Optional[str], policy: Policy, has_key: bool, hitl: AegisRoutes) -> Dict[str, Any]:
    """What ``GET /api/system/config`` shows."""
    return {
        "service": "hestiaos-sandbox",
        "version": VERSION,
        "storage": "memory" if path is None else "file",
        "policy": {"source": policy.source, "rules": len(policy.rules)},
        "authentication": "bearer" if has_key else "none",
        "hitl": {"delay_seconds": hitl.delay_seconds, "quota": hitl.quota},
        "limits": {"body_bytes": MAX_BODY_BYTES},
    }
