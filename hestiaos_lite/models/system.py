"""The parts of the service, and its metrics."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Mapping, Optional

from ._base import Model, extra_fields

__all__ = ["SystemMetrics", "SystemStatus"]


@dataclass(frozen=True, eq=False, repr=False)
class SystemStatus(Model):
    """The service's status and which of its parts are up.

    Attributes:
        status: the service's word, as of `HealthResponse`.
        version: the service's own.
        uptime_seconds: since it was started.
        ollama, vllm, dsgk, storage: whether this part is up.
    """

    status: str
    version: Optional[str] = None
    uptime_seconds: Optional[float] = None
    ollama: Optional[bool] = None
    vllm: Optional[bool] = None
    dsgk: Optional[bool] = None
    storage: Optional[bool] = None
    extra: Mapping[str, Any] = extra_fields()


@dataclass(frozen=True, eq=False, repr=False)
class SystemMetrics(Model):
    """The service's metrics: the whole mapping, and the published ones as attributes too.

    Attributes:
        metrics: the whole mapping.
        cpu_percent, memory_percent: use of the service's host, 0 to 100.
        active_sessions: conversations that are open.
        requests_total: since it was started.
        avg_latency_ms: of its answers.
        gpu_percent, vram_percent: use of its accelerator, 0 to 100.
        vram_used_bytes, vram_total_bytes: memory of its accelerator.
    """

    metrics: Mapping[str, Any] = field(default_factory=dict)
    cpu_percent: Optional[float] = None
    memory_percent: Optional[float] = None
    active_sessions: Optional[float] = None
    requests_total: Optional[float] = None
    avg_latency_ms: Optional[float] = None
    gpu_percent: Optional[float] = None
    vram_percent: Optional[float] = None
    vram_used_bytes: Optional[float] = None
    vram_total_bytes: Optional[float] = None
    extra: Mapping[str, Any] = extra_fields()

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> SystemMetrics:
        """Build the model from the documented form ``{"metrics": {...}}`` or the published flat one."""
        if isinstance(body, Mapping) and not isinstance(body.get("metrics"), Mapping):
            body = {"metrics": body}
        if not isinstance(body, Mapping):
            return super().from_dict(body)
        metrics = body["metrics"]
        published = {
            name: metrics[name]
            for name, _, fits, _ in cls._spec()
            if name != "metrics" and name in metrics and fits(metrics[name])
        }
        return super().from_dict(dict(body, **published))
