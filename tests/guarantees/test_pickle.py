"""Every error and every model travels between processes and comes out equal."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Dict

import pytest

import hestiaos_lite
from hestiaos_lite import AegisClient, Client, models
from hestiaos_lite.errors import HestiaError
from hestiaos_lite.sandbox import Sandbox

FACTS: Dict[str, Any] = {
    "status": 503,
    "request_id": "r-1",
    "attempts": 3,
    "delivered": None,
    "retry_after": 1.5,
    "code": "CODE",
    "details": {"a": 1},
}
ERRORS = {
    name: value
    for name, value in ((name, getattr(hestiaos_lite, name)) for name in hestiaos_lite.__all__)
    if isinstance(value, type) and issubclass(value, HestiaError)
}
WIRE: Dict[str, Dict[str, Any]] = {
    "ActionStatus": {"request_id": "r", "status": "COMMITTED", "action": "approve", "data": {"a": [1]}},
    "AgentResult": {"agent_id": "a", "output": "done", "status": "COMPLETED", "colour": "blue"},
    "ChatResponse": {"response": "hello", "session_id": "s", "model": "m", "processing_time": 0.5},
    "ErrorResponse": {"code": "C", "message": "m", "details": [1, {"b": None}]},
    "Conclusion": {"idempotency_key": "k", "outcome": "expired", "request_id": "r", "attempts": 2},
    "HealthResponse": {"status": "ok", "version": "1", "uptime_seconds": 5},
    "Ruling": {"decision": "ALLOW", "reason": "r", "risk_score": 0.5},
    "RunResponse": {
        "result": "ALLOW",
        "trace_id": "t",
        "output": "o",
        "budget": 1,
        "colour": {"deep": ["blue"]},
    },
    "StreamEvent": {"type": "token", "data": {"text": "x"}, "trace_id": "t", "timestamp": "now"},
    "SystemMetrics": {"metrics": {"cpu_percent": 5.0, "other": {"a": 1}}},
    "SystemStatus": {"status": "ok", "ollama": True, "storage": False},
    "TraceResponse": {
        "trace_id": "t",
        "decision": "BLOCK",
        "violations": [{"reason": "r", "severity": "HIGH"}],
    },
}
MODELS: Dict[str, Any] = {name: getattr(models, name).from_dict(wire) for name, wire in WIRE.items()}
MODELS["ActionResult"] = models.ActionResult(202, "key", "r", 2, {"a": 1})


def make(name: str) -> HestiaError:
    facts = dict(FACTS)
    if name == "HestiaError":
        return HestiaError(facts.pop("code"), "what happened", "t-1", **facts)
    return ERRORS[name](message="what happened", trace_id="t-1", **facts)


def raise_it(name: str) -> None:
    """Work for another process."""
    raise make(name) from ValueError("the cause")


def return_it(name: str) -> Any:
    """Work for another process."""
    return MODELS[name]


def test_nothing_is_left_out() -> None:
    assert set(MODELS) == set(models.__all__)
    assert len(ERRORS) == 14


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", ERRORS)
def test_an_error_keeps_its_facts(name: str, protocol: int) -> None:
    error = make(name)
    again = pickle.loads(pickle.dumps(error, protocol))
    assert type(again) is type(error)
    assert vars(again) == dict(vars(error), details=None)  # what may quote a secret stays in its process
    assert (str(again), repr(again), again.args) == (str(error), repr(error), error.args)
    assert isinstance(again, TimeoutError) == (name == "RequestTimeout")


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_as_it_is_made_by_hand(name: str) -> None:
    error = ERRORS[name]("CODE", "message") if name == "HestiaError" else ERRORS[name]()
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert (type(again), vars(again), str(again)) == (type(error), vars(error), str(error))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", MODELS)
def test_a_model_comes_out_equal(name: str, protocol: int) -> None:
    model = MODELS[name]
    again = pickle.loads(pickle.dumps(model, protocol))
    assert again == model
    assert (repr(again), getattr(again, "extra", None)) == (repr(model), getattr(model, "extra", None))
    assert copy.deepcopy(model) == model


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods()[:2])
def test_through_a_process_pool(method: str) -> None:
    if method == "fork":
        method = "forkserver"  # this process has threads, and a newer Python warns of forking it
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as pool:
        raised = {name: pool.submit(raise_it, name) for name in ERRORS}
        returned = {name: pool.submit(return_it, name) for name in MODELS}
        for name, future in raised.items():
            error = future.exception(timeout=30)
            assert type(error) is ERRORS[name]
            assert vars(error) == dict(vars(make(name)), details=None)
        assert {name: future.result(timeout=30) for name, future in returned.items()} == MODELS


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_client_stays_in_its_process_used_or_not(protocol: int, box: Sandbox) -> None:
    with Client(box.url) as client, AegisClient(box.url, tenant_id="a", thread_id="b") as aegis:
        for _ in range(2):
            for one in (client, aegis, client.run, client.chat):
                with pytest.raises(TypeError, match="a client cannot leave its process"):
                    pickle.dumps(one, protocol)
            client.health()
            aegis.approve("key")
