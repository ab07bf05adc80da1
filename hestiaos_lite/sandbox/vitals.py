"""What the sandbox counts of itself, for the system endpoints."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, OrderedDict
from typing import Dict

ACTIVE_SESSION_SECONDS = 1800.0
MAX_SESSIONS = 10_000


class Vitals:
    """Counters since the sandbox was made; safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._started, self._cpu_seconds = time.monotonic(), time.process_time()
        self._received = self._answered = 0
        self._latency_seconds = 0.0
        self._decisions: Dict[str, int] = Counter()
        self._sessions: OrderedDict[str, float] = OrderedDict()  # session id: when last seen, oldest first

    @property
    def uptime_seconds(self) -> float:
        return round(time.monotonic() - self._started, 3)

    @property
    def requests_total(self) -> int:
        return self._received

    def received(self) -> None:
        with self._lock:
            self._received += 1

    def answered(self, latency_seconds: float) -> None:
        """Note how long an answer took to make (for a stream: to begin)."""
        with self._lock:
            self._answered += 1
            self._latency_seconds += latency_seconds

    def decided(self, decision: str) -> None:
        with self._lock:
            self._decisions[decision] += 1

    def decisions(self) -> Dict[str, int]:
        """How often governance gave each decision."""
        return {decision: self._decisions[decision] for decision in ("ALLOW", "THROTTLE", "BLOCK")}

    def session_seen(self, session_id: str) -> None:
        with self._lock:
            self._sessions[session_id] = time.monotonic()
            self._sessions.move_to_end(session_id)
            if len(self._sessions) > MAX_SESSIONS:
                self._sessions.popitem(last=False)

    def metrics(self) -> Dict[str, float]:
        """The published flat metrics that are required. Memory is not measured."""
        now = time.monotonic()
        cpu_seconds = time.process_time() - self._cpu_seconds
        with self._lock:
            horizon = now - ACTIVE_SESSION_SECONDS
            active = sum(seen >= horizon for seen in self._sessions.values())
            average_seconds = self._latency_seconds / max(1, self._answered)
            total = self._received
        return {
            "cpu_percent": round(
                100.0 * cpu_seconds / max(now - self._started, 1e-3) / (os.cpu_count() or 1), 2
            ),
            "memory_percent": 0.0,
            "active_sessions": active,
            "requests_total": total,
            "avg_latency_ms": round(average_seconds * 1000, 3),
        }
