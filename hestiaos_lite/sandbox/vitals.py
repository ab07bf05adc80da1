"""The sandbox's own pulse: uptime, counts, latency, processor and memory, for the system endpoints."""

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
        self._started = time.monotonic()
        self._requests_received = 0
        self._requests_answered = 0
        self._latency_seconds = 0.0
        self._decisions: Dict[str, int] = Counter()
        self._sessions: OrderedDict[str, float] = OrderedDict()  # session id -> when last seen, oldest first
        self._last_look = (time.monotonic(), time.process_time())

    @property
    def uptime_seconds(self) -> float:
        return round(time.monotonic() - self._started, 3)

    @property
    def requests_total(self) -> int:
        with self._lock:
            return self._requests_received

    def received(self) -> int:
        """Count a request that came in; its number, from 1."""
        with self._lock:
            self._requests_received += 1
            return self._requests_received

    def answered(self, latency_seconds: float) -> None:
        """Note how long an answer took to make (for a stream: to begin)."""
        with self._lock:
            self._requests_answered += 1
            self._latency_seconds += latency_seconds

    def decided(self, decision: str) -> None:
        with self._lock:
            self._decisions[decision] += 1

    def decisions(self) -> Dict[str, int]:
        """How often governance gave each decision."""
        with self._lock:
            return {decision: self._decisions[decision] for decision in ("ALLOW", "THROTTLE", "BLOCK")}

    def session_seen(self, session_id: str) -> None:
        with self._lock:
            self._sessions.pop(session_id, None)
            self._sessions[session_id] = time.monotonic()
            if len(self._sessions) > MAX_SESSIONS:
                self._sessions.popitem(last=False)

    def metrics(self) -> Dict[str, float]:
        """The published flat metrics, without the four optional ones of an accelerator."""
        now, cpu = time.monotonic(), time.process_time()
        with self._lock:
            (last_now, last_cpu), self._last_look = self._last_look, (now, cpu)
            horizon = now - ACTIVE_SESSION_SECONDS
            active = sum(1 for seen in self._sessions.values() if seen >= horizon)
            total = self._requests_received
            average = self._latency_seconds / self._requests_answered if self._requests_answered else 0.0
        cpu_percent = 100.0 * (cpu - last_cpu) / max(now - last_now, 1e-3) / (os.cpu_count() or 1)
        return {
            "cpu_percent": round(min(cpu_percent, 100.0), 2),
            "memory_percent": _memory_percent(),
            "active_sessions": active,
            "requests_total": total,
            "avg_latency_ms": round(average * 1000, 3),
        }


def _memory_percent() -> float:
    """This process's share of the machine's memory; 0.0 where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            resident_pages = int(file.read().split()[1])
        return round(100.0 * resident_pages / os.sysconf("SC_PHYS_PAGES"), 3)
    except (OSError, ValueError, AttributeError):
        return 0.0
