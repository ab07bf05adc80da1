"""From method and path to a handler; 404 and 405 are decided here, in FastAPI's words."""

from __future__ import annotations

import re
from typing import Any, Callable, Dict, Iterable, Pattern, Tuple
from urllib.parse import unquote

from .messages import Refusal, Reply, Request

Handler = Callable[..., Reply]
Route = Tuple[str, str, Handler]
"""Method, path pattern (``"/api/v1/trace/{trace_id}"``), handler; a ``{name}`` is one segment."""


class Router:
    """A table of routes; a handler gets the request, and the decoded segments as keywords."""

    def __init__(self, routes: Iterable[Route]) -> None:
        by_pattern: Dict[str, Dict[str, Handler]] = {}
        for method, pattern, handler in routes:
            by_pattern.setdefault(pattern, {})[method] = handler
        self._table: Dict[Pattern[str], Dict[str, Handler]] = {
            re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", pattern)): handlers
            for pattern, handlers in by_pattern.items()
        }

    def dispatch(self, request: Request) -> Reply:
        """Answer a request. Raises Refusal: 404 unknown path, 405 wrong method, or the handler's own."""
        for pattern, handlers in self._table.items():
            found = pattern.fullmatch(request.path)
            if found is None:
                continue
            handler = handlers.get(request.method)
            if handler is None:
                allowed = ", ".join(sorted(handlers))
                raise Refusal(Reply(405, {"detail": "Method Not Allowed"}, headers={"Allow": allowed}))
            return handler(request, **_decoded(found.groupdict()))
        raise Refusal(Reply(404, {"detail": "Not Found"}))


def _decoded(segments: Dict[str, Any]) -> Dict[str, Any]:
    # Decoded after they were told apart: "team%2F..%2Fadmin" is one segment, and ".." is a name like any other.
    try:
        return {name: unquote(segment, errors="strict") for name, segment in segments.items()}
    except UnicodeDecodeError:
        raise Refusal(Reply(400, {"detail": "the path is not UTF-8"})) from None
