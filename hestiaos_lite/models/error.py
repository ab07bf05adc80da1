"""A flat error body, for scripts that read one themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping, Optional

from ._base import Model, extra_fields

__all__ = ["ErrorResponse"]


@dataclass(frozen=True, eq=False, repr=False)
class ErrorResponse(Model):
    """A flat error body as the service documents it; errors carry the same facts as attributes.

    Attributes:
        code: short name of what is wrong.
        message: in words.
        error: the code's other name.
        trace_id: names the run in ``client.trace``.
        details: whatever the service added.
    """

    code: str
    message: str
    error: Optional[str] = None
    trace_id: Optional[str] = None
    details: Any = None
    extra: Mapping[str, Any] = extra_fields()
