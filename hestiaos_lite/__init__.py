"""hestiaos_lite: the synchronous client for HestiaOS and AEGIS that a cron job can trust.

    from hestiaos_lite import Client

    with Client() as client:
        print(client.run("create a report").text)

The names below are the whole public surface; they are loaded when first used, so that a script pays only for what it needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, List

from ._version import __version__

if TYPE_CHECKING:
    from .aegis.client import AegisClient as AegisClient
    from .aegis.keys import idempotency_key as idempotency_key
    from .aegis.outbox import FlushReport as FlushReport
    from .aegis.outbox import Outbox as Outbox
    from .batch import BatchResult as BatchResult
    from .batch import run_batch as run_batch
    from .client import Client as Client
    from .errors import (
        AuthenticationError as AuthenticationError,
    )
    from .errors import (
        Conflict as Conflict,
    )
    from .errors import (
        ConnectionFailed as ConnectionFailed,
    )
    from .errors import (
        GovernanceBlock as GovernanceBlock,
    )
    from .errors import (
        HestiaError as HestiaError,
    )
    from .errors import (
        IdempotencyConflict as IdempotencyConflict,
    )
    from .errors import (
        InvalidInput as InvalidInput,
    )
    from .errors import (
        InvalidResponse as InvalidResponse,
    )
    from .errors import (
        NotFound as NotFound,
    )
    from .errors import (
        PermissionDenied as PermissionDenied,
    )
    from .errors import (
        RateLimited as RateLimited,
    )
    from .errors import (
        RequestTimeout as RequestTimeout,
    )
    from .errors import (
        ServerError as ServerError,
    )
    from .errors import (
        StreamInterrupted as StreamInterrupted,
    )
    from .models import (
        ActionResult as ActionResult,
    )
    from .models import (
        ActionStatus as ActionStatus,
    )
    from .models import (
        AgentResult as AgentResult,
    )
    from .models import (
        ChatResponse as ChatResponse,
    )
    from .models import (
        ErrorResponse as ErrorResponse,
    )
    from .models import (
        HealthResponse as HealthResponse,
    )
    from .models import (
        RunResponse as RunResponse,
    )
    from .models import (
        StreamEvent as StreamEvent,
    )
    from .models import (
        SystemMetrics as SystemMetrics,
    )
    from .models import (
        SystemStatus as SystemStatus,
    )
    from .models import (
        TraceResponse as TraceResponse,
    )
    from .stream import (
        EventStream as EventStream,
    )
    from .stream import (
        is_delta_event as is_delta_event,
    )
    from .stream import (
        is_done_event as is_done_event,
    )
    from .stream import (
        is_error_event as is_error_event,
    )
    from .stream import (
        is_final_event as is_final_event,
    )
    from .stream import (
        is_start_event as is_start_event,
    )
    from .stream import (
        is_token_event as is_token_event,
    )
    from .stream import (
        is_tool_call_event as is_tool_call_event,
    )

_HOME = {
    "aegis.keys": ("idempotency_key",),
    "aegis.client": ("AegisClient",),
    "batch": ("BatchResult", "run_batch"),
    "client": ("Client",),
    "errors": (
        "AuthenticationError",
        "Conflict",
        "ConnectionFailed",
        "GovernanceBlock",
        "HestiaError",
        "IdempotencyConflict",
        "InvalidInput",
        "InvalidResponse",
        "NotFound",
        "PermissionDenied",
        "RateLimited",
        "RequestTimeout",
        "ServerError",
        "StreamInterrupted",
    ),
    "models": (
        "ActionResult",
        "ActionStatus",
        "AgentResult",
        "ChatResponse",
        "ErrorResponse",
        "HealthResponse",
        "RunResponse",
        "StreamEvent",
        "SystemMetrics",
        "SystemStatus",
        "TraceResponse",
    ),
    "aegis.outbox": ("FlushReport", "Outbox"),
    "stream": (
        "EventStream",
        "is_delta_event",
        "is_done_event",
        "is_error_event",
        "is_final_event",
        "is_start_event",
        "is_token_event",
        "is_tool_call_event",
    ),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = sorted(_MODULE_OF) + ["__version__"]


if not TYPE_CHECKING:  # a checker knows the names from above, and would take this for a promise of any other

    def __getattr__(name: str) -> Any:
        """Load a public name from its module when it is first used (PEP 562)."""
        if name not in _MODULE_OF:
            raise AttributeError("module {!r} has no attribute {!r}".format(__name__, name))
        value = getattr(importlib.import_module("." + _MODULE_OF[name], __name__), name)
        globals()[name] = value
        return value


def __dir__() -> List[str]:
    return sorted(set(globals()) | set(__all__))
