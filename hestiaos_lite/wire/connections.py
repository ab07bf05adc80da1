"""Sessions of requests, our own for each thread of each process or the one that the caller lends, and which way they go.

Each prepares a call for ``Session.send``; what ours do differently is to keep deadlines, never follow a redirect, keep no
cookies, and never read ~/.netrc. URL, proxies and certificates are resolved once, and checked before anything is sent.

A tool that records or replays traffic (vcrpy, say) puts connection classes of its own where urllib3 keeps its classes, for
as long as it is at work. So nothing is decided at import: urllib3's class is looked up for each new connection, its own
ones are extended, and any other is used as it is.
"""

from __future__ import annotations

import math
import os
import queue
import socket
import sys
import threading
import time
import warnings
from functools import lru_cache, partial
from operator import methodcaller
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple, Union
from urllib.parse import urlsplit
from weakref import WeakSet

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from requests.structures import CaseInsensitiveDict
from requests.utils import get_environ_proxies, select_proxy
from urllib3.connection import HTTPConnection
from urllib3.exceptions import ClosedPoolError
from urllib3.util import Retry, Timeout

from .._check import check_session_headers
from .._redact import bare_url, one_line, secret
from ..errors import InvalidInput, InvalidResponse
from .body import close
from .call import Call
from .sockets import Attempt, LimitedConnection, as_address

# A call ready to be sent: ``session.send(request, stream=True, allow_redirects=False, **options)``.
Prepared = Tuple[requests.Session, requests.PreparedRequest, Mapping[str, Any]]


class _Sessions:
    def __init__(self, base_url: str, auth: Optional[AuthBase], verify: Union[bool, str, None]) -> None:
        self._base_url = base_url
        self._auth = auth
        self._verify = verify


class CallersSession(_Sessions):
    """The caller's own session, used as it is and never closed.

    Of it are used ``prepare_request`` and ``send``, and so its headers, auth, hooks, adapters, proxies, cert and verify; its
    ``request`` is never called.
    """

    def __init__(self, session: requests.Session, *shared: Any) -> None:
        super().__init__(*shared)
        self._session = session

    def prepare(self, call: Call, headers: Mapping[str, str], attempt: Attempt) -> Prepared:
        """Prepare a call with all that the session adds to it."""
        session = self._session
        settings = network_settings(self._base_url, session, self._verify)
        # an auth object is always given: without one requests would ask ~/.netrc
        auth = self._auth or session.auth or (lambda request: request)
        check_session_headers(session.headers or {})
        request = session.prepare_request(
            requests.Request(
                call.method,
                self._base_url + call.path,
                # requests 2.28.1 refuses a header whose class is not str itself
                headers={name: str(value) for name, value in headers.items()},
                data=call.body,
                auth=auth,
            )
        )
        check_session_headers(request.headers)  # the auth may have set one
        request.hooks["response"].insert(0, attempt.note_answer)
        request.hooks["response"].append(partial(_refuse_redirect, call))
        attempt.proxies = settings["proxies"]
        attempt.is_single_try = self._is_single_try(request)
        seconds = attempt.wait_seconds()
        # connecting and the answer share them where requests' own code reads it
        settings["timeout"] = (
            Timeout(seconds, seconds, seconds) if attempt.is_single_try else (seconds, seconds)
        )
        return session, request, settings

    def _is_single_try(self, request: requests.PreparedRequest) -> bool:
        """True when the session certainly sends a request once: by requests' own code, told to repeat nothing."""
        adapter = self._session.get_adapter(str(request.url))
        retry = getattr(adapter, "max_retries", None)
        if type(adapter) is not HTTPAdapter or type(retry) is not Retry:
            return False
        if getattr(self._session.send, "__func__", None) is not requests.Session.send:
            return False
        if retry.total is not None:
            return retry.total in (0, False)  # it bounds the others; None bounds nothing
        counters = (retry.connect, retry.read, retry.redirect, retry.status, getattr(retry, "other", 0))
        return all(count in (0, False) for count in counters)

    def close(self) -> None:
        """Do nothing: the session is the caller's to close."""


class OwnSessions(_Sessions):
    """One requests.Session a thread and process: requests does not promise more, and a fork must not share sockets."""

    def __init__(self, *shared: Any) -> None:
        super().__init__(*shared)
        self._settings: Optional[Mapping[str, Any]] = None
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._local = threading.local()
        self._all: WeakSet[requests.Session] = WeakSet()
        self._lock = threading.Lock()

    def prepare(self, call: Call, headers: Mapping[str, str], attempt: Attempt) -> Prepared:
        """Prepare a call with its network settings named, so that requests looks up nothing.

        Left to look them up for every call, requests makes half as many calls a processor second (tests/bench/calls.py).
        """
        session = self._of_this_thread()
        if self._settings is None:
            self._settings = network_settings(self._base_url, session, self._verify)
        request = requests.PreparedRequest()
        request.method = call.method
        request.url = self._base_url + call.path
        request.headers = CaseInsensitiveDict(headers)
        request.body = call.body
        request.hooks = {"response": [partial(_refuse_redirect, call)]}
        if self._auth is not None:
            self._auth(request)
        attempt.proxies = self._settings["proxies"]
        seconds = attempt.wait_seconds()  # connections of ours ask the deadline itself
        return session, request, dict(self._settings, timeout=(seconds, seconds))

    def close(self) -> None:
        """Close the connections of every thread; a later call opens new ones."""
        if self._pid != os.getpid():
            return  # a fork that has not called yet: the sockets are the parent's, and its lock may be held for ever
        with self._lock:
            sessions = list(self._all)
        for session in sessions:
            session.close()

    def _of_this_thread(self) -> requests.Session:
        if self._pid != os.getpid():
            self._begin()  # after a fork: new locks and sockets; the parent's are left alone
        own: Optional[_OfThread] = getattr(self._local, "own", None)
        if own is None:
            own = self._local.own = _OfThread()
            with self._lock:
                self._all.add(own.session)
        return own.session


