"""What governance says of a command, and a flat error body."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping, Optional

from ._base import Model, extra_fields

__all__ = ["ErrorResponse", "Ruling"]


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


@dataclass(frozen=True, eq=False, repr=False)
class ErrorResponse(Model):
    """A flat error body as the service documents it; errors carry the same facts as attributes."""

    code: str
    message: str
    error: Optional[str] = None
    trace_id: Optional[str] = None
    details: Any = None
    extra: Mapping[str, Any] = extra_fields()
