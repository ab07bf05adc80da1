"""What a user could do today instead, each as it is meant to be used and as fast as it goes."""

from __future__ import annotations

import json
from typing import Any, Callable, Dict, Iterator

BODY = {
    "input": "hi",
    "context": {"session_id": None, "agent_id": None, "mode_hint": None},
    "options": {"timeout_ms": 30000, "stream": True},
}
PATH = "/api/v1/run/stream"


def ours(url: str) -> int:
    from hestiaos_lite import Client

    with Client(url) as client:
        return sum(1 for _ in client.run_stream("hi"))


def sseclient_py(url: str) -> int:
    import requests
    import sseclient

    with requests.post(url + PATH, json=BODY, stream=True, timeout=30) as response:
        events = sseclient.SSEClient(
            response.iter_content(None)
        ).events()  # the whole chunk: its fastest source
        return _count(json.loads(event.data) for event in events)


def httpx_sse(url: str) -> int:
    import httpx
    from httpx_sse import connect_sse

    with httpx.Client() as client, connect_sse(client, "POST", url + PATH, json=BODY) as source:
        return _count(json.loads(event.data) for event in source.iter_sse())


def requests_sse(url: str) -> int:
    from requests_sse import EventSource

    with EventSource(url + PATH, method="POST", json=BODY, timeout=30) as source:
        return _count(json.loads(event.data) for event in source)


def published(url: str) -> int:
    from hestiaos import Client

    return sum(1 for _ in Client(base_url=url).run_stream("hi"))


def _count(objects: Iterator[Any]) -> int:
    count = 0
    for value in objects:
        count += 1
        if value["type"] == "done":
            break
    return count


PEERS: Dict[str, Callable[[str], int]] = {
    "sseclient-py": sseclient_py,
    "httpx-sse": httpx_sse,
    "requests-sse": requests_sse,
}
