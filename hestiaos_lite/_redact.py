"""What a log line, a repr or an error may show: never a key, a secret's value or a URL's password."""

from __future__ import annotations

import json
from typing import Iterable
from urllib.parse import urlsplit, urlunsplit

MASK = "***"


def without(text: str, secrets: Iterable[str]) -> str:
    """Return ``text`` with each of ``secrets`` masked, as written and as JSON would escape it."""
    for secret in secrets:
        if secret:
            for form in (secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]):
                text = text.replace(form, MASK)
    return text


def bare_url(url: str) -> str:
    """Return ``url`` without user info, query and fragment, fit for a message; a URL that cannot be read is masked."""
    try:
        parts = urlsplit(url)
        bare = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    except ValueError:
        return MASK
    # what looks like user info elsewhere may be it, in a URL without its slashes
    return MASK + bare[bare.rindex("@") :] if "@" in bare else bare
