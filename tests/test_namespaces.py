"""governance.require: what may run is decided by one function, and everything that is not known to be an ALLOW raises."""

from __future__ import annotations

import json
from typing import Any, Dict

import pytest

from hestiaos_lite import Client, GovernanceBlock, InvalidResponse, Ruling, errors
from hestiaos_lite.namespaces import ruling_of

from .faultserver import FaultServer, answer, error_of, ok, served

DECIDED = [
    ({"decision": "ALLOW"}, "ALLOW"),
    ({"decision": "allow"}, "ALLOW"),
    ({"decision": " Allow\n"}, "ALLOW"),
    ({"decision": "THROTTLE"}, "THROTTLE"),
    ({"decision": "block"}, "BLOCK"),
    ({"decision": "DENY"}, "DENY"),
    ({"decision": "Rejected"}, "REJECTED"),
    ({"decision": "FAILED"}, "FAILED"),
    ({"result": "ALLOW"}, "ALLOW"),
    ({"mode": "throttle"}, "THROTTLE"),
    ({"result": "three files", "mode": "ALLOW"}, "ALLOW"),
    ({"decision": "ALLOW", "result": None, "mode": 5}, "ALLOW"),
    ({"decision": "ALLOW", "mode": "audit"}, "ALLOW"),
    ({"decision": "ALLOW", "result": "BLOCK"}, "BLOCK"),
    ({"decision": "ALLOW", "mode": "denied"}, "DENIED"),
    ({"decision": "THROTTLE", "result": "ALLOW"}, "THROTTLE"),
    ({"decision": "ALLOW", "result": "THROTTLE"}, "THROTTLE"),
    ({"decision": "THROTTLE", "result": "BLOCK", "mode": "ALLOW"}, "BLOCK"),
]
UNDECIDED = [
    {},
    {"decision": ""},
    {"decision": None},
    {"decision": None, "result": "ALLOW"},
    {"decision": True},
    {"decision": ["ALLOW"]},
    {"decision": {"decision": "ALLOW"}},
    {"decision": "ALLOWED?"},
    {"decision": "MAYBE", "result": "ALLOW", "mode": "ALLOW"},
    {"decision": "MAYBE", "result": "BLOCK"},
    {"result": "done", "mode": None},
    {"allowed": True},
    {"DECISION": "ALLOW"},
]


@pytest.mark.parametrize(("body", "word"), DECIDED, ids=[json.dumps(body) for body, _ in DECIDED])
def test_the_strictest_known_word_decides(body: Dict[str, Any], word: str) -> None:
    assert ruling_of(body).decision == word
    with FaultServer(answer(ok(body))) as server, Client(server.url) as client:
        if word == "ALLOW":
            assert client.governance.require("shell") == Ruling("ALLOW")
            return
        with pytest.raises(GovernanceBlock) as caught:
            client.governance.require("shell", {"argv": ["x"]})
        error = caught.value
        assert str(error).startswith("[{}] governance says {} (".format(error.code, word))
        assert (error.status, error.delivered, error.effect, error.attempts) == (200, True, "none", 1)
        assert error.details == body
        assert error.request_id is not None
        if word == "THROTTLE":
            assert (error.code, error.exit_code) == ("GOVERNANCE_THROTTLE", 75)
            assert client.governance.require("shell", allow_throttle=True).decision == "THROTTLE"
        else:
            assert (error.code, error.exit_code) == ("GOVERNANCE_BLOCK", 1)
            with pytest.raises(GovernanceBlock):
                client.governance.require("shell", allow_throttle=True)


@pytest.mark.parametrize("body", [*UNDECIDED, [], "ALLOW", None, 5], ids=json.dumps)
def test_what_is_no_known_decision_is_no_allow(body: Any) -> None:
    known = isinstance(body, dict)
    body = dict(body, trace_id="t-1") if known else body
    with served(answer(ok(body))) as (client, _):
        error = error_of(lambda: client.governance.require("shell", allow_throttle=True))
    facts = (type(error), error.trace_id, error.details, error.status, error.exit_code)
    assert facts == (InvalidResponse, "t-1" if known else None, body, 200, 76)
    assert error.message.startswith("governance names ") == known


def test_a_ruling_keeps_what_the_service_said(box: Any) -> None:
    with Client(box.url) as client:
        ruling = client.governance.require("shell", {"argv": ["ls", "-l"]})
        assert (ruling.decision, ruling.policy, ruling.budget) == ("ALLOW", "default-allow", 1.0)
        assert ruling.extra["severity"] == "none"
        with pytest.raises(GovernanceBlock) as caught:
            client.governance.require("shell", {"argv": ["rm", "-rf", "/"]})
    assert caught.value.message == "governance says BLOCK: deletes files by force"
    body = {"command_type": "shell", "command_input": {"argv": ["ls", "-l"]}}
    assert [request.json for request in box.requests][0] == body


@pytest.mark.parametrize(("status", "cls"), [
    (401, errors.AuthenticationError),
    (403, errors.PermissionDenied),
    (404, errors.NotFound),
    (422, errors.InvalidInput),
    (429, errors.RateLimited),
    (500, errors.ServerError),
    (503, errors.ServerError),
])  # fmt: skip
def test_it_raises_what_explain_raises(box: Any, status: int, cls: Any) -> None:
    with Client(box.url, retries=0) as client:
        for ask in (client.governance.explain, client.governance.require):
            box.fail_next(status)
            with pytest.raises(cls) as caught:
                ask("shell")
            assert type(caught.value) is cls
