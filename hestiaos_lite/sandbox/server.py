"""Listening, a thread a connection, and an end that is quick and leaves nothing behind."""

from __future__ import annotations

import logging
import os
import selectors
import socket
import threading
import time
import weakref
from typing import Callable, Dict, Optional

from .connection import Connection, Timeouts
from .http1 import ProtocolError
from .messages import Drop, Reply, Request

MAX_CONNECTIONS = 2000
BACKLOG = 1024
STOP_SECONDS = 5.0

Application = Callable[[Request], Reply]

_logger = logging.getLogger("hestiaos_lite.sandbox")


class Server:
    """An HTTP/1.1 server for one application.

    Args:
        application: gives the reply to a request; raises ``Drop`` to close the connection instead.
        host: address or name to listen on.
        port: 0 takes a free one; see ``port`` after ``start``.
        timeouts: how long a connection may keep us waiting.
    """

    def __init__(
        self, application: Application, host: str, port: int, timeouts: Optional[Timeouts] = None
    ) -> None:
        self._application = application
        self._timeouts = timeouts or Timeouts()
        self._stopping = threading.Event()
        self._process_id = os.getpid()
        self._lock = threading.Lock()
        self._connections: Dict[threading.Thread, Connection] = {}
        self._listener = _listen(host, port)
        self.port: int = self._listener.getsockname()[1]
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._acceptor = threading.Thread(target=self._accept, name="sandbox-accept", daemon=True)
        _running.add(self)
        self._acceptor.start()

    def stop(self) -> None:
        """Stop listening, close every connection, and wait for the threads."""
        with self._lock:
            if self._stopping.is_set() or self._process_id != os.getpid():
                return  # in a forked child there is nothing left to stop
            self._stopping.set()
        self._wake_sender.send(b"x")
        self._acceptor.join(STOP_SECONDS)
        with self._lock:
            connections = dict(self._connections)
        for connection in connections.values():
            connection.abort()
        deadline = time.monotonic() + STOP_SECONDS
        for thread in connections:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
        _running.discard(self)
        self._close_sockets()

    def _accept(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._wake_receiver, selectors.EVENT_READ)
            while not self._stopping.is_set():
                selector.select()
                if self._stopping.is_set():
                    break
                try:
                    sock, _ = self._listener.accept()
                except BlockingIOError:
                    continue  # the client was gone before we came
                except OSError as error:  # out of file descriptors, say: the sandbox must outlive it
                    _logger.warning("cannot accept a connection: %s", error)
                    self._stopping.wait(0.05)
                    continue
                self._start_connection(sock)
        # At once, so that a client is refused rather than left in the backlog of a server that is going away.
        self._listener.close()

    def _start_connection(self, sock: socket.socket) -> None:
        try:
            connection = Connection(sock, self._timeouts)
        except OSError:  # reset before we could set an option
            sock.close()
            return
        name = "sandbox-connection"
        thread = threading.Thread(target=self._serve, args=(connection,), name=name, daemon=True)
        with self._lock:
            full = len(self._connections) >= MAX_CONNECTIONS
            if not full:
                self._connections[thread] = connection
        if not full:
            try:
                thread.start()
                return
            except RuntimeError:  # the system gives no more threads
                with self._lock:
                    del self._connections[thread]
        _logger.warning("too many connections: one was closed")
        connection.close()

    def _serve(self, connection: Connection) -> None:
        try:
            while not self._stopping.is_set():
                request = connection.read_request()
                if request is None:
                    break
                if not connection.send_reply(request, self._answer(request)):
                    break
        except ProtocolError as error:
            self._refuse(connection, error)
        except (Drop, OSError):
            pass  # told to drop it, or the client has gone: either way there is nobody to answer
        except Exception:  # a stream failed under way: with its head out, closing is the only signal left
            _logger.exception("a reply could not be finished")
        finally:
            connection.close()
            with self._lock:
                self._connections.pop(threading.current_thread(), None)

    def _answer(self, request: Request) -> Reply:
        try:
            return self._application(request)
        except Drop:
            raise
        except Exception:  # a fault of ours must cost one request, not the sandbox
            _logger.exception("%s %s failed", request.method, request.path)
            return Reply(500, {"detail": "Internal Server Error"})

    def _refuse(self, connection: Connection, error: ProtocolError) -> None:
        try:
            connection.refuse(error)
        except OSError:
            pass  # the client did not wait for the answer

    def _close_sockets(self) -> None:
        for sock in (self._listener, self._wake_receiver, self._wake_sender):
            sock.close()


def _listen(host: str, port: int) -> socket.socket:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = found[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # a restart on the same port must not wait for old connections to fade
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


_running: weakref.WeakSet[Server] = weakref.WeakSet()


def _forget_in_child() -> None:
    """A forked child has none of our threads: let go of the sockets, or it would keep the port."""
    for server in list(_running):
        server._close_sockets()
        for connection in list(server._connections.values()):
            connection.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
