"""hitl: what it sends, prints and returns."""

from __future__ import annotations

from typing import Any

import pytest

from hestiaos_lite import idempotency_key

from ..cli_call import Called, call


def hitl(box: Any, *argv: str, stdin: str = "") -> Called:
    return call("hitl", *argv, "-u", box.url, "--tenant", "t", "--thread", "th", stdin=stdin)


def test_approve_and_its_duplicate(box: Any) -> None:
    first = hitl(box, "approve", "invoice-7", "--payload", '{"amount": 3}')
    word, request_id = first.out.split()
    assert (first.code, word, first.err) == (0, "accepted", "")
    again = hitl(box, "approve", "invoice-7")
    words = "duplicate: this key was already processed; nothing was done again\n"
    assert again == Called(0, "duplicate {}\n".format(request_id), words)
    assert [(action["action"], action["payload"]) for action in box.actions()] == [("approve", {"amount": 3})]
    shown = call("hitl", "status", request_id, "-u", box.url)
    assert shown.code == 0
    assert "status      COMMITTED\n" in shown.out


def test_reject_as_json_with_a_payload_from_a_file_and_from_standard_input(box: Any, tmp_path: Any) -> None:
    path = tmp_path / "payload.json"
    path.write_text('{"why": "äh"}', encoding="utf-8")
    result = hitl(box, "reject", "k1", "--payload", "@" + str(path), "-j").json
    del result["request_id"], result["attempts"], result["data"]
    assert result == {
        "idempotency_key": "k1", "status_code": 202,
        "accepted": True, "duplicate": False, "queued": False, "settled": True, "confirmed": True,
    }  # fmt: skip
    assert hitl(box, "reject", "k2", "--payload", "-", stdin='{"a": [1]}').code == 0
    assert [action["payload"] for action in box.actions()] == [{"why": "äh"}, {"a": [1]}]


def test_status_of_what_is_pending_and_of_what_failed(box: Any) -> None:
    box.hitl.delay_seconds = 60
    request_id = hitl(box, "approve", "k").out.split()[1]
    assert call("hitl", "status", request_id, "-u", box.url).code == 75
    assert call("hitl", "status", request_id, "--wait", "0.01", "-u", box.url).code == 75
    box.hitl.delay_seconds = 0
    box.fail_next_action()
    request_id = hitl(box, "approve", "k2").out.split()[1]
    called = call("hitl", "status", request_id, "--wait", "5", "-u", box.url, "-j")
    assert (called.code, called.json["status"]) == (1, "FAILED")


NUMBERS = "read as: string, string; --typed reads 42 as an integer, which makes another key\n"
KEYS = {
    "strings": (["invoice", "x", "--field", "day=2026-11-21"], ("invoice", "x"), {"day": "2026-11-21"}, ""),
    "no value": (["invoice", "--field", "empty="], ("invoice",), {"empty": ""}, ""),
    "a number without --typed": (["invoice", "42"], ("invoice", "42"), {}, NUMBERS),
    "a number in a field": (["invoice", "--field", "n=42"], ("invoice",), {"n": "42"}, NUMBERS),
    "digits of another script": (["invoice", "\u0664\u0662"], ("invoice", "\u0664\u0662"), {}, ""),
    "an integer": (["invoice", "42", "--typed"], ("invoice", 42), {}, "read as: string, integer\n"),
    "typed fields": (
        ["--typed", "--field", "n=42", "--field", "day=2026-11-21"],
        (),
        {"n": 42, "day": "2026-11-21"},
        "read as: integer, string\n",
    ),
    "every type": (
        ["--typed", "--", "-7", "1.5", "true", "null", '"42"', "[1]", '{"a": 1}', "042", "NaN"],
        (-7, 1.5, True, None, "42", [1], {"a": 1}, "042", "NaN"),
        {},
        "read as: integer, number, boolean, null, string, list, object, string, string\n",
    ),
}


@pytest.mark.parametrize(("arguments", "parts", "fields", "said"), KEYS.values(), ids=KEYS.keys())
def test_key(arguments: Any, parts: Any, fields: Any, said: str) -> None:
    assert call("hitl", "key", *arguments) == Called(0, idempotency_key(*parts, **fields) + "\n", said)


def test_key_as_json_says_the_types() -> None:
    called = call("hitl", "key", "invoice", "42", "--typed", "-j", "-q")
    types = ["string", "integer"]
    assert called.err == ""
    assert called.json == {"idempotency_key": idempotency_key("invoice", 42), "types": types}