class _OfThread:
    """A thread's session, whose connections are closed when the thread ends, whoever keeps an error that refers to it."""

    def __init__(self) -> None:
        self.session = requests.Session()
        adapter = _Adapter(pool_maxsize=4)
        self.session.mount("http://", adapter)
        self.session.mount("https://", adapter)
        self._pid = os.getpid()

    def __del__(
        self, is_finalizing: Callable[[], bool] = sys.is_finalizing, getpid: Callable[[], int] = os.getpid
    ) -> None:
        # An interpreter that ends closes its sockets itself, and green threads have no queues any more to ask for them.
        # A fork, which has no other threads, drops their sessions at once: the pools' lock may be held for ever there.
        # The functions are bound beforehand: this module's own names may be gone by then.
        if not is_finalizing() and getpid() == self._pid:
            self.session.close()


_BLANK = vars(requests.Response())  # made once: its jar alone is a fiftieth of a call


class _Adapter(HTTPAdapter):
    """requests' adapter over connections that keep the deadline, with less to do for each call.

    A client's calls all go to one service by settings that `OwnSessions` resolves once; requests would find the pool for
    them, and the cookies of the answer, anew each time (a fifth of a call: tests/bench/calls.py).
    """

    _pool: Any = None

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        """Return the pool of the last call (requests 2.32 and later ask here)."""
        pool = self._pool  # at once: another thread may be closing the client
        if pool is None or pool.pool is None:
            pool = self._pool = super().get_connection_with_tls_context(*args, **kwargs)
        return pool

    def request_url(self, request: requests.PreparedRequest, proxies: Any) -> str:
        """Return what the request line names."""
        return super().request_url(request, proxies) if proxies else request.path_url

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:
        """Wrap urllib3's response, without its cookies: what would look for them is not there."""
        try:
            resp._original_response = None
        except AttributeError:
            pass  # a property without a setter, of what vcrpy 9 plays back
        response = requests.Response.__new__(requests.Response)
        response.__dict__.update(
            _BLANK, status_code=resp.status, headers=resp.headers, raw=resp, reason=resp.reason
        )
        response.__dict__.update(url=str(req.url), request=req, connection=self)
        return response

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, socket_options=SOCKET_OPTIONS, **kwargs)
        _limit(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, socket_options=SOCKET_OPTIONS, **kwargs)
        _limit(manager)
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


def complained_of(error: requests.HTTPError, request: requests.PreparedRequest) -> requests.Response:
    """Return the answer that a lender's hook has raised for (``raise_for_status``): what it means is ours to say.

    An answer to another request, such as the hook's own for a token, is not.
    """
    if error.response is None or getattr(error.response.request, "url", "") != request.url:
        raise error
    return error.response


def _refuse_redirect(call: Call, response: requests.Response, *args: Any, **kwargs: Any) -> None:
    """Raise for a redirect, which could lead the key to another host, before requests reads its body to follow it."""
    if response.is_redirect:
        target = one_line(bare_url(response.headers["Location"]), call.secrets) or "an address that is empty"
        close(response)
        message = (
            "the service redirects to {}, and a redirect is never followed; set the base URL to where it is"
        )
        facts = call.facts(status=response.status_code, delivered=True)
        raise InvalidResponse(message.format(target), **facts)


def prepared_url(base_url: str) -> str:
    """Let requests normalise the base URL once (host to ASCII, path quoted)."""
    if base_url.startswith("https:"):
        try:
            import ssl  # noqa: F401  # requests has loaded it, where there is one
        except ImportError as error:
            raise InvalidInput(
                "this Python has no ssl module: https cannot be used", code="CONFIGURATION"
            ) from error
    request = requests.PreparedRequest()
    fault: Optional[Exception] = None
    try:
        request.prepare_url(base_url, None)
        url = str(request.url)
        is_url = not url.startswith(("http:", "https:")) or _is_host(urlsplit(url).hostname or "")
    except (ValueError, requests.RequestException) as error:
        is_url, fault = False, error
    if not is_url:
        message = "the base URL {} is malformed".format(bare_url(base_url))
        raise InvalidInput(message, code="CONFIGURATION") from fault
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
    for path in (session.cert,) if isinstance(session.cert, str) else session.cert or ():
        if not os.path.exists(path):
            raise InvalidInput("the client certificate {} does not exist".format(path), code="CONFIGURATION")
    return {"proxies": proxies, "verify": verify, "cert": session.cert}


