"""The answers of both services as frozen dataclasses; each is loaded when it is first used.

Each has ``from_dict(mapping)`` and ``to_dict()``. An unknown field of the answer stays in ``extra`` (not in ``repr`` or
``==``). A required field that is missing or of the wrong type is ``InvalidResponse``; an optional one is None when absent,
and where its type is wrong it is None too and its value stays in ``extra``: an answer in hand is never thrown away for a
cosmetic fault. Values are never converted or limited to known ones (docs/contract.md: statuses and decisions are open).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import attach

_HOMES = {
    "aegis": "ActionResult ActionStatus Conclusion",
    "chat": "AgentResult ChatResponse",
    "error": "ErrorResponse",
    "event": "StreamEvent",
    "governance": "Ruling TraceResponse",
    "health": "HealthResponse",
    "run": "RunResponse",
    "system": "SystemMetrics SystemStatus",
}

if TYPE_CHECKING:
    from .aegis import *
    from .chat import *
    from .error import *
    from .event import *
    from .governance import *
    from .health import *
    from .run import *
    from .system import *
else:
    __getattr__, __dir__, __all__ = attach(__name__, _HOMES)

_REFUSALS = frozenset({"BLOCK", "BLOCKED", "DENY", "DENIED", "REJECT", "REJECTED", "FAILED"})


def is_refusal(word: object) -> bool:
    """True for a decision, mode or status of an answer that says no, in any case: BLOCK, DENIED, rejected, FAILED."""
    return isinstance(word, str) and word.strip().upper() in _REFUSALS
