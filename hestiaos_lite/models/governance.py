"""What governance decided for a run, and what it says of a command beforehand."""

from __future__ import annotations

from dataclasses import field
from typing import Any, Mapping, Optional, Tuple

from ._base import Model, answer


@answer
class TraceResponse(Model):
    """What governance decided for one run, and why.

    Attributes:
        trace_id: of the run.
        decision: ALLOW, THROTTLE, BLOCK or a word that is new.
        violations: objects with ``reason`` and ``severity``.
        latency_ms: milliseconds the service took.
        reason: why, in the service's words.
        risk_score: as the service counts it.
        policy: the rule that decided.
        mode: the mode the run was executed under.
        budget: share of the budget granted.
        timestamp: when, in the service's form.
    """

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
    extra: Mapping[str, Any] = field(default_factory=dict)


@answer
class Ruling(Model):
    """What governance says about a command before it runs.

    Attributes:
        decision: ALLOW, or THROTTLE where that was allowed.
        reason: why, in the service's words.
        policy: the rule that decided.
        trace_id: names the ruling in the service's log; no run has it.
        risk_score: as the service counts it.
        budget: share of the budget granted.
    """

    decision: str
    reason: Optional[str] = None
    policy: Optional[str] = None
    trace_id: Optional[str] = None
    risk_score: Optional[float] = None
    budget: Optional[float] = None
    extra: Mapping[str, Any] = field(default_factory=dict)
