"""The demo: it shows what it runs, checks what it shows, and names the step that failed."""

from __future__ import annotations

from typing import Any

import pytest

from hestiaos_lite.cli import demo

from ..cli_call import call, run


def test_the_demo_as_a_user_starts_it() -> None:
    called = run(
        "demo",
        "-q",
        HESTIAOS_BASE_URL="nonsense",
        HESTIAOS_CONFIG="/nonexistent",
        HTTP_PROXY="http://127.0.0.1:9",
        REQUESTS_CA_BUNDLE="/nonexistent",
    )
    assert (called.code, called.err) == (0, "")
    shown = "".join(
        "\n{}. {}\n{}".format(number, title, "".join("    {}\n".format(line) for line in lines.splitlines()))
        for number, (title, lines) in enumerate(demo.steps(), 1)
    )
    assert called.out.startswith(shown + "\nall 10 steps did what they should, in ")


def test_the_demo_as_json() -> None:
    report = call("demo", "-j").json
    assert report.pop("seconds") > 0
    steps = [{"title": title, "python": lines, "ok": True, "fault": ""} for title, lines in demo.steps()]
    assert report == {"ok": True, "steps": steps}


@pytest.mark.parametrize("step, fault", [
    ("Wrong text\n>>> print('a')\nb", "Expected:\n    b\nGot:\n    a\n"),
    ("A block\n>>> client.run('rm -rf /')", "hestiaos_lite.errors.GovernanceBlock: [GOVERNANCE_BLOCK]"),
], ids=["wrong-text", "an-error"])  # fmt: skip
def test_a_step_that_fails_is_named(monkeypatch: Any, step: str, fault: str) -> None:
    monkeypatch.setattr(demo, "STEPS", "First\n>>> 1\n1\n\n{}\n\nThird\n>>> 3\n3\n".format(step))
    called = call("demo", "-q")
    words = "hestiaos-lite: step 2, {!r}, failed\n".format(step.split("\n")[0])
    assert (called.code, called.err) == (1, words)
    assert fault in called.out
    assert "3. " not in called.out
