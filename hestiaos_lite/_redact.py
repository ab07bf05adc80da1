"""What a log line, a repr or an error may show: never a key, a secret's value or a URL's password, and no control character."""

from __future__ import annotations

import bisect
import json
import os
import re
from typing import Any, Dict, Iterable, List, Optional, Tuple
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
        if "_pattern" not in self.__dict__:
            self._index()
        pieces: List[str] = []
        kept = 0
        match = self._pattern.search(text)
        while match is not None and match.start() < stop:
            end = self._end_of_longest(text, match.start())
            if end:
                pieces += [text[kept : match.start()], MASK]
                kept = end
            match = self._pattern.search(text, end or match.start() + 1)
        return "".join(pieces) + text[kept:stop]

    def _index(self) -> None:
        """Sort every form, and search for how each begins: a pattern of many whole forms would take seconds to compile."""
        is_word: Dict[str, bool] = {}  # each form -> whether it must be a whole word
        for value in filter(None, self):
            forms = {str(value)}
            if not (value.isascii() and value.isprintable()) or '"' in value or "\\" in value:
                forms |= {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
            is_word.update(dict.fromkeys(forms, len(value) < _LONG_ENOUGH))
        ordered = sorted(is_word)
        shorter: Dict[str, str] = {}  # each form -> the longest other one that it begins with, or ""
        begun = [""]
        for form in ordered:
            while not form.startswith(begun[-1]):
                begun.pop()
            shorter[form] = begun[-1]
            begun.append(form)
        begins = {form[:_LONG_ENOUGH] for form in ordered}
        if len(begins) > 100:
            begins = {begin[0] for begin in begins}
        # whole values, and the pattern last: threads may share this
        self._forms, self._is_word, self._shorter = ordered, is_word, shorter
        self._longest = max(map(len, ordered), default=0)
        self._pattern = re.compile("|".join(map(re.escape, begins)) or r"(?!)")

    def _end_of_longest(self, text: str, begin: int) -> Optional[int]:
        """Return where the longest one that begins at a place ends; None where none does."""
        # in order, each form that the text begins with here is the last one before the text, or a beginning of that one
        place = bisect.bisect_right(self._forms, text[begin : begin + self._longest])
        form = self._forms[place - 1] if place else ""
        while form:
            if text.startswith(form, begin):
                end = begin + len(form)
                beside = text[max(0, begin - 1) : begin] + text[end : end + 1]
                if not (self._is_word[form] and re.search(r"\w", beside)):
                    return end
            form = self._shorter[form]
        return None


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
    import shlex  # here: a client that runs nothing else has no use for it

    if path.isprintable():  # a surrogate, in place of a byte that is no text, is not
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
