"""Every error and every model travels between processes and comes out equal; a client, which holds a key, does not travel."""

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
    "trace_id": "t-1", "status": 503, "request_id": "r-1", "attempts": 3, "delivered": None, "retry_after": 1.5,
    "code": "CODE", "details": {"a": "s3cret"}, "advice": "go on",
}  # fmt: skip
ERRORS = {
    name: value
    for name, value in ((name, getattr(hestiaos_lite, name)) for name in hestiaos_lite.__all__)
    if isinstance(value, type) and issubclass(value, HestiaError)
}
# what any model needs, and more than it knows
WIRE = dict.fromkeys([
    "agent_id", "code", "decision", "idempotency_key", "message", "outcome", "request_id", "result", "status",
    "trace_id", "type",
], "x")  # fmt: skip
MODELS: Dict[str, Any] = {
    name: getattr(models, name).from_dict(
        dict(WIRE, data={"a": [1]}, metrics={"b": {"c": None}}, colour=["blue"])
    )
    for name in models.__all__
}
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def make(name: str) -> HestiaError:
    return ERRORS[name](message="what happened", **FACTS)


def facts_of(error: BaseException) -> Dict[str, Any]:
    return {name: value for name, value in vars(error).items() if name != "details"}


def raise_it(name: str) -> None:
    """Work for another process."""
    raise make(name) from ValueError("the cause")


def return_it(name: str) -> Any:
    """Work for another process."""
    return MODELS[name]


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_keeps_its_facts(name: str) -> None:
    error, bare = make(name), ERRORS[name]("CODE", "message") if name == "HestiaError" else ERRORS[name]()
    for protocol in PROTOCOLS:
        dumped = pickle.dumps(error, protocol)
        again = pickle.loads(dumped)
        assert type(again) is type(error)
        # what may quote a secret stays here
        assert (facts_of(again), again.details) == (facts_of(error), None)
        assert b"s3cret" not in dumped
        assert (str(again), repr(again), again.args) == (str(error), repr(error), error.args)
    for again in (pickle.loads(pickle.dumps(bare)), copy.copy(bare), copy.deepcopy(bare)):
        assert (type(again), facts_of(again), str(again)) == (type(bare), facts_of(bare), str(bare))


@pytest.mark.parametrize("name", MODELS)
def test_a_model_comes_out_equal(name: str) -> None:
    model = MODELS[name]
    for again in [pickle.loads(pickle.dumps(model, protocol)) for protocol in PROTOCOLS] + [
        copy.deepcopy(model)
    ]:
        assert again == model
        assert (repr(again), again.extra) == (repr(model), model.extra)
    assert model.extra["colour"] == ["blue"]


def test_through_a_process_pool() -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        raised = {name: pool.submit(raise_it, name) for name in ERRORS}
        returned = {name: pool.submit(return_it, name) for name in MODELS}
        for name, future in raised.items():
            error = future.exception(timeout=30)
            assert type(error) is ERRORS[name]
            assert (facts_of(error), error.details) == (facts_of(make(name)), None)
        assert {name: future.result(timeout=30) for name, future in returned.items()} == MODELS


def test_a_client_stays_in_its_process_used_or_not(box: Sandbox) -> None:
    with Client(box.url) as client, AegisClient(box.url, tenant_id="a", thread_id="b") as aegis:
        for _ in range(2):
            for one in (client, aegis, client.run, client.chat):
                for protocol in PROTOCOLS:
                    with pytest.raises(TypeError, match="a client cannot be sent to another process"):
                        pickle.dumps(one, protocol)
            client.health()
            aegis.approve("key")
