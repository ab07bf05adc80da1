"""What runs in a batch's worker: one row, one call. Everything that goes in or comes out is plain and pickles.

A worker of another process or machine builds its client from a factory, once per process, so that the API key comes from
that process's own environment and is never pickled.
"""

from __future__ import annotations

import os
import time
from typing import Any, Callable, Dict, Mapping, NoReturn, Optional, Tuple

from ..errors import GovernanceBlock, HestiaError, InvalidInput
from .rows import AGENT_FAILED

_CALLS: Mapping[str, Callable[[Any], Callable[..., Any]]] = {
    "run": lambda client: client.run,
    "chat": lambda client: client.chat.run,
    "agent": lambda client: client.agents.run,
}

# (process id, factory's key) -> client. A forked child finds its parent's entries and, by the process id, not its own.
_clients: Dict[Tuple[int, bytes], Any] = {}


class Lent:
    """A factory that always gives the one client it holds: for workers that are threads of this process."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __call__(self) -> Any:
        return self._client

    def __reduce__(self) -> NoReturn:
        raise InvalidInput(
            "a Client cannot leave its process, its key and connections would travel with it: give run_batch a factory"
            " instead, a module-level function that returns one (or the class Client itself)"
        )


def work(
    factory: Callable[[], Any], key: bytes, call: str, arguments: Dict[str, Any], sending: int
) -> Dict[str, Any]:
    """Send one row and return what became of it, as a plain dict.

    Args:
        factory: gives the client.
        key: names the factory among those of this process; empty when it is not to be cached.
        call: ``run``, ``chat`` or ``agent``.
        arguments: of the call.
        sending: counts the sendings of this row, so that an executor that caches by arguments (dask with ``pure=True``)
            takes no earlier answer for this one.

    Returns:
        ``response`` (dict or None), ``error`` (dict or None), ``attempts``, ``seconds`` and ``retry_after``. Both response
        and error where a good answer's content says no.
    """
    started = time.perf_counter()
    answer: Dict[str, Any] = {"response": None, "error": None, "attempts": 1, "retry_after": None}
    try:
        answer["response"] = _CALLS[call](_client(factory, key))(**arguments).to_dict()
        answer["error"] = _no_in_a_good_answer(call, answer["response"])
    except HestiaError as error:
        answer["error"] = error_facts(error)
        answer["attempts"] = error.attempts
        answer["retry_after"] = error.retry_after
    answer["seconds"] = time.perf_counter() - started
    return answer


def _no_in_a_good_answer(call: str, response: Mapping[str, Any]) -> Optional[Dict[str, Any]]:
    """The facts of a 2xx whose content says no: a decision BLOCK, an agent that failed; None where it says yes."""
    trace_id = response.get("trace_id")
    said: Optional[HestiaError] = None
    if call == "run" and "BLOCK" in (response["result"], response["mode"]):
        said = GovernanceBlock(trace_id, "the service says BLOCK", delivered=True)
    elif call == "agent" and response["status"] == "BLOCKED":
        said = GovernanceBlock(trace_id, response["error"] or "", delivered=True)
    elif call == "agent" and (response["status"] == "FAILED" or response["error"]):
        said = HestiaError(AGENT_FAILED, response["error"] or "the agent failed", trace_id, delivered=True)
    return None if said is None else error_facts(said)


def error_facts(error: HestiaError) -> Dict[str, Any]:
    """An error as it stands in a result line."""
    return {
        "class": type(error).__name__,
        "code": error.code,
        "message": error.message,
        "status": error.status,
        "trace_id": error.trace_id,
        "delivered": error.delivered,
    }


def build_client(factory: Callable[[], Any]) -> Any:
    """Call a factory; whatever it raises becomes an InvalidInput, since nothing was sent and every row would meet it."""
    try:
        return factory()
    except HestiaError:
        raise
    except Exception as error:  # a caller's function may raise anything
        raise InvalidInput(
            "the client factory failed: {}: {}".format(type(error).__name__, error), code="CONFIGURATION"
        ) from error


def _client(factory: Callable[[], Any], key: bytes) -> Any:
    if not key:
        return factory()
    entry = (os.getpid(), key)
    if entry not in _clients:
        # Two threads may both build one; setdefault lets the first win, and needs no lock that a fork could leave held.
        _clients.setdefault(entry, build_client(factory))
    return _clients[entry]
