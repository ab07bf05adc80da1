"""The health of the service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping, Optional

from ._base import Model, extra_fields

__all__ = ["HealthResponse"]


@dataclass(frozen=True, eq=False, repr=False)
class HealthResponse(Model):
    """The service's health.

    Attributes:
        status: the service's word; OK, ok, healthy, degraded and error have been seen.
        version: the service's own.
        uptime_seconds: since it was started.
        api_version: of the contract it speaks.
    """

    status: str
    version: Optional[str] = None
    uptime_seconds: Optional[float] = None
    api_version: Optional[str] = None
    extra: Mapping[str, Any] = extra_fields()

    @property
    def ok(self) -> bool:
        """True when the service reports itself ok or healthy, in any case; a degraded service is not ok."""
        return self.status.lower() in ("ok", "healthy")
