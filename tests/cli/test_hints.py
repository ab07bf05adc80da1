"""Mistakes that many make are met with what cures them."""

from __future__ import annotations

from typing import Any

import pytest

from ..cli_call import Called, call

IN_QUOTES = "put a text of several words in quotes"
FROM_STDIN = "the value is read from standard input: secret set KEY < FILE"


@pytest.mark.parametrize(
    "argv, message",
    [
        ("run create a report", "too many arguments: " + IN_QUOTES),
        ("chat hello there", "too many arguments: " + IN_QUOTES),
        ("agent a do this", "too many arguments: " + IN_QUOTES),
        ("secret set foo bar", "too many arguments: " + FROM_STDIN),
        ("run create a --bogus", "unrecognized arguments: a --bogus"),
        ("health now", "unrecognized arguments: now"),
    ],
)
def test_too_many_words(box: Any, argv: str, message: str) -> None:
    name = " ".join(argv.split()[: 2 if argv.startswith("secret") else 1])
    line = "hestiaos-lite: error: {} (see hestiaos-lite {} --help)\n".format(message, name)
    assert call(*argv.split(), "-u", box.url) == Called(2, "", line)
    assert box.requests == []


def test_a_usage_error_is_one_line_without_control_characters() -> None:
    called = call("health", "a\nb", "\x1b[2J")
    assert called == Called(
        2,
        "",
        "hestiaos-lite: error: unrecognized arguments: a b \\x1b[2J (see hestiaos-lite health --help)\n",
    )


@pytest.mark.parametrize(
    "argv, path, hint",
    [
        (
            "health",
            "/api/v1",
            "the base URL {url}/api/v1 ends in /api/v1, which is added to it: try -u {url}",
        ),
        ("status", "/api", "the base URL {url}/api ends in /api, which is added to it: try -u {url}"),
        (
            "hitl status k",
            "/api/v1/",
            "the base URL {url}/api/v1 ends in /api/v1, which is added to it: try -u {url}",
        ),
        (
            "hitl status k",
            "",
            "an action is looked up by the request id that approve printed, not by its key",
        ),
        ("secret get k", "", None),
    ],
)
def test_what_was_not_found(box: Any, argv: str, path: str, hint: Any) -> None:
    called = call(*argv.split(), "-u", box.url + path)
    assert called.code == 1
    assert called.err.splitlines()[:-1] == ([] if hint is None else [hint.format(url=box.url)])
    assert called.err.splitlines()[-1].startswith("hestiaos-lite: [NOT_FOUND]")
    as_json = call(*argv.split(), "-j", "-u", box.url + path)
    assert as_json.error["code"] == "NOT_FOUND"
    assert len(call(*argv.split(), "-q", "-u", box.url + path).err.splitlines()) == 1
