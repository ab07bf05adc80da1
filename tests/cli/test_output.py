"""How a result is printed: JSON that is JSON, one field of it, and what to do with numbers that are none."""

from __future__ import annotations

from typing import Any, Tuple

import pytest

from hestiaos_lite import _json
from hestiaos_lite.cli.output import find_field

from ..cli_call import DONE, Called, call, stream_of, token
from ..faultserver import FaultServer, answer, ok, reply

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("value, text", [
    ({"a": NAN, "b": [INF, -INF, 1.5], "c": (NAN,)}, '{"a": null, "b": [null, null, 1.5], "c": [null]}'),
    ({"a": 10**400}, '{"a": 1' + 400 * "0" + "}"),
    (NAN, "null"),
    ("ä", '"ä"'),
], ids=["nested", "large", "bare", "text"])  # fmt: skip
def test_json_has_null_for_what_is_no_number(value: Any, text: str) -> None:
    assert _json.dumps(value) == text


def test_json_of_a_service_that_sends_nan() -> None:
    body = b'{"metrics": {"a": NaN, "b": -Infinity, "c": 1}}'
    with FaultServer(answer(reply(200, body, {"Content-Type": "application/json"}))) as server:
        called = call("metrics", "-j", "-u", server.url)
        assert called == Called(0, '{"a": null, "b": null, "c": 1}\n', "")
        assert call("metrics", "-u", server.url).out == "a  null\nb  null\nc  1\n"


@pytest.mark.parametrize(
    "uptime, shown",
    [("7.2", " uptime=7s;;;0"), ("NaN", ""), ("Infinity", ""), ("1" * 401, ""), ("-5", ""), ("1e300", "")],
    ids=["good", "nan", "infinity", "401-digits", "negative", "1e300"],
)
def test_nagios_leaves_out_an_uptime_that_is_none(uptime: str, shown: str) -> None:
    body = '{{"status": "ok", "uptime_seconds": {}}}'.format(uptime).encode("ascii")
    with FaultServer(answer(reply(200, body, {"Content-Type": "application/json"}))) as server:
        called = call("health", "--nagios", "-u", server.url)
    assert (called.code, called.err) == (0, "")
    assert called.out.partition(";;;0")[2] == shown + "\n"


DOCUMENT = {
    "a": "text", "n": 0, "no": False, "none": None, "list": [{"x": 1}], "deep": {"er": {"y": "z"}}, "p.q": 7,
}  # fmt: skip


@pytest.mark.parametrize("path, value", [
    ("a", "text"),
    ("n", 0),
    ("no", False),
    ("deep", {"er": {"y": "z"}}),
    ("deep.er.y", "z"),
    ("list.0.x", 1),
    ("p.q", 7),
    ("none", None),
    ("b", None),
    ("a.b", None),
    ("list.1", None),
    ("list.x", None),
    ("list.-1", None),
    ("deep.", {"er": {"y": "z"}}),
    ("", None),
])  # fmt: skip
def test_a_dotted_path(path: str, value: Any) -> None:
    assert find_field(DOCUMENT, path) == value


def approve(*argv: str) -> Tuple[str, ...]:
    return ("hitl", "approve", "k", "--tenant", "t", "--thread", "th") + argv


@pytest.mark.parametrize("argv, out", [
    (("run", "x", "--get", "output"), "processed: x\n"),
    (("run", "x", "--get", "budget"), "1.0\n"),
    (("--get", "status", "health"), "ok\n"),
    (approve("--get", "accepted"), "true\n"),
    (("config", "--get", "policy"), '{"source": "default", "rules": 12}\n'),
], ids=["text", "number", "before-the-command", "boolean", "object"])  # fmt: skip
def test_one_field_and_nothing_else(box: Any, argv: Tuple[str, ...], out: str) -> None:
    called = call(*argv, "-u", box.url)
    assert called == Called(0, out, "")


def test_the_field_names_what_to_ask_for_next(box: Any) -> None:
    trace_id = call("run", "x", "--get", "trace_id", "-u", box.url).out.strip()
    assert call("trace", trace_id, "--get", "decision", "-u", box.url) == Called(0, "ALLOW\n", "")
    request_id = call(*approve("--get", "request_id"), "-u", box.url).out.strip()
    shown = call("hitl", "status", request_id, "--get", "status", "-u", box.url)
    assert shown == Called(0, "COMMITTED\n", "")


def test_a_missing_field_is_76(box: Any) -> None:
    line = "hestiaos-lite: the result has no field 'bogus.x'; --json shows what it has\n"
    assert call("run", "x", "--get", "bogus.x", "-u", box.url) == Called(76, "", line)
    assert call("run", "x", "--stream", "--get", "bogus.x", "-u", box.url) == Called(76, "", line)


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


REFUSALS = ["BLOCK", "BLOCKED", "DENY", "DENIED", "REJECT", "REJECTED", "FAILED", "block", "Denied"]
OTHERS = ["ALLOW", "THROTTLE", "COMPLETED", "the door is blocked"]


PLACES = ["run.mode", "start.mode", "final.result", "final.mode", "chat", "agent"]


@pytest.mark.parametrize(
    "place, word",
    [("run.result", word) for word in REFUSALS + OTHERS]
    + [(place, word) for place in PLACES for word in ("BLOCK", "Denied", "ALLOW")],
)
def test_the_same_words_refuse_everywhere(place: str, word: str) -> None:
    call_name, _, name = place.partition(".")
    argv, served = {
        "run": (["run", "x"], ok({"result": "fine", "trace_id": "t", name: word})),
        **{
            kind: (
                ["run", "x", "--stream"],
                stream_of({"type": kind, "data": {name: word}, "trace_id": "t"}, DONE),
            )
            for kind in ("start", "final")
        },
        "chat": (["chat", "x"], ok({"result": word, "trace_id": "t"})),
        "agent": (["agent", "a", "x"], ok({"agent_id": "a", "status": word, "trace_id": "t"})),
    }[call_name]
    with FaultServer(answer(served)) as server:
        called = call(*argv, "-u", server.url, "-j")
    refuses = word in REFUSALS
    assert (called.code, word in called.err) == ((1, True) if refuses else (0, False))
