"""hestiaos_lite: the synchronous client for HestiaOS and AEGIS that a cron job can trust.

    from hestiaos_lite import Client

    with Client() as client:
        print(client.run("create a report").text)

The names below are the whole public surface; each is loaded when it is first used, so that a script pays only for what it
needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, List

from ._version import __version__ as __version__

_HOMES = {
    "aegis.client": "AegisClient",
    "aegis.keys": "idempotency_key",
    "aegis.outbox": "FlushReport Outbox",
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
    from .aegis.keys import *
    from .aegis.outbox import *
    from .batch import *
    from .client import *
    from .errors import *
    from .models import *
    from .stream import *
else:
    _HOME_OF = {name: module for module, names in _HOMES.items() for name in names.split()}
    __all__ = ["__version__", *_HOME_OF]

    def __getattr__(name: str) -> Any:
        """Load a public name from its module when it is first used (PEP 562)."""
        if name not in _HOME_OF:
            raise AttributeError("module {!r} has no attribute {!r}".format(__name__, name))
        value = getattr(importlib.import_module("." + _HOME_OF[name], __name__), name)
        globals()[name] = value
        return value

    def __dir__() -> List[str]:
        return sorted({*globals(), *__all__})
