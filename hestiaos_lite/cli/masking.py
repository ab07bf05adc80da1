"""masking: the value of a variable that must not be seen, shown as ``$VARIABLE``."""

from __future__ import annotations

import json
import os
from typing import Any, Callable, Sequence

from ..errors import InvalidInput

Mask = Callable[[Any], Any]


def mask_of(variables: Sequence[str], quoted: bool = False) -> Mask:
    """Return a function that masks these variables' values in a text, or in all that a JSON value holds.

    The longest value is looked for first. There is no masking by pattern: what is not named is shown.

    Args:
        quoted: a value may also stand in the text as Python quotes it.

    Raises:
        InvalidInput: a variable is not set, or empty.
    """
    secrets = []
    for name in variables:
        if not os.environ.get(name):
            raise InvalidInput("--mask {}: that variable is not set, or empty".format(name))
        secrets.append((as_text(os.environ[name]), "$" + name))
        if quoted:
            secrets.append((repr(os.environ[name])[1:-1], "$" + name))
    secrets.sort(key=lambda secret: -len(secret[0]))

    def in_text(text: str, first: int = 0) -> str:
        if first == len(secrets):
            return text
        secret, name = secrets[
            first
        ]  # the others are looked for beside it, never in the name put in its place
        return name.join(in_text(part, first + 1) for part in text.split(secret))

    def masked(value: Any) -> Any:
        if isinstance(value, str):
            return in_text(value)
        if isinstance(value, dict):
            return {in_text(name): masked(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [masked(inner) for inner in value]
        text = json.dumps(value)  # a number may be somebody's PIN
        return value if in_text(text) == text else in_text(text)

    return masked


def as_text(word: str) -> str:
    """Return an argument or variable as text that can be sent: bytes that are not UTF-8 are shown as ``\\xff``."""
    return os.fsencode(word).decode("utf-8", "backslashreplace")
