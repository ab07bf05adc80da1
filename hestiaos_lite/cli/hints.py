"""What cures a mistake that many make, where the failure itself cannot know of it."""

from __future__ import annotations

from typing import Iterator

from ..errors import NotFound
from .parser import Arguments

# What each call's path begins with: a base URL that ends in it asks for /api/v1/api/v1/run.
_BEGINNINGS = ("/api/v1", "/api")


def hints(error: Exception, args: Arguments) -> Iterator[str]:
    """Yield what may cure this failure of this command."""
    url = getattr(args, "asked_url", "")
    if getattr(error, "status", None) not in (404, 405):
        return
    for beginning in _BEGINNINGS:
        if url.endswith(beginning):
            yield "the base URL {} ends in {}, which is added to it: try -u {}".format(
                url, beginning, url[: -len(beginning)]
            )
            return
    if isinstance(error, NotFound) and args.if_not_found:
        yield args.if_not_found
