"""How a result is printed: JSON that is JSON, one field of it, and what to do with numbers that are none."""

from __future__ import annotations

from typing import Any, Dict, Tuple

import pytest

from ..cli_call import DONE, Called, call, stream_of, token
from ..faultserver import FaultServer, answer, ok, reply


def test_json_has_null_for_what_is_no_number() -> None:
    numbers = b'{"a": NaN, "b": [Infinity, -Infinity, 1.5], "c": 1' + 400 * b"0" + b', "d": "\xc3\xa4"}'
    with FaultServer(answer(reply(200, numbers))) as server:
        shown = '{"a": null, "b": [null, null, 1.5], "c": 1' + 400 * "0" + ', "d": "ä"}\n'
        assert call("config", "-j", "-u", server.url) == Called(0, shown, "")
        lines = "a  null\nb  [null, null, 1.5]\nc  1" + 400 * "0" + "\nd  ä\n"
        assert call("config", "-u", server.url) == Called(0, lines, "")


DOCUMENT = {
    "a": "text", "n": 0, "no": False, "none": None, "list": [{"x": 1}], "deep": {"er": {"y": "z"}}, "p.q": 7,
}  # fmt: skip
FIELDS: Dict[str, Any] = {  # by its path what is printed, or None where the document has no such field
    "a": "text", "n": "0", "no": "false", "deep": '{"er": {"y": "z"}}', "deep.er.y": "z", "list.0.x": "1", "p.q": "7",
    "deep.": '{"er": {"y": "z"}}', "none": None, "b": None, "a.b": None, "list.1": None, "list.x": None, "list.-1": None,
}  # fmt: skip


def test_one_field_and_nothing_else_or_76() -> None:
    with FaultServer(answer(ok(DOCUMENT))) as server:
        for path, shown in FIELDS.items():
            called = call("config", "--get", path, "-u", server.url)
            missing = "hestiaos-lite: the result has no field {!r}; --json shows what it has\n".format(path)
            assert called == (Called(76, "", missing) if shown is None else Called(0, shown + "\n", ""))


def test_the_field_names_what_to_ask_for_next(box: Any) -> None:
    def got(*argv: str) -> str:
        called = call(*argv, "-u", box.url)
        assert (called.code, called.err) == (0, "")
        return called.out[:-1]

    assert got("--get", "output", "run", "x") == "processed: x"
    assert got("trace", got("run", "x", "--get", "trace_id"), "--get", "decision") == "ALLOW"
    approve = ("hitl", "approve", "k", "--tenant", "t", "--thread", "th", "--get")
    assert got("hitl", "status", got(*approve, "request_id"), "--get", "status") == "COMMITTED"


def test_a_failure_keeps_its_own_code_and_form(box: Any) -> None:
    called = call("run", "rm -rf /", "--get", "trace_id", "-u", box.url)
    assert (called.code, called.out) == (1, "")
    assert called.err.startswith("hestiaos-lite: [GOVERNANCE_BLOCK]")
    as_json = call("run", "rm -rf /", "--get", "trace_id", "-j", "-u", box.url)
    assert as_json.error["code"] == "GOVERNANCE_BLOCK"
    with FaultServer(answer(ok({"status": "degraded"}))) as server:
        assert call("health", "--get", "version", "-u", server.url).code == 1


def test_of_a_stream_the_field_of_each_event_that_has_it() -> None:
    with FaultServer(answer(stream_of(token("one"), token(" two"), DONE))) as server:
        called = call("run", "x", "--stream", "--get", "data.text", "-u", server.url)
        assert called == Called(0, "one\n two\n", "")
        assert call("run", "x", "--stream", "--get", "bogus.x", "-u", server.url).code == 76


REFUSALS = ["BLOCK", "BLOCKED", "DENY", "DENIED", "REJECT", "REJECTED", "FAILED", "block", "Denied"]
OTHERS = ["ALLOW", "THROTTLE", "COMPLETED", "the door is blocked"]


def answered(place: str, word: str) -> Tuple[str, bytes]:
    """A command, and a good answer to it that has the word in this place."""
    call_name, _, name = place.partition(".")
    if call_name in ("start", "final"):
        event = {"type": call_name, "data": {name: word}, "trace_id": "t"}
        return "run x --stream", stream_of(event, DONE)
    argv, body = {
        "run": ("run x", {"result": "fine", name: word}),
        "chat": ("chat x", {"result": word}),
        "agent": ("agent a x", {"agent_id": "a", "status": word}),
    }[call_name]
    return argv, ok(dict(body, trace_id="t"))


@pytest.mark.parametrize(
    "place", ["run.result", "run.mode", "start.mode", "final.result", "final.mode", "chat", "agent"]
)
def test_the_same_words_refuse_everywhere(place: str) -> None:
    for word in REFUSALS + OTHERS if place == "run.result" else ["BLOCK", "Denied", "ALLOW"]:
        argv, served = answered(place, word)
        with FaultServer(answer(served)) as server:
            called = call(*argv.split(), "-u", server.url, "-j")
        assert (called.code, word in called.err) == ((1, True) if word in REFUSALS else (0, False)), word
