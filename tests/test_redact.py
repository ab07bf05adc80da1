"""What is said of a service's text: masked, and harmless to whoever reads it."""

from __future__ import annotations

import json
import unicodedata

import pytest

from hestiaos_lite._redact import harmless, harmless_json, harmless_lines

EVERYTHING = "".join(map(chr, range(0x110000)))


@pytest.mark.parametrize(
    "text, shown",
    [
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
    ],
)
def test_harmless(text: str, shown: str) -> None:
    assert harmless(text) == shown


def test_no_control_character_passes() -> None:
    """Unicode itself says which these are: Cc, and the class of those that embed, override or isolate a direction."""
    for text, kept in ((harmless(EVERYTHING), "\t"), (harmless_lines(EVERYTHING), "\t\n")):
        assert {char for char in text if unicodedata.category(char) in ("Cc", "Zl", "Zp")} == set(kept)
        directions = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
        assert not {char for char in text if unicodedata.bidirectional(char) in directions}
    assert len(harmless(EVERYTHING).splitlines()) == 1


def test_json_stays_json() -> None:
    value = {"name\x9b": EVERYTHING}
    text = harmless_json(json.dumps(value, ensure_ascii=False, indent=1))
    assert json.loads(text) == value
    assert {char for char in text if unicodedata.category(char) == "Cc"} == {"\n"}
