"""The public surface is a contract: names, order of parameters and defaults, as API.md lists them."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys

import pytest

import hestiaos_lite

NAMES = """
    Client EventStream AegisClient Outbox FlushReport idempotency_key run_batch BatchResult
    RunResponse StreamEvent TraceResponse HealthResponse ChatResponse AgentResult SystemStatus SystemMetrics ErrorResponse
    ActionResult ActionStatus Conclusion Ruling
    is_start_event is_token_event is_delta_event is_tool_call_event is_final_event is_error_event is_done_event
    HestiaError GovernanceBlock PermissionDenied AuthenticationError InvalidInput NotFound Conflict RateLimited ServerError
    ConnectionFailed RequestTimeout InvalidResponse StreamInterrupted IdempotencyConflict
    __version__
"""

PUBLIC = NAMES.split()

# API.md, word for word, but for the annotations; what goes beyond it may only be named, never placed.
SIGNATURES = {
    "Client": (
        "(base_url=None, api_key=None, timeout=30.0, retries=3, *, "
        "headers=None, session=None, verify=None, profile=None, max_body_bytes=8388608)"
    ),
    "Client.run": "(input, session_id=None, agent_id=None, mode_hint=None, timeout_ms=30000, stream=False)",
    "Client.run_stream": "(input, session_id=None, agent_id=None, mode_hint=None, timeout_ms=30000, timeout=None)",
    "Client.health": "()",
    "Client.trace": "(trace_id)",
    "Client.close": "()",
    "client.chat": "(message, session_id=None)",
    "client.chat.run": "(message, session_id=None)",
    "client.chat.send": "(message, session_id=None)",
    "client.agents": "(agent_id, task, config=None)",
    "client.agents.run": "(agent_id, task, config=None)",
    "client.system.status": "()",
    "client.system.config": "()",
    "client.system.metrics": "()",
    "client.secrets": "(key)",
    "client.secrets.get": "(key)",
    "client.secrets.set": "(key, value, provider='custom')",
    "client.secrets.delete": "(key)",
    "client.governance.explain": "(command_type, command_input=None)",
    "client.governance.status": "()",
    "client.governance.trace": "(command_id)",
    "EventStream.close": "()",
    "EventStream.cancel": "()",
    "AegisClient": (
        "(base_url=None, *, api_key=None, tenant_id=None, thread_id=None, timeout=10.0, max_retries=3, "
        "api_prefix='/api/v1', session=None, outbox=None, verify=None, profile=None, max_body_bytes=8388608)"
    ),
    "AegisClient.approve": "(idempotency_key, *, tenant_id=None, thread_id=None, payload=None)",
    "AegisClient.reject": "(idempotency_key, *, tenant_id=None, thread_id=None, payload=None)",
    "AegisClient.execute": "(action, idempotency_key, *, tenant_id=None, thread_id=None, payload=None)",
    "AegisClient.get_status": "(request_id)",
    "AegisClient.wait": "(request_id, *, timeout, poll=1.0)",
    "AegisClient.flush": "()",
    "idempotency_key": "(*parts, **fields)",
    "Outbox": "(path, *, lease_seconds=60.0, keep_days=30.0, busy_seconds=10.0, clock=<built-in function time>)",
    "GovernanceBlock": "(trace_id=None, ...)",
    "HestiaError": "(code, message, trace_id=None, ...)",
    "InvalidInput": "(message='', trace_id=None, details=None, ...)",
    "NotFound": "(message='', trace_id=None, ...)",
    "StreamEvent.from_raw": "(raw)",
    "RunResponse.from_dict": "(body)",
    "RunResponse.to_dict": "()",
    "is_done_event": "(event)",
}
MODEL_FIELDS = {
    "RunResponse": "result trace_id output mode budget latency_ms extra",
    "StreamEvent": "type data trace_id timestamp extra",
    "TraceResponse": (
        "trace_id decision violations latency_ms reason risk_score policy mode budget timestamp extra"
    ),
    "HealthResponse": "status version uptime_seconds api_version extra",
    "ChatResponse": "result session_id trace_id model processing_time extra",
    "AgentResult": "agent_id result trace_id status error extra",
    "SystemStatus": "status version uptime_seconds ollama vllm dsgk storage extra",
    "SystemMetrics": (
        "metrics cpu_percent memory_percent active_sessions requests_total avg_latency_ms gpu_percent vram_percent "
        "vram_used_bytes vram_total_bytes extra"
    ),
    "ErrorResponse": "code message error trace_id details extra",
    "ActionResult": "idempotency_key request_id status_code attempts data confirmed extra",
    "ActionStatus": "request_id status action data extra",
    "Conclusion": "idempotency_key outcome request_id status attempts extra",
    "Ruling": "decision reason policy trace_id risk_score budget extra",
}


def find(path):
    """The callable a line of the table names: a class, a class's method, or a method of a client at hand."""
    head, *rest = path.split(".")
    found = hestiaos_lite.Client() if head == "client" else getattr(hestiaos_lite, head)
    is_class = inspect.isclass(found)
    for name in rest:
        found = getattr(found, name)
    return found, is_class and bool(rest)


