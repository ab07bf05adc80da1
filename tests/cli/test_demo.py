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
    )
    assert (called.code, called.err) == (0, "")
    for number, step in enumerate(demo.STEPS, 1):
        assert "\n{}. {}\n".format(number, step.title) in called.out
        for line in step.source.split("\n"):
            assert "    >>> {}\n".format(line) in called.out or "    ... {}\n".format(line) in called.out
    assert "    processed: tell it while it is being told\n" in called.out
    assert "    BLOCK by destructive-shell: deletes files by force\n" in called.out
    assert called.out.splitlines()[-1].startswith("all {} steps did what they should".format(len(demo.STEPS)))


def test_the_demo_as_json() -> None:
    report = call("demo", "-j").json
    assert report["ok"] is True
    assert [step["title"] for step in report["steps"]] == [step.title for step in demo.STEPS]
    assert all(step["ok"] and step["printed"] for step in report["steps"])


@pytest.mark.parametrize(
    "step, fault",
    [
        (demo.Step("Wrong text", "print('a')", "b\n"), "it printed 'a\\n', not 'b\\n'"),
        (
            demo.Step("Wrong effect", "print('a')", "a\n", "len(box.requests) > 9"),
            "does not hold: len(box.requests) > 9",
        ),
        (demo.Step("A block", "client.run('rm -rf /')", ""), "GovernanceBlock: [GOVERNANCE_BLOCK]"),
    ],
    ids=lambda value: getattr(value, "title", ""),
)
def test_a_step_that_fails_is_named(monkeypatch: Any, step: demo.Step, fault: str) -> None:
    monkeypatch.setattr(demo, "STEPS", (demo.STEPS[0], step, demo.STEPS[1]))
    called = call("demo")
    assert called.code == 1
    assert called.err.splitlines()[-1].startswith("hestiaos-lite: step 2, {!r}, failed: ".format(step.title))
    assert fault in called.err
    assert "3. " not in called.out
