"""The deadline on the wire: connections whose every look-up, connect, send and read stops at the call's limit.

requests and urllib3 bound each socket operation, not their sum: a server that drips one header byte at a time, or a host of
many silent addresses, would outlive any timeout. Here each operation is given what is left of the limit. The same place
knows whether a request has begun to leave, and holds the socket that a cancel from another thread has to wake.
"""

from __future__ import annotations

import _socket
import http.client
import ipaddress
import math
import os
import selectors
import socket
import threading
from functools import partial
from typing import Any, Callable, List, Mapping, Optional, Tuple, TypeVar, Union, cast

from urllib3.exceptions import NewConnectionError

from ..deadline import Deadline, SilenceLimit
from .body import LONGEST_IDLE_SECONDS, LimitedReads, Response, close, mend_head

_LONGEST_WAIT_SECONDS = 1e6  # a socket refuses a timeout beyond its C type
_HEAD_START_SECONDS = 0.25  # of an address over the next

_T = TypeVar("_T")
_current: Any = threading.local()


class Attempt:
    """One attempt at a request: the limit it runs under, and what became of it on the wire."""

    def __init__(self, limit: Union[Deadline, SilenceLimit]) -> None:
        self.limit = limit
        # requests has the request: unless one of the next two says otherwise, it may have left
        self.handed_over = False
        self.ours = False  # a connection of ours serves it, so that `sent` can be trusted
        self.sent = False  # it has begun to leave
        self.response: Any = None  # requests' own, once the head of the answer is here
        # no adapter repeats it by itself, so that an exception speaks of the only try
        self.is_single_try = True
        self.proxies: Mapping[str, str] = {}  # what requests was told to go through
        self.sock: Optional[socket.socket] = None  # the one the answer comes from

    def __enter__(self) -> Attempt:
        """Make this the attempt that the connections used by this thread work for."""
        # of the call that a signal handler's call has interrupted
        self._outer = getattr(_current, "attempt", None)
        _current.attempt = self
        return self

    def __exit__(self, *raised: object) -> None:
        _current.attempt = self._outer

    def wait_seconds(self) -> float:
        """What the next socket operation may take; raise ``socket.timeout`` when nothing is left."""
        remaining = self.limit.remaining()
        if remaining <= 0:
            raise socket.timeout("the deadline passed")
        return remaining if remaining < _LONGEST_WAIT_SECONDS else _LONGEST_WAIT_SECONDS

    def close(self) -> None:
        """Close the answer and let go of it: its request and what it reads by lead back here, and would wait for the collector."""
        response, self.response = self.response, None
        if response is not None:
            close(response)

    def borrow_socket(self, response: Any) -> None:
        """Read an answer of requests that came over a connection that is not ours through the limit, as ours are."""
        if self.sock is not None:
            return
        answer: Any = getattr(response.raw, "_fp", None)
        file: Any = getattr(answer, "fp", None)
        sock = getattr(getattr(file, "raw", None), "_sock", None)
        if sock is None:
            return
        self.sock = sock
        seconds = self.wait_seconds()
        try:
            sock.settimeout(0)
            early = file.peek(1)
        except (OSError, ValueError):
            early = b""  # TLS has nothing to read, or the connection is gone, which the next read finds out
        finally:
            sock.settimeout(seconds)  # also of the next request: urllib3 1.26 sends it with what it finds
        answer.reads = LimitedReads(sock, self.wait_seconds, early)
        answer.fp = answer.reads.makefile("rb")
        file.close()  # our own file holds the socket now
        response.headers.update(mend_head(answer))

    def note_answer(self, response: Any, *args: Any, **kwargs: Any) -> None:
        """Note, before the lender's own hooks run and may fail, that the request has arrived."""
        self.sent = True

    def wake(self) -> None:
        """End a read that another thread is blocked in: it sees the end of the stream."""
        sock: Any = self.sock
        # down to the plain socket: this one may be TLS within TLS, pyOpenSSL's, or a green one
        for _ in range(4):
            if isinstance(sock, _socket.socket):
                try:
                    # not SSLSocket.shutdown, which drops the TLS object under the reader's feet
                    _socket.socket.shutdown(sock, socket.SHUT_RDWR)
                except OSError:
                    pass  # it is closed already: nobody is left to wake
                return
            # names of urllib3 (SSLTransport, WrappedSocket), eventlet, gevent
            inner = (getattr(sock, name, None) for name in ("socket", "fd", "_sock"))
            sock = next((found for found in inner if found is not None), None)


