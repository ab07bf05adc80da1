"""Who may speak to a sandbox that has no key: programs of this machine, but no page that its browser shows.

A page of another site can reach a loopback port. By a name of its own that it lets point to 127.0.0.1 (DNS
rebinding) it could even read the answers; then the Host header has that name. What a page sends across sites without
being asked has an Origin or Sec-Fetch-Site header that says so.
"""

from __future__ import annotations

import ipaddress
import socket
from functools import lru_cache
from typing import Optional
from urllib.parse import urlsplit

from .messages import Reply, Request, refusal


def is_loopback(host: str) -> bool:
    """Whether every address this host has is a loopback address."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM) if host else []
    except (OSError, UnicodeError):
        return False
    addresses = [str(entry[4][0]).partition("%")[0] for entry in found]
    return bool(addresses) and all(ipaddress.ip_address(address).is_loopback for address in addresses)


def refused(request: Request, bound_host: str) -> Optional[Reply]:
    """The refusal of a request that a page of another site may have made; None where there is no sign of one.

    Args:
        bound_host: a further name, beside the loopback ones, that Host and Origin may have.
    """
    hosts = request.headers.get_all("Host", [])
    if not all(_is_own("//" + host, bound_host) for host in hosts):
        message = "this sandbox has no API key, so it answers only to a loopback host: {}".format(bound_host)
        return refusal(421, "FOREIGN_HOST", message).reply
    origins = request.headers.get_all("Origin", [])
    across_sites = "cross-site" in request.headers.get_all("Sec-Fetch-Site", [])
    if across_sites or not all(_is_own(origin, bound_host) for origin in origins):
        message = "this sandbox has no API key, so it answers no page of another site"
        return refusal(403, "FOREIGN_ORIGIN", message).reply
    return None


@lru_cache(maxsize=64)
def _is_own(url: str, bound_host: str) -> bool:
    """Whether a URL's host is a loopback one by its spelling; it is never looked up, since its owner decides that."""
    try:
        host = urlsplit(url.strip()).hostname or ""
    except ValueError:
        return False
    if host in ("localhost", bound_host.lower()) or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
