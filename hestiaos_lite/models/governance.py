"""What governance decided for a run, and what it says of a command beforehand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping, Optional, Tuple

from ._base import Model, extra_fields

__all__ = ["Ruling", "TraceResponse"]


@dataclass(frozen=True, eq=False, repr=False)
class TraceResponse(Model):
    """What governance decided for one run, and why. ``violations`` holds objects with ``reason`` and ``severity``."""

    trace_id: str
    decision: str
    violations: Tuple[Any, ...] = ()
    latency_ms: Optional[float] = None
    reason: Optional[str] = None
    risk_score: Optional[float] = None
    policy: Optional[str] = None
    mode: Optional[str] = None
    budget: Optional[float] = None
    timestamp: Optional[str] = None
    extra: Mapping[str, Any] = extra_fields()


@dataclass(frozen=True, eq=False, repr=False)
class Ruling(Model):
    """What governance says of a command before it runs: ``decision`` is ALLOW, or THROTTLE where that was allowed."""

    decision: str
    reason: Optional[str] = None
    policy: Optional[str] = None
    trace_id: Optional[str] = None
    risk_score: Optional[float] = None
    budget: Optional[float] = None
    extra: Mapping[str, Any] = extra_fields()
