"""The clients that the services publish, unmodified, against the sandbox: every call of both.

They need Python 3.11 and are no dependency: ``pip install -e '.[test,bench]'``, then
``pytest -m slow tests/sandbox/test_published.py``.
"""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from hestiaos_lite.sandbox import Sandbox

from ..sandbox_call import A

hestiaos = pytest.importorskip("hestiaos")
aegis_hitl = pytest.importorskip("aegis_hitl")

pytestmark = [
    pytest.mark.slow,
    # the published client leaves its connections to the collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

KEY = "a key"


@pytest.fixture(params=[None, KEY], ids=["no key", "key"])
def box(request: Any) -> Any:
    with Sandbox(api_key=request.param) as running:
        yield running
    gc.collect()


def key_of(box: Any) -> Any:
    return KEY if box._api_key else None


# -- hestiaos, synchronous: a client for each call, since one keeps connections of an event loop that has ended


def hestia(box: Any) -> Any:
    return hestiaos.Client(box.url, api_key=key_of(box))


ANSWERS = {
    "run": (
        lambda client: client.run("hello", session_id="s", agent_id="a", mode_hint="fast", timeout_ms=5000),
        lambda: hestiaos.RunResponse("ALLOW", "processed: hello", "ALLOW", 1.0, A(str), A(float)),
    ),
    "chat": (
        lambda client: client.chat("hello", session_id="s"),
        lambda: hestiaos.ChatResponse("processed: hello", "s", A(float), "sandbox", A(str)),
    ),
    "chat.run": (
        lambda client: client.chat.run("hello"),
        lambda: hestiaos.ChatResponse("processed: hello", A(str), A(float), "sandbox", A(str)),
    ),
    "chat.send": (
        lambda client: client.chat.send("hello"),
        lambda: hestiaos.ChatResponse("processed: hello", A(str), A(float), "sandbox", A(str)),
    ),
    "agents": (
        lambda client: client.agents("a-1", "count", {"depth": 2}),
        lambda: hestiaos.AgentResult("a-1", "COMPLETED", "processed: count", None, A(str)),
    ),
    "agents.run": (
        lambda client: client.agents.run("a-1", "count"),
        lambda: hestiaos.AgentResult("a-1", "COMPLETED", "processed: count", None, A(str)),
    ),
    "system.status": (
        lambda client: client.system.status(),
        lambda: hestiaos.SystemStatus("ok", False, False, True, True, "1.0.1", A(float)),
    ),
    "system.config": (lambda client: client.system.config()["service"], lambda: "hestiaos-sandbox"),
    "system.metrics": (
        lambda client: client.system.metrics(),
        lambda: hestiaos.SystemMetrics(A(float), A(float), 0, 1, A(float)),
    ),
    "governance.explain": (
        lambda client: client.governance.explain("SHELL", {"argv": ["rm", "-rf", "/"]})["decision"],
        lambda: "BLOCK",
    ),
    "governance.explain without input": (
        lambda client: client.governance.explain("WRITE")["decision"],
        lambda: "ALLOW",
    ),
    "governance.status": (lambda client: client.governance.status()["status"], lambda: "STABLE"),
    "governance.trace of nothing": (lambda client: client.governance.trace("none"), lambda: None),
    "run_stream": (
        lambda client: [(event.type, event.data.get("text")) for event in client.run_stream("hello")],
        lambda: [
            ("start", None),
            ("token", "processed:"),
            ("token", " hello"),
            ("final", None),
            ("done", None),
        ],
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_hestiaos(box: Any, name: str) -> None:
    call, expected = ANSWERS[name]
    assert call(hestia(box)) == expected()


def test_hestiaos_traces_and_blocks(box: Any) -> None:
    answer = hestia(box).run("hello")
    assert hestia(box).governance.trace(answer.trace_id)["trace_id"] == answer.trace_id
    with pytest.raises(hestiaos.GovernanceBlock) as caught:
        hestia(box).run("rm -rf /")
    assert hestia(box).governance.trace(caught.value.trace_id)["decision"] == "BLOCK"


def test_hestiaos_secrets(box: Any) -> None:
    hestia(box).secrets.set("db", "s3cret", provider="vault")
    assert (hestia(box).secrets.get("db"), hestia(box).secrets("db")) == ("s3cret", "s3cret")
    hestia(box).secrets.delete("db")
    with pytest.raises(Exception, match="404"):
        hestia(box).secrets.get("db")


def test_hestiaos_asynchronous_on_kept_connections(box: Any) -> None:
    async def calls() -> Any:
        async with hestiaos.AsyncClient(box.url, api_key=key_of(box)) as client:
            await client.secrets.set_async("db", "s3cret")
            run = await client.run_async("hello")
            return [
                run.result,
                (await client.governance.trace_async(run.trace_id))["decision"],
                (await client.chat.run_async("hello")).response,
                (await client.agents.run_async("a", "count")).status,
                (await client.system.status_async()).status,
                (await client.system.config_async())["service"],
                (await client.system.metrics_async()).requests_total,
                await client.secrets.get_async("db"),
                await client.secrets.delete_async("db"),
                (await client.governance.explain_async("WRITE"))["decision"],
                (await client.governance.status_async())["status"],
                [event.type async for event in client.run_stream("hello")],
            ]

    assert asyncio.run(calls()) == [
        "ALLOW",
        "ALLOW",
        "processed: hello",
        "COMPLETED",
        "ok",
        "hestiaos-sandbox",
        8,
        "s3cret",
        None,
        "ALLOW",
        "STABLE",
        ["start", "token", "token", "final", "done"],
    ]


# -- aegis-idempotency


def test_aegis(box: Any) -> None:
    async def calls() -> Any:
        identity = {"api_key": KEY} if key_of(box) else {"tenant_id": "acme"}
        async with aegis_hitl.AegisClient(box.url, thread_id="t-1", **identity) as client:
            answers = [
                await client.approve("k-1", payload={"amount": 3}),
                await client.reject("k-1"),
                await client.reject("k-2", thread_id="t-2"),
                await client.execute("approve", "k-3"),
            ]
            request_id = answers[0].json()["request_id"]
            answers.append(await client.get_status(request_id))
            if box._api_key:  # the published client looks without its key
                assert answers.pop().status_code == 401
            return [
                (answer.status_code, answer.json()["status"], answer.json()["action"]) for answer in answers
            ]

    expected = [
        (202, "PENDING", "approve"),
        (409, "COMMITTED", "approve"),
        (202, "PENDING", "reject"),
        (202, "PENDING", "approve"),
        (200, "COMMITTED", "approve"),
    ]
    assert asyncio.run(calls()) == expected[: 4 if box._api_key else 5]


def test_aegis_repeats_what_a_failing_server_refused(box: Any) -> None:
    async def call() -> Any:
        identity = {"api_key": KEY} if key_of(box) else {"tenant_id": "acme"}
        async with aegis_hitl.AegisClient(box.url, thread_id="t-1", **identity) as client:
            return await client.approve("k-1")

    box.fail_next(503)
    assert asyncio.run(call()).status_code == 202
    assert (len(box.actions()), box.requests_total) == (1, 2)
