"""What is said of a service's text: masked, and harmless to whoever reads it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import unicodedata
from typing import Any, List

import pytest

from hestiaos_lite._redact import (
    Secret,
    Secrets,
    harmless,
    harmless_json,
    harmless_lines,
    one_line,
    pasteable,
    secret,
)

KEY = "hunter2-c4n4ry"


@pytest.mark.parametrize("secrets, text, shown", [
    ([KEY], "got hunter2-c4n4ry", "got ***"),
    ([KEY], "hunter2-c4n4ryhunter2-c4n4ry!", "******!"),
    ([KEY, "hunter2-"], "hunter2-c4n4ry and hunter2-x", "*** and ***x"),
    (["test"], "test: the latest test-key, testing (test)", "***: the latest ***-key, testing (***)"),
    (['qu"o\\te-here'], 'as qu"o\\te-here and "qu\\"o\\\\te-here"', 'as *** and "***"'),
    (["gr\u00fc\u00dfe-42"], "gr\u00fc\u00dfe-42 gr\\u00fc\\u00dfe-42", "*** ***"),
    (['gr\u00fc"\u00dfe-42'], 'gr\u00fc\\"\u00dfe-42 gr\\u00fc\\"\\u00dfe-42', "*** ***"),
    (["two  words\nlong"], "of two  words\nlong", "of ***"),
    (["", KEY], "nothing", "nothing"),
    ([], "nothing", "nothing"),
    ([KEY + str(number) for number in range(150)], "hunter2-c4n4ry7, hunter2-c4n4ry49, hunter2", "***, ***, hunter2"),
    (
        ["test", *("hunter2-{:03d}".format(number) for number in range(150))],
        "hhunter2-007 test latest testing a-test x test",
        "h*** *** latest testing a-*** x ***",
    ),
    (["back\\slash"], "back\\slash back\\\\slash", "*** ***"),
    (["ab", "abc", "abcdefgh"], "ab abc abcd abcdefghi", "*** *** abcd ***i"),
])  # fmt: skip
def test_what_is_masked(secrets: Any, text: str, shown: str) -> None:
    assert one_line(text, secrets) == one_line(text, Secrets(secrets)) == shown


@pytest.mark.parametrize("count", [1, 200])
def test_a_secret_is_masked_before_anything_is_cut(count: int) -> None:
    """Wherever a cut falls: what is left of a key but its last character is the key."""
    secrets = Secrets([KEY] + ["another-{}-of-them".format(number) for number in range(1, count)])
    for limit in (20, 40):
        for before in [*range(limit + 2), *range(20 * limit - len(KEY) - 2, 20 * limit + 2)]:
            shown = one_line("x" + " " * before + KEY + "y" * limit, secrets, limit)
            assert len(shown) <= limit
            assert "hu" not in shown, before


@pytest.mark.parametrize("more", [
    pytest.param(["invoice-{:06d}".format(number) for number in range(50_000)], id="many"),
    pytest.param(["invoice-" + "y" * number for number in range(1, 3_000)], id="of many lengths"),
])  # fmt: skip
def test_many_secrets_cost_little_more_than_few(more: List[str]) -> None:
    few = ["invoice-{:06d}".format(number) for number in range(20)]
    text = "invoice-000007 of invoice-" * 500
    seconds, shown = [], []
    for secrets in (Secrets(few), Secrets(few + more)):
        shown.append(secrets.mask(text))
        began = time.process_time()
        for _ in range(5):
            secrets.mask(text)
        seconds.append(time.process_time() - began)
    assert shown[0] == shown[1]
    assert seconds[1] < 10 * seconds[0] + 0.1


def test_a_secret_is_used_and_not_shown() -> None:
    given = secret(KEY)
    assert (given, json.dumps([given]), "{}".format(given)) == (KEY, '["{}"]'.format(KEY), KEY)
    assert (repr(given), repr({"key": (given,)}), repr(Secrets([KEY]))) == ("***", "{'key': (***,)}", "***")
    assert secret(None) is None
    assert (type(given), type(secret(KEY.encode())).__name__, repr(secret([KEY]))) == (Secret, "bytes", "***")


@pytest.mark.parametrize("text, shown", [
    ("", ""),
    ("plain", "plain"),
    ("Grüße, 世界 \u00a0 😀", "Grüße, 世界 \u00a0 😀"),
    ("a\tb", "a\tb"),
    ("two\nlines", "two lines"),
    ("dos\r\nlines\r\n", "dos lines"),
    ("over\rwritten", "over\\x0dwritten"),
    ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
    ("\x9b2J \x7f \x85", "\\x9b2J \\x7f \\x85"),
    ("\u202egnp.exe\u2069", "\\u202egnp.exe\\u2069"),
    ("one\u2028two", "one\\u2028two"),
])  # fmt: skip
def test_harmless(text: str, shown: str) -> None:
    assert harmless(text) == shown


def test_no_control_character_passes() -> None:
    """Unicode itself says which these are: Cc, and the class of those that embed, override or isolate a direction."""
    directions = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    harmful = {
        char
        for char in map(chr, range(sys.maxunicode + 1))
        if unicodedata.category(char) in ("Cc", "Zl", "Zp") or unicodedata.bidirectional(char) in directions
    }
    text = "x".join(["", *sorted(harmful), ""])
    assert len(harmful) > 70
    assert harmful.intersection(harmless(text)) == {"\t"}
    assert harmful.intersection(harmless_lines(text)) == {"\t", "\n"}
    assert len(harmless(text).splitlines()) == 1
    value = {"name\x9b": text}
    written = harmless_json(json.dumps(value, ensure_ascii=False, indent=1))
    assert json.loads(written) == value
    assert harmful.intersection(written) == {"\n"}


def test_a_line_keeps_its_limit_where_an_escape_is_longer_than_what_it_shows() -> None:
    assert one_line("x" + "\x1b" * 299, limit=300) == "x" + "\\x1b" * 74 + "..."


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_a_path_is_pasted_as_it_was() -> None:
    paths = ["plain", "", "it's", "$(no)", "two\nlines", "it's \x1b[2J\\", os.fsdecode(b"\xff' b")]
    words = [pasteable(path) for path in paths]
    read = subprocess.run(["bash", "-c", "printf '%s\\0' " + " ".join(words)], stdout=subprocess.PIPE)
    assert [os.fsdecode(path) for path in read.stdout.split(b"\0")] == [*paths, ""]
    assert "".join(words).isprintable()