def check_proxy(proxy: Optional[str]) -> None:
    """Refuse a proxy's URL that cannot be one: requests and urllib3 fail in many ways then, and quote its password."""
    if not proxy:
        return
    proxy = secret(proxy if "://" in proxy else "http://" + proxy)
    try:
        parts = urlsplit(proxy)
        is_url = _is_host(parts.hostname or "") and parts.port != 0 and not any(map(str.isspace, proxy))
    except ValueError:
        is_url = False
    if not is_url:
        raise InvalidInput("the proxy's URL is malformed: {}".format(bare_url(proxy)), code="CONFIGURATION")


def _is_host(host: str) -> bool:
    """True unless the host is a name with an empty label or one of more than 63 letters (RFC 1035, 2.3.4)."""
    return ":" in host or all(0 < len(label) < 64 for label in host.rstrip(".").split("."))


def is_loopback(url: str) -> bool:
    """True when the URL's host is this machine by name or address."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    address = as_address(host)
    return host == "localhost" or host.endswith(".localhost") or (address is not None and address.is_loopback)


def warn_of_exposure(base_url: str, api_key: Optional[str], verify: Union[bool, str, None]) -> None:
    """Warn of what lets others read the key: no certificate check, or a key over plain http to another host."""
    if verify is False:
        warnings.warn("verify=False: the service's TLS certificate is not checked", stacklevel=4)
    if api_key and base_url.startswith("http://") and not is_loopback(base_url):
        warnings.warn("the API key goes over plain http: anyone on the way can read it", stacklevel=4)


_PROBED_AFTER_SECONDS = 60
# Linux's and macOS's; else after the system's own two hours
_PROBED_AFTER = ("TCP_KEEPIDLE", "TCP_KEEPALIVE")
# urllib3 has none for Pyodide
SOCKET_OPTIONS = list(getattr(HTTPConnection, "default_socket_options", ()))
SOCKET_OPTIONS.append((socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1))
for _option in filter(None, [getattr(socket, name, None) for name in _PROBED_AFTER]):
    SOCKET_OPTIONS.append((socket.IPPROTO_TCP, _option, _PROBED_AFTER_SECONDS))


def _limit(manager: Any) -> None:
    """Make the pools of a pool manager, urllib3's own or one for a proxy, choose their connections here."""
    manager.pool_classes_by_scheme = {
        scheme: _extend(_Pool, cls) for scheme, cls in manager.pool_classes_by_scheme.items()
    }
    # urllib3 2 closes idle connections only when it happens that nothing refers to their pool any more
    manager.pools.dispose_func = methodcaller("close")


@lru_cache(maxsize=None)
def _extend(mixin: type, cls: type) -> type:
    if issubclass(cls, mixin):
        return cls
    return type(cls.__name__, (mixin, cls), {"__module__": cls.__module__})


class _IdleConnections(List[Any]):
    """What urllib3 keeps a pool's idle connections in, without the lock that its own queue has.

    A signal's handler that makes a call while this thread holds that lock, and a fork while another does, would wait for ever.
    """

    def __init__(self, maxsize: int) -> None:
        super().__init__()
        self._maxsize = maxsize

    def get(self, block: bool = False, timeout: Any = None) -> Any:
        """Take the one that was given back last."""
        try:
            return self.pop()
        except IndexError:
            raise queue.Empty from None

    def put(self, conn: Any, block: bool = False) -> None:
        """Give one back."""
        if len(self) >= self._maxsize:
            raise queue.Full
        self.append(conn)

    qsize = list.__len__

    def empty(self) -> bool:
        """True where none is idle, which vcrpy (4 to 8) asks."""
        return not self


class _Pool:
    """What is mixed into urllib3's pools."""

    QueueCls = _IdleConnections

    @property
    def ConnectionCls(self) -> type:  # noqa: N802  # urllib3's name
        """The class of the next connection."""
        cls: type = super().ConnectionCls  # type: ignore[misc]
        is_urllib3_s = cls.__module__ in ("urllib3.connection", "urllib3.contrib.socks")
        return _extend(LimitedConnection, cls) if is_urllib3_s else cls

    def _get_conn(self, timeout: Any = None) -> Any:
        try:
            conn: Any = super()._get_conn(timeout)  # type: ignore[misc]
        except ClosedPoolError:
            # by another thread's `Client.close` just now: this call has a connection to itself
            return self._new_conn()  # type: ignore[attr-defined]
        if time.monotonic() >= getattr(conn, "usable_until", math.inf):
            conn.close()  # it is made anew when it is used
        return conn

    def _put_conn(self, conn: Any) -> None:
        if isinstance(conn, LimitedConnection):
            conn.usable_until = time.monotonic() + conn.longest_idle_seconds
        super()._put_conn(conn)  # type: ignore[misc]
