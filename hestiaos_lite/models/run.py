"""The answer to a run."""

from __future__ import annotations

from dataclasses import field
from typing import Any, Mapping, Optional

from ._base import Model, answer


@answer
class RunResponse(Model):
    """The answer to ``run``.

    Attributes:
        result: the governance decision (published form) or the produced text (documented form); never limited.
        trace_id: names the run in ``client.trace``; contract-critical.
        output: the produced text, in the published form.
        mode: the mode or decision the run was executed under.
        budget: share of the budget granted, as the service counts it.
        latency_ms: milliseconds the service took.
    """

    result: str
    trace_id: str
    output: Optional[str] = None
    mode: Optional[str] = None
    budget: Optional[float] = None
    latency_ms: Optional[float] = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The produced text, whichever of the two wire forms brought it."""
        return self.result if self.output is None else self.output
