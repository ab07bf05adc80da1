"""What a log line, a repr or an error may show: never a key, a secret's value or a URL's password, and no control character."""

from __future__ import annotations

import json
import os
import re
import shlex
from typing import Any, Dict, Iterable, List, Optional, Set, Tuple
from urllib.parse import urlsplit, urlunsplit

MASK = "***"
_LONG_ENOUGH = 8  # characters of a secret that is no common word

# C0 but tab, DEL, C1 (U+009B begins a control sequence as ESC [ does), the line and paragraph separators that
# str.splitlines knows, and the characters that turn the direction of text (Unicode's Bidi_Control).
_CONTROLS = [code for code in range(0xA0) if (code < 32 and code != 9) or code >= 127]
_BIDI = [0x061C, 0x200E, 0x200F, 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_IN_TEXT = {code: "\\x{:02x}".format(code) for code in _CONTROLS}
_IN_TEXT.update((code, "\\u{:04x}".format(code)) for code in _BIDI)
_IN_TEXT_WITH_LINES = {code: shown for code, shown in _IN_TEXT.items() if code != 10}
_IN_JSON = {code: "\\u{:04x}".format(code) for code in _CONTROLS + _BIDI if code != 10}


class Secret(str):
    """A text that may be used and not shown: tools that print the variables of a traceback's frames print this as ``***``."""

    __slots__ = ()

    def __repr__(self) -> str:
        return MASK


def secret(value: Any) -> Any:
    """Return a text so that its repr shows nothing; of anything else, which will be refused, the name of its type alone."""
    if value is None or isinstance(value, str):
        return value and Secret(value)
    return type(type(value).__name__, (), {"__repr__": lambda self: MASK})()


class Secrets(Tuple[str, ...]):
    """Values that nothing may show, each as written and as JSON would escape it; many cost no more to look for than few.

    A short one is masked only where it is a whole word: the key "test" must not mask every "latest".
    """

    def __repr__(self) -> str:
        return MASK

    def mask(self, text: str, stop: Optional[int] = None) -> str:
        """Return ``text`` up to ``stop`` with each of these masked, one that begins before it whole."""
        stop = len(text) if stop is None else min(stop, len(text))
        if "_finder" not in self.__dict__:
            self._finder = _Finder(self)
        pieces: List[str] = []
        kept = 0
        found = self._finder.find(text, 0)
        while found is not None and found[0] < stop:
            pieces += [text[kept : found[0]], MASK]
            kept = found[1]
            found = self._finder.find(text, kept)
        return "".join(pieces) + text[kept:stop]


class _Finder:
    """Finds the first of many secrets in a text: by one pattern, or where they are too many for that, by how they begin."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._is_word: Dict[str, bool] = {}  # each form -> whether it must be a whole word
        for value in filter(None, secrets):
            forms = {str(value)}
            if not (value.isascii() and value.isprintable()) or '"' in value or "\\" in value:
                forms |= {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
            self._is_word.update(dict.fromkeys(forms, len(value) < _LONG_ENOUGH))
        self._is_many = len(self._is_word) > 100
        if self._is_many:
            lengths: Dict[str, Set[int]] = {}
            for form in self._is_word:
                lengths.setdefault(form[:_LONG_ENOUGH], set()).add(len(form))
            self._lengths = {begin: sorted(found, reverse=True) for begin, found in lengths.items()}
            self._widths = sorted({len(begin) for begin in lengths}, reverse=True)
            patterns = [re.escape(begin) for begin in {begin[0] for begin in lengths}]
        else:
            longest_first = sorted(self._is_word, key=len, reverse=True)
            patterns = [
                (r"(?<!\w){}(?!\w)" if self._is_word[form] else "{}").format(re.escape(form))
                for form in longest_first
            ]
        self._pattern = re.compile("|".join(patterns) or r"(?!)")

    def find(self, text: str, at: int) -> Optional[Tuple[int, int]]:
        """Return where the first one from a place on begins and ends."""
        match = self._pattern.search(text, at)
        while self._is_many and match is not None:
            begin = match.start()
            for width in self._widths:
                for length in self._lengths.get(text[begin : begin + width], ()):
                    end = begin + length
                    is_word = self._is_word.get(text[begin:end])
                    beside = text[max(0, begin - 1) : begin] + text[end : end + 1]
                    if is_word is False or is_word and not re.search(r"\w", beside):
                        return begin, end
            match = self._pattern.search(text, begin + 1)
        return None if match is None else match.span()


def without(text: str, secrets: Iterable[str]) -> str:
    """Return ``text`` with each of ``secrets`` masked."""
    return (secrets if isinstance(secrets, Secrets) else Secrets(secrets)).mask(text)


def harmless(text: str) -> str:
    """Return ``text`` as one line without control characters, fit for a terminal, a log line or a mail.

    A line break becomes a space; any other control character, and whatever turns the direction of text, is shown as an
    escape (``\\x1b``, ``\\u202e``). A tab is kept.
    """
    if text.isascii() and text.isprintable():
        return text
    return " ".join(text.replace("\r\n", "\n").strip("\n").split("\n")).translate(_IN_TEXT)


def harmless_lines(text: str) -> str:
    """Return ``text`` likewise, but with its line breaks, for a result that may have several lines."""
    if text.isascii() and text.isprintable():
        return text
    return text.translate(_IN_TEXT_WITH_LINES)


def harmless_json(text: str) -> str:
    """Return JSON ``text`` likewise, with its line breaks, and each escape one that JSON reads (``\\u009b``)."""
    return text.translate(_IN_JSON)


def pasteable(path: str) -> str:
    """Return a path as a word that a shell reads back: quoted where it must be, odd bytes as in ``$'\\xff'``."""
    if path.isprintable():  # what stands for a byte that is no text is not
        return shlex.quote(path) if os.name == "posix" else path
    return "$'{}'".format(
        "".join(
            char
            if char.isprintable() and char not in "'\\"
            else "".join("\\x{:02x}".format(byte) for byte in os.fsencode(char))
            for char in path
        )
    )


def one_line(text: str, secrets: Iterable[str] = (), limit: int = 300) -> str:
    """Return ``text`` fit for one line of a message: masked, its white space folded, cut, and `harmless`."""
    # masked while each secret is whole, and of bounded length, since the masking takes time
    masked = (secrets if isinstance(secrets, Secrets) else Secrets(secrets)).mask(text.strip(), 20 * limit)
    text = harmless(" ".join(masked.split()))  # before it is cut: an escape is longer than what it shows
    return text if len(text) <= limit else text[: limit - 3] + "..."


def bare_url(url: str) -> str:
    """Return ``url`` without user info, query and fragment, fit for a message; a URL that cannot be read is masked."""
    try:
        parts = urlsplit(url)
        bare = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    except ValueError:
        return MASK
    # what looks like user info elsewhere may be it, in a URL without its slashes
    return MASK + bare[bare.rindex("@") :] if "@" in bare else bare