class LimitedConnection:
    """What a connection of ours does differently from the class of urllib3's that it is mixed into.

    It is used inside an `Attempt` alone.
    """

    longest_idle_seconds = LONGEST_IDLE_SECONDS
    usable_until = math.inf  # once it is given back
    _pieces: Optional[List[bytes]] = None  # of the request that is being made

    def _new_conn(self: Any) -> socket.socket:
        attempt: Attempt = _current.attempt
        attempt.ours = True
        try:
            if self.__module__ == "urllib3.contrib.socks":
                # its look-ups and exchanges each take the whole timeout
                connect = super()._new_conn  # type: ignore[misc]
                sock: socket.socket = _in_time(connect, attempt.wait_seconds(), discard=socket.socket.close)
            else:
                sock = self._connect_within(attempt)
            try:
                sock.settimeout(attempt.wait_seconds())  # of a TLS handshake, which is one operation to it
            except OSError:  # the deadline passed while it connected
                sock.close()
                raise
            return sock
        except OSError as error:
            raise NewConnectionError(self, "cannot connect to {}: {}".format(self.host, error)) from error

    def _connect_within(self: Any, attempt: Attempt) -> socket.socket:
        """Connect to whichever address answers; urllib3 gives each of a host's addresses the whole timeout."""
        addresses = _resolve(self.host, self.port, attempt.wait_seconds())
        if len(addresses) == 1:
            return self._open_socket(attempt.wait_seconds(), addresses[0])  # type: ignore[no-any-return]
        return _first_to_connect(partial(self._open_socket, 0), addresses, attempt)

    def _open_socket(self: Any, seconds: float, address: Tuple[Any, ...]) -> socket.socket:
        """Connect to an address; with no seconds to wait only begin to."""
        sock = socket.socket(*address[:3])
        try:
            for option in self.socket_options or ():
                sock.setsockopt(*option)
            if self.source_address:
                sock.bind(self.source_address)
            sock.settimeout(seconds)
            try:
                sock.connect(address[4])  # not connect_ex, which httpretty leaves to the network
            except BlockingIOError:
                if seconds:
                    raise
        except BaseException:
            sock.close()
            raise
        return sock

    def connect(self: Any) -> None:
        attempt: Attempt = _current.attempt
        sent = attempt.sent
        try:
            super().connect()  # type: ignore[misc]
        finally:
            attempt.sent = sent  # what a proxy is told while connecting is not yet the request
        # else urllib3 warns at each connection: `Client` has warned of verify=False once
        self.is_verified = self.proxy_is_verified = True

    def _tunnel(self: Any) -> None:
        super()._tunnel()  # type: ignore[misc]
        # the TLS handshake that follows gets what the proxy has left of the limit
        self.sock.settimeout(_current.attempt.wait_seconds())

    def request(self: Any, *args: Any, **kwargs: Any) -> None:
        """Send head and body as one: a system call and a segment less."""
        pieces = self._pieces = []
        try:
            super().request(*args, **kwargs)  # type: ignore[misc]
        finally:
            self._pieces = None
        self.send(b"".join(pieces))

    def putheader(self: Any, header: str, *values: str) -> None:
        """Add a header, without urllib3's search in it for a mark that we never set."""
        http.client.HTTPConnection.putheader(self, header, *values)

    def send(self: Any, data: Any) -> None:
        if self._pieces is not None:
            self._pieces.append(data)
            return
        attempt: Attempt = _current.attempt
        if self.sock is None and self.auto_open:
            self.connect()
        attempt.ours = True
        # a kept-alive socket still has the last read's timeout (urllib3 before 1.26.5 does not reset it)
        self.sock.settimeout(attempt.wait_seconds())
        attempt.sent = True
        super().send(data)  # type: ignore[misc]

    def response_class(self, sock: socket.socket, *args: Any, **kwargs: Any) -> http.client.HTTPResponse:
        """Stand where http.client expects its response class; the response reads through the limit."""
        attempt: Attempt = _current.attempt
        attempt.sock = sock
        return Response(self, LimitedReads(sock, attempt.wait_seconds), *args, **kwargs)


def _first_to_connect(
    begin: Callable[[Tuple[Any, ...]], socket.socket], addresses: List[Tuple[Any, ...]], attempt: Attempt
) -> socket.socket:
    """Connect to several addresses side by side and return the first that is there.

    Each is begun a quarter of a second after the one before, or when those that were begun have failed (RFC 8305, section
    5): a silent first address costs that quarter and not the deadline.
    """
    failure: OSError = OSError("its host name has no address")
    with selectors.DefaultSelector() as racing:
        try:
            while addresses or racing.get_map():
                if addresses:
                    try:
                        sock = begin(addresses.pop(0))
                    except OSError as error:
                        failure = error
                        continue
                    racing.register(sock, selectors.EVENT_WRITE)
                seconds = attempt.wait_seconds()
                for key, _ in racing.select(min(seconds, _HEAD_START_SECONDS) if addresses else seconds):
                    sock = cast("socket.socket", key.fileobj)
                    racing.unregister(sock)
                    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if not code:
                        return sock
                    sock.close()
                    failure = OSError(code, os.strerror(code))
        finally:
            for key in list(racing.get_map().values()):
                cast("socket.socket", key.fileobj).close()
    raise failure


def _resolve(host: str, port: int, seconds: float) -> List[Tuple[Any, ...]]:
    """Look a host up, in a thread of its own where that may take long: the system's look-up knows no timeout."""
    host = host.strip("[]").replace("%25", "%", 1)  # a scope, as a URL spells it (RFC 6874)
    look_up = partial(socket.getaddrinfo, host, port, 0, socket.SOCK_STREAM)
    if host == "localhost" or as_address(host) is not None:
        return look_up()
    return _in_time(look_up, seconds, discard=len)


def as_address(host: str) -> Union[ipaddress.IPv4Address, ipaddress.IPv6Address, None]:
    """Return the address that a host is, without its scope; None for a name."""
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


def _in_time(work: Callable[[], _T], seconds: float, discard: Callable[[_T], object]) -> _T:
    """Return what ``work`` gives in a thread of its own; too late for that, raise ``socket.timeout`` and discard it."""
    results: List[_T] = []
    failures: List[Exception] = []
    claim = threading.Lock()  # its holder decides whether the result is still wanted

    def run() -> None:
        try:
            result = work()
        except Exception as error:  # noqa: BLE001  # raised below
            failures.append(error)
            return
        if claim.acquire(blocking=False):
            results.append(result)
        else:
            discard(result)

    try:
        thread = threading.Thread(target=run, name="hestiaos-lite-connect", daemon=True)
        thread.start()
    except RuntimeError:
        # no thread is to be had: a limit, an interpreter that ends (3.12), one that is isolated (3.12)
        return work()
    thread.join(seconds)
    if thread.is_alive() and claim.acquire(blocking=False):
        raise socket.timeout("it took too long")
    thread.join()
    if failures:
        raise failures.pop()  # from the list, which the frame of its traceback holds
    return results[0]
