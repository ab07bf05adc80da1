"""Sessions of requests: one a thread and process, with what they do differently: deadlines, no redirects, no ~/.netrc."""

from __future__ import annotations

import os
import threading
from http.cookiejar import DefaultCookiePolicy
from ipaddress import ip_address
from typing import Any, Dict, Optional, Union
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from requests.utils import get_environ_proxies, select_proxy

from .._redact import bare_url
from ..errors import InvalidInput
from .sockets import POOL_CLASSES


class Sessions:
    """One requests.Session a thread and process: requests does not promise more, and a fork must not share sockets."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._local = threading.local()
        self._all: Dict[int, requests.Session] = {}
        self._lock = threading.Lock()

    def get(self) -> requests.Session:
        if self._pid != os.getpid():
            self._begin()  # after a fork: new locks and sockets; the parent's are left alone
        holder = getattr(self._local, "holder", None)
        if holder is None:
            holder = self._local.holder = _SessionHolder(self)
        return holder.session

    def close(self) -> None:
        if self._pid != os.getpid():
            return  # a fork that has not called yet: the sockets are the parent's, and its lock may be held for ever
        with self._lock:
            sessions = list(self._all.values())
        for session in sessions:
            session.close()


class _SessionHolder:
    """Ties a session to its thread: when the thread ends, its connections are closed."""

    def __init__(self, sessions: Sessions) -> None:
        self.session = requests.Session()
        self.session.cookies.set_policy(
            DefaultCookiePolicy(allowed_domains=[])
        )  # an API client keeps no cookies
        for prefix in ("http://", "https://"):
            self.session.mount(prefix, _Adapter(pool_maxsize=4))
        self._registry = sessions._all
        self._lock = sessions._lock
        with self._lock:
            self._registry[id(self)] = self.session

    def __del__(self) -> None:
        # without the lock: a dict's pop is atomic, and a finalizer may run where its own thread holds the lock
        self._registry.pop(id(self), None)
        self.session.close()


class _Adapter(HTTPAdapter):
    """requests' adapter over connections that keep the deadline."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = POOL_CLASSES

    def close(self) -> None:
        """Close the idle connections now; urllib3 2 does so when it happens that nothing refers to their pool any more."""
        for manager in [self.poolmanager] + list(self.proxy_manager.values()):
            for key in manager.pools.keys():  # noqa: SIM118  # urllib3's own container: iterating over it is refused
                pool = manager.pools.get(key)
                if pool is not None:
                    pool.close()
        super().close()

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not proxy.lower().startswith("socks"):  # those bring connections of their own
            manager.pool_classes_by_scheme = POOL_CLASSES
        return manager


class Bearer(AuthBase):
    """The API key as a requests auth object, which ~/.netrc cannot replace."""

    def __init__(self, api_key: str) -> None:
        self._value = "Bearer " + api_key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = self._value
        return request

    def __repr__(self) -> str:
        return "<bearer token ***>"


def no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


class Redirected(Exception):
    """Raised by the response hook, before requests reads the redirect's body to prepare a request we shall not send."""

    def __init__(self, status: int, target: str) -> None:
        super().__init__(status, target)
        self.status = status
        self.target = target


def refuse_redirect(response: requests.Response, *args: Any, **kwargs: Any) -> None:
    if response.is_redirect:
        target = bare_url(response.headers["Location"])
        response.close()
        raise Redirected(response.status_code, target)


def prepared_url(base_url: str) -> str:
    """Let requests normalise the base URL once (host to ASCII, path quoted)."""
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
    if session.trust_env and not is_loopback(url):
        proxies.update(get_environ_proxies(url))
    proxies.update(session.proxies)
    check_proxy(select_proxy(url, proxies))
    if verify is None:
        verify = session.verify
        if verify is True and session.trust_env:
            verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
    if isinstance(verify, str) and not os.path.exists(verify):
        raise InvalidInput("the CA bundle {} does not exist".format(verify), code="CONFIGURATION")
    return {"proxies": proxies, "verify": verify, "cert": session.cert}


def check_proxy(proxy: Optional[str]) -> None:
    """Refuse a proxy's URL that cannot be one: requests and urllib3 fail of it in many ways, quoting its password."""
    if not proxy:
        return
    proxy = proxy if "://" in proxy else "http://" + proxy
    try:
        parts = urlsplit(proxy)
        good = (
            bool(parts.hostname) and parts.port != 0 and not any(character.isspace() for character in proxy)
        )
    except ValueError:
        good = False
    if not good:
        raise InvalidInput("the proxy's URL is malformed: {}".format(bare_url(proxy)), code="CONFIGURATION")


def is_loopback(url: str) -> bool:
    """True when the URL's host is this machine by name or address."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