def bare_signature(path):
    """The signature without annotations and without the self of a method that is not bound."""
    function, of_class = find(path)
    parameters = list(inspect.signature(function).parameters.values())
    if of_class and parameters and parameters[0].name == "self":
        parameters = parameters[1:]
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters]
    return str(inspect.Signature(bare))


@pytest.mark.parametrize(("path", "signature"), SIGNATURES.items(), ids=SIGNATURES.keys())
def test_signature(path, signature):
    found = bare_signature(path)
    if signature.endswith(", ...)"):
        assert found.startswith(signature[: -len("...)")])
    else:
        assert found == signature


def test_the_names_are_exactly_these():
    assert sorted(hestiaos_lite.__all__) == sorted(PUBLIC)
    assert len(set(PUBLIC)) == len(PUBLIC)


def test_type_checkers_and_star_imports_see_the_same_names():
    for module, names in hestiaos_lite._HOMES.items():
        home = importlib.import_module("hestiaos_lite." + module)
        assert sorted(home.__all__) == sorted(names.split())
    everything = {}
    exec("from hestiaos_lite import *", everything)
    assert set(PUBLIC) <= set(everything)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_name_loads_and_says_what_it_is(name):
    value = getattr(hestiaos_lite, name)
    assert name in dir(hestiaos_lite)
    if name != "__version__":
        assert value.__name__ == name
        assert value.__doc__


def test_every_public_method_has_a_docstring():
    for path in SIGNATURES:
        function, _ = find(path)
        assert function.__doc__, path


@pytest.mark.parametrize(("name", "fields"), MODEL_FIELDS.items(), ids=MODEL_FIELDS.keys())
def test_the_fields_of_a_model_and_their_order(name, fields):
    assert list(getattr(hestiaos_lite, name).__dataclass_fields__) == fields.split()


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'hestiaos_lite' has no attribute 'AsyncClient'"):
        hestiaos_lite.AsyncClient  # noqa: B018 - the look-up is the test


@pytest.mark.parametrize(
    ("name", "says", "kind"),
    [
        (kind + "_event", kind[3:], kind)
        for kind in ("is_start", "is_token", "is_delta", "is_tool_call", "is_final", "is_error", "is_done")
    ],
)
def test_the_seven_questions(name, says, kind):
    ask = getattr(hestiaos_lite, name)
    kinds = ["start", "token", "delta", "tool_call", "final", "error", "done", "future", ""]
    assert [word for word in kinds if ask(hestiaos_lite.StreamEvent(word))] == [says]


def loaded_by(statement):
    """The modules a fresh interpreter has loaded after a statement."""
    code = statement + "; import sys; print(' '.join(sorted(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True, timeout=60)
    return set(result.stdout.decode("ascii").split())


def ours(modules):
    return {name for name in modules if name.partition(".")[0] == "hestiaos_lite"}


def test_importing_the_package_loads_next_to_nothing():
    loaded = loaded_by("import hestiaos_lite")
    assert ours(loaded) == {"hestiaos_lite", "hestiaos_lite._lazy", "hestiaos_lite._version"}
    assert not loaded & {"asyncio", "requests", "urllib3", "sseclient", "sqlite3", "ssl", "json"}


@pytest.mark.parametrize(("name", "modules"), [
    ("RunResponse", {"errors", "_redact", "models", "models._base", "models.run"}),
    ("HestiaError", {"errors", "_redact"}),
    ("Outbox", {"errors", "_redact", "_check", "deadline", "aegis", "aegis.outbox", "aegis.rows"}),
    ("idempotency_key", {"aegis", "aegis.keys"}),
])  # fmt: skip
def test_a_name_loads_only_what_it_stands_on(name, modules):
    loaded = loaded_by("from hestiaos_lite import " + name)
    assert ours(loaded) == {"hestiaos_lite", "hestiaos_lite._lazy", "hestiaos_lite._version"} | {
        "hestiaos_lite." + module for module in modules
    }
    assert not loaded & {"asyncio", "requests"}


def test_the_client_loads_no_outbox_no_batch_and_no_event_loop_of_ours():
    loaded = loaded_by("from hestiaos_lite import Client; Client()")
    assert "hestiaos_lite.client" in loaded
    assert not loaded & {"hestiaos_lite." + name for name in ("aegis", "batch", "cli", "sandbox")}
    # what requests and urllib3 load is theirs; that it is not asyncio keeps the start fast
    assert "asyncio" not in loaded


def test_the_package_is_quiet_until_logging_is_switched_on():
    code = "import logging; from hestiaos_lite import Client; logging.getLogger('hestiaos_lite').warning('heard')"
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert (result.stdout, result.stderr) == (b"", b"")
