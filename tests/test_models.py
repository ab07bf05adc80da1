"""models.py: what the wire brings, as whole values."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import json
from typing import Any

import pytest

from hestiaos_lite import models
from hestiaos_lite.errors import InvalidResponse
from hestiaos_lite.models import (
    ActionResult,
    ActionStatus,
    AgentResult,
    ChatResponse,
    Conclusion,
    ErrorResponse,
    HealthResponse,
    Ruling,
    RunResponse,
    StreamEvent,
    SystemMetrics,
    SystemStatus,
    TraceResponse,
)

PUBLISHED_METRICS = {
    "cpu_percent": 1.5, "memory_percent": 2, "active_sessions": 3, "requests_total": 4, "avg_latency_ms": 5.5,
    "gpu_percent": 6, "vram_percent": 7, "vram_used_bytes": 8, "vram_total_bytes": 9,
}  # fmt: skip
VIOLATION = {"reason": "destroys", "severity": "critical"}

# What the wire may say and the model it must give: the full form, the smallest one, and both forms where there are two.
# fmt: off
ANSWERS = {
    "run, published": ({"result": "ALLOW", "output": "hi", "mode": "ALLOW", "budget": 1.0, "trace_id": "t",
        "latency_ms": 3}, RunResponse("ALLOW", "t", "hi", "ALLOW", 1.0, 3)),
    "run, documented": ({"result": "hi", "trace_id": "t", "mode": "ALLOW"}, RunResponse("hi", "t", None, "ALLOW")),
    "run, empty output": ({"result": "ALLOW", "trace_id": "t", "output": ""}, RunResponse("ALLOW", "t", "")),
    "run, nulls": ({"result": "", "trace_id": "", "output": None, "mode": None, "budget": None,
        "latency_ms": None}, RunResponse("", "")),
    "event": ({"type": "token", "data": {"text": "a"}, "trace_id": "t", "timestamp": "2026"},
        StreamEvent("token", {"text": "a"}, "t", "2026")),
    "event, smallest": ({"type": "future"}, StreamEvent("future", {}, "", "")),
    "event, nulls": ({"type": "x", "data": None, "trace_id": None, "timestamp": None}, StreamEvent("x", {}, "", "")),
    "trace": ({"trace_id": "t", "decision": "BLOCK", "violations": [VIOLATION], "latency_ms": 1, "reason": "r",
        "risk_score": 1.0, "policy": "p", "mode": "BLOCK", "budget": 0, "timestamp": "2026"}, TraceResponse("t", "BLOCK", (VIOLATION,), 1, "r", 1.0, "p", "BLOCK", 0, "2026")),
    "trace, smallest": ({"trace_id": "t", "decision": "NEW"}, TraceResponse("t", "NEW", ())),
    "health": ({"status": "OK", "version": "1", "uptime_seconds": 2, "api_version": "v1"},
        HealthResponse("OK", "1", 2, "v1")),
    "health, smallest": ({"status": "degraded"}, HealthResponse("degraded")),
    "chat, documented": ({"result": "hi", "session_id": "s", "trace_id": "t"}, ChatResponse("hi", "s", "t")),
    "chat, published": ({"response": "hi", "session_id": "s", "processing_time": 0.5, "model": "m"},
        ChatResponse("hi", "s", None, "m", 0.5)),
    "chat, one form null": ({"result": None, "response": "hi"}, ChatResponse("hi")),
    "agent, documented": ({"result": "done", "agent_id": "a", "trace_id": "t"}, AgentResult("a", "done", "t")),
    "agent, published": ({"agent_id": "a", "status": "COMPLETED", "output": "done", "error": None,
        "trace_id": "t"}, AgentResult("a", "done", "t", "COMPLETED")),
    "agent, one form null": ({"agent_id": "a", "result": None, "output": "x"}, AgentResult("a", "x")),
    "agent, failed": ({"agent_id": "a", "status": "FAILED", "error": "no"}, AgentResult("a", status="FAILED", error="no")),
    "status, documented": ({"status": "ok", "version": "1", "uptime_seconds": 5}, SystemStatus("ok", "1", 5)),
    "status, published": ({"status": "ok", "ollama": True, "vllm": False, "dsgk": True, "storage": False},
        SystemStatus("ok", None, None, True, False, True, False)),
    "metrics, documented": ({"metrics": {"x": {"y": 1}}}, SystemMetrics({"x": {"y": 1}})),
    "metrics, documented with published names": ({"metrics": PUBLISHED_METRICS},
        SystemMetrics(PUBLISHED_METRICS, 1.5, 2, 3, 4, 5.5, 6, 7, 8, 9)),
    "metrics, published": (PUBLISHED_METRICS, SystemMetrics(PUBLISHED_METRICS, 1.5, 2, 3, 4, 5.5, 6, 7, 8, 9)),
    "metrics, none": ({}, SystemMetrics({})),
    "error": ({"code": "X", "message": "m", "error": "e", "trace_id": "t", "details": {"a": [1]}},
        ErrorResponse("X", "m", "e", "t", {"a": [1]})),
    "error, smallest": ({"code": "X", "message": "m"}, ErrorResponse("X", "m")),
    "action status": ({"request_id": "r", "status": "PENDING", "action": "approve", "data": {"a": 1}},
        ActionStatus("r", "PENDING", "approve", {"a": 1})),
    "action result": ({"idempotency_key": "k", "request_id": "r", "status_code": 202, "attempts": 2,
        "data": {"a": 1}}, ActionResult("k", "r", 202, 2, {"a": 1})),
    "action result, queued": ({"idempotency_key": "k", "request_id": "r"}, ActionResult("k", "r", None, 0, {})),
    "action result, not confirmed": ({"idempotency_key": "k", "request_id": "r", "status_code": 409,
        "confirmed": False}, ActionResult("k", "r", 409, confirmed=False)),
    "conclusion": ({"idempotency_key": "k", "outcome": "approved", "request_id": "r", "status": "COMMITTED",
        "attempts": 1}, Conclusion("k", "approved", "r", "COMMITTED", 1)),
    "ruling": ({"decision": "ALLOW", "reason": "r", "policy": "p", "trace_id": "t", "risk_score": 0.5,
        "budget": 1}, Ruling("ALLOW", "r", "p", "t", 0.5, 1)),
    "ruling, smallest": ({"decision": "ALLOW"}, Ruling("ALLOW")),
}
# fmt: on
MODELS = [getattr(models, name) for name in models.__all__]


@pytest.mark.parametrize(("body", "expected"), ANSWERS.values(), ids=ANSWERS.keys())
def test_what_the_wire_says_is_the_model_and_the_model_is_what_it_says(body, expected):
    before = copy.deepcopy(body)
    model = type(expected).from_dict(body)
    assert (model, model.extra) == (expected, {})
    assert body == before, "the caller's mapping was changed"
    assert type(expected).from_dict(json.loads(json.dumps(expected.to_dict()))) == expected
    with pytest.raises(dataclasses.FrozenInstanceError):
        expected.extra = {}
    if isinstance(expected, SystemMetrics) and not isinstance(body.get("metrics"), dict):
        return  # in the flat form every field is a metric
    more = type(expected).from_dict(dict(body, future={"a": [1]}, vendor=None))
    unknown = {"future": {"a": [1]}, "vendor": None}
    assert (more, repr(more), more.extra) == (expected, repr(expected), unknown)
    assert more.to_dict() == dict(expected.to_dict(), future={"a": [1]}, vendor=None)


def test_to_dict_names_every_field_and_absent_ones_as_none():
    absent = dict.fromkeys(("output", "mode", "budget", "latency_ms"))
    assert RunResponse("ALLOW", "t").to_dict() == dict({"result": "ALLOW", "trace_id": "t"}, **absent)
    assert TraceResponse("t", "BLOCK", (VIOLATION,)).to_dict()["violations"] == [VIOLATION]
    assert StreamEvent("done").to_dict() == {"type": "done", "data": {}, "trace_id": "", "timestamp": ""}
    assert ActionResult("k", "r", 409).to_dict() == {
        "idempotency_key": "k", "request_id": "r", "status_code": 409, "attempts": 0, "data": {}, "confirmed": True,
        "accepted": False, "duplicate": True, "queued": False, "settled": True,
    }  # fmt: skip


REQUIRED = {
    RunResponse: ("result", "trace_id"),
    StreamEvent: ("type",),
    TraceResponse: ("trace_id", "decision"),
    HealthResponse: ("status",),
    ChatResponse: ("result",),
    AgentResult: ("agent_id",),
    SystemStatus: ("status",),
    SystemMetrics: (),
    ErrorResponse: ("code", "message"),
    ActionResult: ("idempotency_key", "request_id"),
    ActionStatus: ("request_id", "status"),
    Conclusion: ("idempotency_key", "outcome"),
    Ruling: ("decision",),
}


def test_every_model_is_in_the_table_of_required_fields():
    assert set(REQUIRED) == set(MODELS)
    for model, names in REQUIRED.items():
        found = [
            field.name
            for field in dataclasses.fields(model)
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        ]
        assert tuple(found) == names


NO_STRINGS = {
    "is null": None, "is a number": 5, "is a boolean": True, "is a list": ["x"], "is an object": {"x": 1}, "is missing": ...,
}  # fmt: skip
NO_OBJECTS = {"null": None, "a list": [], "a string": "x", "a number": 1.5, "a boolean": True}


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_a_required_field_is_refused_by_name_and_what_is_no_object_altogether(model):
    for name in REQUIRED[model]:
        for words, value in NO_STRINGS.items():
            body = dict.fromkeys(REQUIRED[model], "x")
            body.update({"trace_id": "t1", name: value} if name != "trace_id" else {name: value})
            if value is Ellipsis:
                del body[name]
            with pytest.raises(InvalidResponse) as caught:
                model.from_dict(body)
            wanted = "" if value is Ellipsis else ", not a string"
            fault = "{}: required field {!r} {}{}".format(model.__name__, name, words, wanted)
            assert (caught.value.message, caught.value.details) == (fault, body)
            assert caught.value.trace_id == (None if name == "trace_id" else "t1")
    for words, body in NO_OBJECTS.items():
        with pytest.raises(InvalidResponse) as caught:
            model.from_dict(body)
        assert caught.value.message == "expected a JSON object for {}, got {}".format(model.__name__, words)
        assert caught.value.details == body


OF_A_WRONG_TYPE = [
    (RunResponse, {"result": "r", "trace_id": "t"}, {"output": 5, "mode": [], "budget": "1", "latency_ms": True}),
    (StreamEvent, {"type": "token"}, {"data": "text", "trace_id": 7, "timestamp": 1700000000}),
    (TraceResponse, {"trace_id": "t", "decision": "d"}, {"violations": {"a": 1}, "latency_ms": "3", "policy": 1}),
    (HealthResponse, {"status": "ok"}, {"version": 1, "uptime_seconds": "5", "api_version": []}),
    (ChatResponse, {"result": "r"}, {"session_id": 4, "processing_time": "x", "model": {}}),
    (AgentResult, {"agent_id": "a"}, {"result": {"text": "x"}, "status": 1, "error": ["e"]}),
    (SystemStatus, {"status": "ok"}, {"ollama": "yes", "vllm": 1, "storage": {"up": True}}),
    (SystemMetrics, {"metrics": {"cpu_percent": "x"}}, {"gpu_percent": "y"}),
    (ErrorResponse, {"code": "c", "message": "m"}, {"error": 1, "trace_id": 2}),
    (ActionStatus, {"request_id": "r", "status": "s"}, {"action": 1, "data": "x"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("model", "good", "bad"), OF_A_WRONG_TYPE, ids=[row[0].__name__ for row in OF_A_WRONG_TYPE]
)
def test_an_optional_field_of_the_wrong_type_does_not_cost_the_answer(model, good, bad):
    answer = model.from_dict(dict(good, **bad))
    assert answer == model.from_dict(good)
    assert answer.extra == bad
    assert answer.to_dict() == dict(model.from_dict(good).to_dict(), **bad)


def test_integers_and_floats_are_interchangeable_and_kept_as_they_are():
    answer = RunResponse.from_dict({"result": "r", "trace_id": "t", "budget": 1, "latency_ms": 2.5})
    assert (answer.budget, type(answer.budget), answer.latency_ms) == (1, int, 2.5)


@pytest.mark.parametrize(("model", "name", "expected"), [
    (RunResponse("ALLOW", "t", "out"), "text", "out"),
    (RunResponse("ALLOW", "t", ""), "text", ""),
    (RunResponse("produced", "t"), "text", "produced"),
    (ChatResponse("hi"), "response", "hi"),
    (AgentResult("a", "done"), "output", "done"),
    (AgentResult("a"), "output", None),
    (HealthResponse("OK"), "ok", True),
    (HealthResponse("ok"), "ok", True),
    (HealthResponse("Healthy"), "ok", True),
    (HealthResponse("degraded"), "ok", False),
    (HealthResponse("error"), "ok", False),
    (HealthResponse(""), "ok", False),
    (StreamEvent("token", {"text": "a"}), "text", "a"),
    (StreamEvent("token", {"token": "a"}), "text", "a"),
    (StreamEvent("delta", {"delta": "a"}), "text", "a"),
    (StreamEvent("delta", {"content": "a"}), "text", "a"),
    (StreamEvent("token", {"text": 5}), "text", ""),
    (StreamEvent("token"), "text", ""),
    (StreamEvent("final", {"text": "a"}), "text", ""),
    (ActionStatus("r", "PENDING"), "done", False),
    (ActionStatus("r", "COMMITTED"), "done", True),
    (ActionStatus("r", "COMMITTED"), "committed", True),
    (ActionStatus("r", "FAILED"), "done", True),
    (ActionStatus("r", "FAILED"), "committed", False),
    (ActionStatus("r", "COMMITTED", "approve"), "approved", True),
    (ActionStatus("r", "PENDING", "approve"), "approved", False),
    (ActionStatus("r", "FAILED", "approve"), "approved", False),
    (ActionStatus("r", "COMMITTED"), "approved", False),
    (ActionStatus("r", "COMMITTED", "reject"), "approved", False),
    (ActionStatus("r", "COMMITTED", "approved"), "approved", False),
    (ActionStatus("r", "COMMITTED", "Approve"), "approved", False),
    (Conclusion("k", "approved"), "approved", True),
    (Conclusion("k", "pending"), "approved", False),
    (ChatResponse("hi"), "text", "hi"),
    (AgentResult("a", "done"), "text", "done"),
    (AgentResult("a"), "text", ""),
], ids=lambda value: None if isinstance(value, str) else repr(value)[:60])  # fmt: skip
def test_properties(model: Any, name, expected):
    assert getattr(model, name) == expected


def test_an_action_result_says_what_its_status_means():
    words = ("accepted", "duplicate", "queued", "settled")
    for status_code, meant in (
        (202, "accepted settled"),
        (200, "accepted settled"),
        (409, "duplicate settled"),
        (None, "queued"),
    ):
        result = ActionResult("k", "r", status_code)
        assert [word for word in words if getattr(result, word)] == meant.split()
        assert {word: result.to_dict()[word] for word in words} == {
            word: word in meant.split() for word in words
        }


@pytest.mark.parametrize(("words", "expected"), [
    (("BLOCK", "blocked", "Deny", "DENIED", "reject", "REJECTED", "failed", " BLOCK\n"), True),
    (("ALLOW", "THROTTLE", "COMPLETED", "OK", "", "BLOCKS", None, True, 0, ["BLOCK"]), False),
])  # fmt: skip
def test_words_that_say_no(words, expected):
    assert [models.is_refusal(word) for word in words] == [expected] * len(words)


def test_models_are_what_dataclasses_are_to_their_users():
    answer = RunResponse("ALLOW", "t", "hi", extra={"more": 1})
    assert dataclasses.is_dataclass(answer)
    assert repr(answer) == (
        "RunResponse(result='ALLOW', trace_id='t', output='hi', mode=None, budget=None, latency_ms=None)"
    )
    assert dataclasses.replace(answer, output="ho") == RunResponse("ALLOW", "t", "ho")
    assert dataclasses.asdict(answer)["extra"] == {"more": 1}
    assert answer == RunResponse("ALLOW", "t", "hi")
    assert hash(answer) == hash(RunResponse("ALLOW", "t", "hi"))
    assert answer != RunResponse("ALLOW", "t", "ho")
    assert ChatResponse("x") != HealthResponse("x")
    assert (answer == "ALLOW") is False
    with pytest.raises(dataclasses.FrozenInstanceError):
        del answer.output
    names = [item.name for item in dataclasses.fields(answer)]
    assert list(inspect.signature(RunResponse).parameters) == names


def test_no_two_models_share_a_default_mapping():
    first, second = StreamEvent("a"), StreamEvent("b")
    assert first.data is not second.data
    assert first.extra is not second.extra
