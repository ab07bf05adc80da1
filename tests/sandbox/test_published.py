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


@pytest.fixture(params=[None, "a key"], ids=["no key", "key"])
def key(request: Any) -> Any:
    return request.param


@pytest.fixture
def box(key: Any) -> Any:
    with Sandbox(api_key=key) as running:
        yield running
    gc.collect()


@pytest.fixture
def hestia(box: Any, key: Any) -> Any:
    """Makes a synchronous client for each call, since one keeps connections of an event loop that has ended."""
    return lambda: hestiaos.Client(box.url, api_key=key)


OUTPUT = "processed: hello"
TOKENS = [("start", None), ("token", "processed:"), ("token", " hello"), ("final", None), ("done", None)]
RM = {"argv": ["rm", "-rf", "/"]}

# fmt: off
ANSWERS = [
    # call, what it gives
    (lambda client: client.run("hello", session_id="s", agent_id="a", mode_hint="fast", timeout_ms=5000),
     lambda: hestiaos.RunResponse("ALLOW", OUTPUT, "ALLOW", 1.0, A(str), A(float))),
    (lambda client: client.chat("hello", session_id="s"), lambda: hestiaos.ChatResponse(OUTPUT, "s", A(float), "sandbox", A(str))),
    (lambda client: client.chat.run("hello"), lambda: hestiaos.ChatResponse(OUTPUT, A(str), A(float), "sandbox", A(str))),
    (lambda client: client.chat.send("hello"), lambda: hestiaos.ChatResponse(OUTPUT, A(str), A(float), "sandbox", A(str))),
    (lambda client: client.agents("a-1", "hello", {"depth": 2}), lambda: hestiaos.AgentResult("a-1", "COMPLETED", OUTPUT, None, A(str))),
    (lambda client: client.agents.run("a-1", "hello"), lambda: hestiaos.AgentResult("a-1", "COMPLETED", OUTPUT, None, A(str))),
    (lambda client: client.system.status(), lambda: hestiaos.SystemStatus("ok", False, False, True, True, "1.0.1", A(float))),
    (lambda client: client.system.config()["service"], lambda: "hestiaos-sandbox"),
    (lambda client: client.system.metrics(), lambda: hestiaos.SystemMetrics(A(float), A(float), 0, 1, A(float))),
    (lambda client: client.governance.explain("SHELL", RM)["decision"], lambda: "BLOCK"),
    (lambda client: client.governance.explain("WRITE")["decision"], lambda: "ALLOW"),
    (lambda client: client.governance.status()["status"], lambda: "STABLE"),
    (lambda client: client.governance.trace("none"), lambda: None),
    (lambda client: [(event.type, event.data.get("text")) for event in client.run_stream("hello")], lambda: TOKENS),
]
# fmt: on


@pytest.mark.parametrize(("call", "expected"), ANSWERS)
def test_hestiaos(hestia: Any, call: Any, expected: Any) -> None:
    assert call(hestia()) == expected()


def test_hestiaos_traces_and_blocks(hestia: Any) -> None:
    answer = hestia().run("hello")
    assert hestia().governance.trace(answer.trace_id)["trace_id"] == answer.trace_id
    with pytest.raises(hestiaos.GovernanceBlock) as caught:
        hestia().run("rm -rf /")
    assert hestia().governance.trace(caught.value.trace_id)["decision"] == "BLOCK"


def test_hestiaos_secrets(hestia: Any) -> None:
    hestia().secrets.set("db", "s3cret", provider="vault")
    assert (hestia().secrets.get("db"), hestia().secrets("db")) == ("s3cret", "s3cret")
    hestia().secrets.delete("db")
    with pytest.raises(Exception, match="404"):
        hestia().secrets.get("db")


def test_hestiaos_asynchronous_on_kept_connections(box: Any, key: Any) -> None:
    # fmt: off
    async def calls() -> Any:
        async with hestiaos.AsyncClient(box.url, api_key=key) as client:
            run = await client.run_async("hello")
            return [
                (run.result, "ALLOW"),
                ((await client.governance.trace_async(run.trace_id))["decision"], "ALLOW"),
                ((await client.chat.run_async("hello")).response, OUTPUT),
                ((await client.agents.run_async("a", "count")).status, "COMPLETED"),
                ((await client.system.status_async()).status, "ok"),
                ((await client.system.config_async())["service"], "hestiaos-sandbox"),
                ((await client.system.metrics_async()).requests_total, 7),
                (await client.secrets.set_async("db", "s3cret"), None),
                (await client.secrets.get_async("db"), "s3cret"),
                (await client.secrets.delete_async("db"), None),
                ((await client.governance.explain_async("WRITE"))["decision"], "ALLOW"),
                ((await client.governance.status_async())["status"], "STABLE"),
                (tuple([event.type async for event in client.run_stream("hello")]), ("start", "token", "token", "final", "done")),
            ]
    # fmt: on

    seen, expected = zip(*asyncio.run(calls()))
    assert seen == expected


# -- aegis-idempotency


def test_aegis(box: Any, key: Any) -> None:
    async def calls() -> Any:
        identity = {"api_key": key} if key else {"tenant_id": "acme"}
        async with aegis_hitl.AegisClient(box.url, thread_id="t-1", **identity) as client:
            answers = [
                await client.approve("k-1", payload={"amount": 3}),
                await client.reject("k-1"),
                await client.reject("k-2", thread_id="t-2"),
                await client.execute("approve", "k-3"),
            ]
            looked = await client.get_status(answers[0].json()["request_id"])
            assert looked.status_code == (401 if key else 200)  # it looks without its key
            return [(one.status_code, one.json()["status"], one.json()["action"]) for one in answers]

    pending = [(202, "PENDING", action) for action in ("approve", "reject", "approve")]
    assert asyncio.run(calls()) == pending[:1] + [(409, "COMMITTED", "approve")] + pending[1:]


def test_aegis_repeats_what_a_failing_server_refused(box: Any, key: Any) -> None:
    async def call() -> Any:
        identity = {"api_key": key} if key else {"tenant_id": "acme"}
        async with aegis_hitl.AegisClient(box.url, thread_id="t-1", **identity) as client:
            return await client.approve("k-1")

    box.fail_next(503)
    assert asyncio.run(call()).status_code == 202
    assert (len(box.actions()), box.requests_total) == (1, 2)
