"""What the service says of itself: its health, its parts, its metrics."""

from __future__ import annotations

from dataclasses import field
from typing import Any, Mapping, Optional

from ._base import NUMBER, Model, answer, fits


@answer
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
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """True when the service reports itself ok or healthy, in any case; a degraded service is not ok."""
        return self.status.lower() in ("ok", "healthy")


@answer
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
    extra: Mapping[str, Any] = field(default_factory=dict)


@answer
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
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> SystemMetrics:
        """Build the model from the documented form ``{"metrics": {...}}`` or the published flat one."""
        if isinstance(body, Mapping):
            metrics, rest = (
                (body["metrics"], body) if isinstance(body.get("metrics"), Mapping) else (body, {})
            )
            numbers = {name: metrics[name] for name in cls._fields if fits(metrics.get(name), NUMBER)}
            body = {**rest, **numbers, "metrics": metrics}
        return super().from_dict(body)
