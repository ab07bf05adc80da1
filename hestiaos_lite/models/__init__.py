"""The answers of both services as frozen dataclasses; each is loaded when it is first used.

Each has ``from_dict(mapping)`` and ``to_dict()``. An unknown field of the answer stays in ``extra`` (not in ``repr`` or
``==``). A required field that is missing or of the wrong type is ``InvalidResponse``; an optional one is None when absent,
and where its type is wrong it is None too and its value stays in ``extra``: an answer in hand is never thrown away for a
cosmetic fault. Values are never converted or limited to known ones (docs/contract.md: statuses and decisions are open).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, Mapping, Optional

from .._lazy import attach
from ..errors import ACCEPTED, GovernanceBlock, HestiaError

HOMES = {
    "aegis": "ActionResult ActionStatus Conclusion",
    "chat": "AgentResult ChatResponse",
    "event": "ErrorResponse StreamEvent",
    "governance": "Ruling TraceResponse",
    "run": "RunResponse",
    "system": "HealthResponse SystemMetrics SystemStatus",
}

if TYPE_CHECKING:
    from .aegis import *
    from .chat import *
    from .event import *
    from .governance import *
    from .run import *
    from .system import *
else:
    __getattr__, __dir__, __all__ = attach(__name__, HOMES)

_REFUSALS = frozenset({"BLOCK", "BLOCKED", "DENY", "DENIED", "REJECT", "REJECTED", "FAILED"})
_UNFINISHED = frozenset({"RUNNING", "PENDING", "QUEUED"})
# In which fields a word decides; in any other it is what the service made of the input.
_DECIDING = {"run": ("result", "mode", "decision"), "chat": ("result", "mode", "decision")}
_DECIDING["agent"] = ("status", "mode", "decision")


def is_refusal(word: object) -> bool:
    """True for a decision, mode or status of an answer that says no, in any case: BLOCK, DENIED, rejected, FAILED."""
    return isinstance(word, str) and word.strip().upper() in _REFUSALS


def objection(call: str, answer: Mapping[str, Any]) -> Optional[HestiaError]:
    """Return the error of a good answer whose content says no, or that the work is not done; else None.

    Args:
        call: ``run``, ``chat`` or ``agent``.
        answer: the model's `to_dict`, or the data of an event.
    """
    word = next((answer[name] for name in _DECIDING[call] if is_refusal(answer.get(name))), None)
    reason = next((answer[name] for name in ("error", "reason") if isinstance(answer.get(name), str)), "")
    trace_id, status = answer.get("trace_id"), answer.get("status")
    facts: Dict[str, Any] = {"trace_id": trace_id if isinstance(trace_id, str) else None, "delivered": True}
    if word is not None and word.strip().upper() != "FAILED":
        return GovernanceBlock(message=reason or "the service says {}".format(word), **facts)
    if word is not None or call == "agent" and answer.get("error"):
        message = reason or "the service says FAILED"
        if call == "agent":
            message = "the agent ended {}: {}".format(
                status or "with an error", reason or "it gives no reason"
            )
        return HestiaError("AGENT_FAILED", message, earlier_effect=ACCEPTED, **facts)
    if call == "agent" and isinstance(status, str) and status.strip().upper() in _UNFINISHED:
        message = "the agent is {}: the task was accepted and is not done; look it up by its trace id, do not send it again"
        return HestiaError("AGENT_UNFINISHED", message.format(status), **facts)
    return None
