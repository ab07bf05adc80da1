"""From method and path to a handler: 404 and 405 are decided here, in FastAPI's words."""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterable, List, Optional, Tuple
from urllib.parse import unquote

from .messages import Refusal, Reply, Request

Handler = Callable[..., Reply]
Route = Tuple[str, str, Handler]
"""Method, path pattern (``"/api/v1/trace/{trace_id}"``), handler; a ``{name}`` is one segment."""


class Router:
    """A table of routes; a handler gets the request, and the decoded segments as keywords."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._fixed: Dict[str, Dict[str, Handler]] = {}
        self._patterns: List[Tuple[List[str], Dict[str, Handler]]] = []
        for method, pattern, handler in routes:
            if "{" not in pattern:
                self._fixed.setdefault(pattern, {})[method] = handler
                continue
            segments = pattern.split("/")
            for known, handlers in self._patterns:
                if known == segments:
                    handlers[method] = handler
                    break
            else:
                self._patterns.append((segments, {method: handler}))

    def dispatch(self, request: Request) -> Reply:
        """Answer a request. Raises Refusal: 404 unknown path, 405 wrong method, or the handler's own."""
        handlers, arguments = self._find(request.path)
        if handlers is None:
            raise Refusal(Reply(404, {"detail": "Not Found"}))
        handler = handlers.get(request.method)
        if handler is None:
            allowed = ", ".join(sorted(handlers))
            raise Refusal(Reply(405, {"detail": "Method Not Allowed"}, headers={"Allow": allowed}))
        return handler(request, **arguments)

    def _find(self, path: str) -> Tuple[Optional[Dict[str, Handler]], Dict[str, Any]]:
        if path in self._fixed:
            return self._fixed[path], {}
        # Split before decoding: "team%2F..%2Fadmin" is one segment, and ".." is a name like any other.
        try:
            segments = [unquote(segment, errors="strict") for segment in path.split("/")]
        except UnicodeDecodeError:
            raise Refusal(Reply(400, {"detail": "the path is not UTF-8"})) from None
        for pattern, handlers in self._patterns:
            if len(pattern) == len(segments):
                arguments = {}
                for expected, found in zip(pattern, segments):
                    if expected[:1] == "{" and found:
                        arguments[expected[1:-1]] = found
                    elif expected != found:
                        break
                else:
                    return handlers, arguments
        return None, {}
