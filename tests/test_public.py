"""The public surface is a contract: the names, what each loads, and the signatures that docs/reference.md does not list."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import hestiaos_lite

from .markdown import check_signature

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

# Beside those of docs/reference.md, which test_docs.py compares with the code.
SIGNATURES = {
    "client.chat": "(message, session_id=None)",
    "client.chat.send": "(message, session_id=None)",
    "client.agents": "(agent_id, task, config=None)",
    "client.secrets": "(key)",
    "EventStream.close": "()",
    "EventStream.cancel": "()",
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


def test_the_signatures_are_these():
    for path, signature in SIGNATURES.items():
        check_signature(path, signature)


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


def test_every_name_loads_and_says_what_it_is():
    assert set(PUBLIC) <= set(dir(hestiaos_lite))
    values = {name: getattr(hestiaos_lite, name) for name in PUBLIC if name != "__version__"}
    assert [name for name, value in values.items() if value.__name__ != name or not value.__doc__] == []


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'hestiaos_lite' has no attribute 'AsyncClient'"):
        hestiaos_lite.AsyncClient  # noqa: B018 - the look-up is the test


def test_the_seven_questions():
    kinds = ["start", "token", "delta", "tool_call", "final", "error", "done"]
    for kind in kinds:
        ask = getattr(hestiaos_lite, "is_{}_event".format(kind))
        assert [word for word in [*kinds, "future", ""] if ask(hestiaos_lite.StreamEvent(word))] == [kind]


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
    ("Outbox", {"errors", "_redact", "_check", "_json", "deadline", "aegis", "aegis.outbox", "aegis.rows"}),
    ("idempotency_key", {"aegis", "aegis.keys"}),
])  # fmt: skip
def test_a_name_loads_only_what_it_stands_on(name, modules):
    loaded = loaded_by("from hestiaos_lite import " + name)
    modules = modules | {"_lazy", "_version"}
    assert ours(loaded) == {"hestiaos_lite"} | {"hestiaos_lite." + module for module in modules}
    assert not loaded & {"asyncio", "requests"}


def test_the_client_loads_no_outbox_no_batch_and_no_event_loop_of_ours():
    loaded = loaded_by("from hestiaos_lite import Client; Client()")
    assert "hestiaos_lite.client" in loaded
    assert not loaded & {"hestiaos_lite." + name for name in ("aegis", "batch", "cli", "sandbox")}
    # what requests and urllib3 load is theirs; that it is not asyncio keeps the start fast
    assert "asyncio" not in loaded


def test_the_package_is_quiet_until_logging_is_switched_on():
    code = "import logging; from hestiaos_lite import Client; logging.getLogger('hestiaos_lite').warning('heard')"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60)
    assert (result.stdout, result.stderr) == (b"", b"")
