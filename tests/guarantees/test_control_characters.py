"""What a service says is data: its control characters steer no terminal, and forge no line of a log or a mail."""

from __future__ import annotations

import json
import os
import unicodedata
from typing import Any, Dict, Iterator, List

import pytest

from ..cli_call import call, in_a_terminal, stream_of
from ..faultserver import FaultServer, answer, ok, reply

# ESC, BEL, CR, a line break, DEL, the C1 form of a control sequence, a right-to-left override, a line separator
EVIL = "a\x1b[2J\x07\rb\nforged\x7f\x9b31m\u202ecod\u2028\u2066z"
ESCAPED = ["\\x1b", "\\x07", "\\x7f", "\\x9b", "\\u202e", "\\u2066"]  # the others may be folded to a space


def controls_of(text: str) -> List[str]:
    """The characters that must not arrive; line breaks are looked at by each test."""
    return [
        char for char in text if char not in "\n\t" and unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp")
    ]


RUN = {"result": "ALLOW", "output": "fine", "mode": EVIL, "trace_id": EVIL, EVIL: EVIL}
ANSWERS: Dict[str, bytes] = {
    "run x": ok(RUN),
    "run x -v": reply(500, json.dumps({"detail": {"code": EVIL, "message": EVIL, "trace_id": EVIL}}).encode("ascii")),
    "run x --stream": stream_of({"type": "tool_call", "data": {"name": EVIL}},
         {"type": "error", "data": {"message": EVIL}, "trace_id": EVIL}, {"type": "done"}),
    "chat x": ok({"result": "fine", "session_id": EVIL, "trace_id": EVIL}),
    "agent a x": ok({"agent_id": "a", "status": EVIL, "error": EVIL, "trace_id": EVIL}),
    "health": ok({"status": EVIL}),
    "trace t": reply(404, json.dumps({"detail": EVIL}).encode("ascii")),
    "hitl status k": ok({"request_id": "k", "status": EVIL, "action": EVIL}),
}  # fmt: skip
LISTINGS: Dict[str, bytes] = {
    "config": ok({EVIL: EVIL, "list": [EVIL]}),
    "config -j": ok({EVIL: EVIL, "list": [EVIL]}),
    "config --get list.0": ok({EVIL: EVIL, "list": [EVIL]}),
    "metrics": ok({"metrics": {EVIL: EVIL}}),
    "trace t": ok({"trace_id": "t", "decision": EVIL, EVIL: EVIL}),
}


@pytest.fixture(name="served")
def _served(request: Any) -> Iterator[str]:
    with FaultServer(answer(request.param)) as server:
        yield server.url


def cases(answers: Dict[str, bytes]) -> List[Any]:
    return [pytest.param(argv, served, id=argv) for argv, served in answers.items()]


@pytest.mark.parametrize("argv, served", cases(ANSWERS), indirect=["served"])
def test_standard_error_is_harmless_wherever_it_goes(argv: str, served: str) -> None:
    for more in ([], ["-j"]):  # an error as JSON is one line, too
        called = call(*argv.split(), *more, "-u", served, "--retries", "0")
        assert controls_of(called.err) == []
        assert not any(line.startswith("forged") for line in called.err.splitlines())
        assert more or [shown for shown in ESCAPED if shown not in called.err] == []


@pytest.mark.skipif(os.name != "posix", reason="terminals as POSIX has them")
@pytest.mark.parametrize("argv, served", cases(LISTINGS), indirect=["served"])
def test_a_terminal_gets_no_control_character_of_a_name_or_a_value(argv: str, served: str) -> None:
    _, shown = in_a_terminal(*argv.split(), "-u", served, NO_COLOR="1")
    assert controls_of(shown) == []
    if "-j" in argv:
        assert EVIL in json.loads(shown)
        assert "\\u009b" in shown
    elif "--get" not in argv:
        assert not any(line.startswith("forged") for line in shown.splitlines())
        assert "\\x9b" in shown


@pytest.mark.parametrize("served", [ok({"result": "ALLOW", "output": EVIL, "trace_id": "t"})], indirect=True)
def test_a_result_in_a_pipe_stays_as_it_is(served: str) -> None:
    assert call("run", "x", "-q", "-u", served).out == EVIL + "\n"
    assert call("run", "x", "-j", "-u", served).json["output"] == EVIL
    assert call("run", "x", "--get", "output", "-u", served).out == EVIL + "\n"


@pytest.mark.parametrize(
    "served", [ok({"status": EVIL, "version": EVIL, "uptime_seconds": 1})], indirect=True
)
def test_a_monitoring_line_is_one_line(served: str) -> None:
    called = call("health", "--nagios", "-u", served)
    assert (called.code, controls_of(called.out)) == (3, [])
    assert (called.out.count("\n"), called.out.count("|")) == (1, 1)
