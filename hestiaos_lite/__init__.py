"""hestiaos_lite: the synchronous client for HestiaOS and AEGIS that a cron job can trust.

    from hestiaos_lite import Client

    with Client() as client:
        print(client.run("create a report").text)

The names below are the whole public surface; each is loaded when it is first used, so that a script pays only for what it
needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._lazy import attach
from ._version import __version__ as __version__

_HOMES = {
    "aegis.client": "AegisClient",
    "aegis.keys": "idempotency_key",
    "aegis.delivery": "FlushReport",
    "aegis.outbox": "Outbox",
    "batch": "BatchResult run_batch",
    "client": "Client",
    "errors": """
        AuthenticationError Conflict ConnectionFailed GovernanceBlock HestiaError IdempotencyConflict InvalidInput
        InvalidResponse NotFound PermissionDenied RateLimited RequestTimeout ServerError StreamInterrupted
    """,
    "models": """
        ActionResult ActionStatus AgentResult ChatResponse Conclusion ErrorResponse HealthResponse Ruling RunResponse
        StreamEvent SystemMetrics SystemStatus TraceResponse
    """,
    "stream": """
        EventStream is_delta_event is_done_event is_error_event is_final_event is_start_event is_token_event
        is_tool_call_event
    """,
}

if TYPE_CHECKING:  # a checker follows imports, and would take __getattr__ for a promise of any name
    from .aegis.client import *
    from .aegis.delivery import *
    from .aegis.keys import *
    from .aegis.outbox import *
    from .batch import *
    from .client import *
    from .errors import *
    from .models import *
    from .stream import *
else:
    __getattr__, __dir__, __all__ = attach(__name__, _HOMES)
    __all__ = ["__version__", *__all__]
