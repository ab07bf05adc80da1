"""Which way a request goes: the URL as requests has it, proxies, certificates; resolved once, checked before anything is sent."""

from __future__ import annotations

import os
import warnings
from ipaddress import ip_address
from typing import Any, Dict, Optional, Union
from urllib.parse import urlsplit

import requests
from requests.utils import get_environ_proxies, select_proxy

from .._redact import bare_url, secret
from ..errors import InvalidInput


def prepared_url(base_url: str) -> str:
    """Let requests normalise the base URL once (host to ASCII, path quoted)."""
    if base_url.startswith("https:"):
        try:
            import ssl  # noqa: F401  # requests has loaded it, where there is one
        except ImportError as error:
            raise InvalidInput(
                "this Python has no ssl module: https is out of reach", code="CONFIGURATION"
            ) from error
    request = requests.PreparedRequest()
    try:
        request.prepare_url(base_url, None)
    except (ValueError, requests.RequestException) as error:
        raise InvalidInput(
            "the base URL {} is malformed".format(bare_url(base_url)), code="CONFIGURATION"
        ) from error
    return str(request.url).rstrip("/")


def network_settings(url: str, session: requests.Session, verify: Union[bool, str, None]) -> Dict[str, Any]:
    """Resolve proxies and certificates as requests does, except that what the caller said wins over the environment.

    (requests before 3 lets REQUESTS_CA_BUNDLE overrule ``session.verify``.) A loopback URL never goes through a proxy that
    only the environment named.
    """
    proxies: Dict[str, str] = {}
    if session.trust_env and url.startswith(("http:", "https:")) and not is_loopback(url):
        proxies.update(get_environ_proxies(url))
    proxies.update(session.proxies)
    proxies = {name: secret(proxy) for name, proxy in proxies.items()}
    check_proxy(select_proxy(url, proxies))
    if verify is None:
        verify = session.verify
        if verify is True and session.trust_env:
            bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
            # one that does not exist is no matter of plain http, which asks for no certificate
            if bundle and (url.startswith("https:") or os.path.exists(bundle)):
                verify = bundle
    if isinstance(verify, str) and not os.path.exists(verify):
        raise InvalidInput("the CA bundle {} does not exist".format(verify), code="CONFIGURATION")
    return {"proxies": proxies, "verify": verify, "cert": session.cert}


def check_proxy(proxy: Optional[str]) -> None:
    """Refuse a proxy's URL that cannot be one: requests and urllib3 fail in many ways then, and quote its password."""
    if not proxy:
        return
    proxy = secret(proxy if "://" in proxy else "http://" + proxy)
    if not _is_url(proxy):
        raise InvalidInput("the proxy's URL is malformed: {}".format(bare_url(proxy)), code="CONFIGURATION")


def _is_url(proxy: str) -> bool:
    try:
        parts = urlsplit(proxy)
        return bool(parts.hostname) and parts.port != 0 and not any(map(str.isspace, proxy))
    except ValueError:
        return False


def is_loopback(url: str) -> bool:
    """True when the URL's host is this machine by name or address."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def warn_of_exposure(base_url: str, api_key: Optional[str], verify: Union[bool, str, None]) -> None:
    """Warn of what lets others read the key: no certificate check, or a key over plain http to another host."""
    if verify is False:
        warnings.warn("verify=False: the service's TLS certificate is not checked", stacklevel=4)
    if api_key and base_url.startswith("http://") and not is_loopback(base_url):
        warnings.warn("the API key goes over plain http: anyone on the way can read it", stacklevel=4)
