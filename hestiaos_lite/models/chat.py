"""What a chat message and an agent's task give."""

from __future__ import annotations

from dataclasses import field
from typing import Any, Mapping, Optional

from ._base import Model, answer


@answer
class ChatResponse(Model):
    """The answer to one chat message.

    Attributes:
        result: the answer's text (published form: ``response``).
        session_id: the conversation it belongs to.
        trace_id: names the run in ``client.trace``.
        model: which model answered.
        processing_time: seconds, as the service measured.
    """

    _aliases = {"result": "response"}

    result: str
    session_id: Optional[str] = None
    trace_id: Optional[str] = None
    model: Optional[str] = None
    processing_time: Optional[float] = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The answer's text, as `RunResponse.text`."""
        return self.result

    @property
    def response(self) -> str:
        """``result`` under its published name."""
        return self.result


@answer
class AgentResult(Model):
    """What an agent made of a task.

    Attributes:
        agent_id: who did it.
        result: what came of it (published form: ``output``).
        trace_id: names the run in ``client.trace``.
        status: RUNNING, COMPLETED, FAILED and BLOCKED have been seen.
        error: why it failed, in the service's words.
    """

    _aliases = {"result": "output"}

    agent_id: str
    result: Optional[str] = None
    trace_id: Optional[str] = None
    status: Optional[str] = None
    error: Optional[str] = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The produced text, as `RunResponse.text`; ``""`` where there is none."""
        return self.result or ""

    @property
    def output(self) -> Optional[str]:
        """``result`` under its published name."""
        return self.result
