"""Which connection a call gets: one that keeps the limit, chosen when it is made, and none that has been idle for long.

A tool that records or replays traffic (vcrpy, say) puts connection classes of its own where urllib3 keeps its classes, for
as long as it is at work. So nothing is decided at import: urllib3's class is looked up for each new connection, its own
ones are extended, and any other is used as it is.
"""

from __future__ import annotations

import socket
import time
from typing import Any, Dict

from urllib3.connection import HTTPConnection
from urllib3.exceptions import ClosedPoolError

from .sockets import LimitedConnection, LimitedSocksConnection

_PROBED_AFTER_SECONDS = 60

SOCKET_OPTIONS = list(getattr(HTTPConnection, "default_socket_options", ()))  # urllib3 has none for Pyodide
SOCKET_OPTIONS.append((socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1))
for _name in (
    "TCP_KEEPIDLE",
    "TCP_KEEPALIVE",
):  # the second is macOS's name; else after the system's own two hours
    if hasattr(socket, _name):
        SOCKET_OPTIONS.append((socket.IPPROTO_TCP, getattr(socket, _name), _PROBED_AFTER_SECONDS))
        break

_LIMITED = {
    "urllib3.connection": LimitedConnection,
    "urllib3.contrib.socks": LimitedSocksConnection,
}
_extended: Dict[type, type] = {}


def limit(manager: Any) -> None:
    """Make the pools of a pool manager, urllib3's own or one for a proxy, choose their connections here."""
    manager.pool_classes_by_scheme = {
        scheme: cls if issubclass(cls, _Pool) else _extend(_Pool, cls)
        for scheme, cls in manager.pool_classes_by_scheme.items()
    }


class _Pool:
    """What is mixed into urllib3's pools."""

    @property
    def ConnectionCls(self) -> type:  # noqa: N802  # urllib3's name
        """The class of the next connection."""
        cls: type = super().ConnectionCls  # type: ignore[misc]
        limited = _LIMITED.get(cls.__module__)
        return cls if limited is None or not issubclass(cls, HTTPConnection) else _extend(limited, cls)

    def _validate_conn(self, conn: Any) -> None:
        """Connect early, as urllib3 does for https, without its warning: `Client` has warned of verify=False once."""
        if conn.sock is None and self.scheme == "https":  # type: ignore[attr-defined]
            conn.connect()

    def _get_conn(self, timeout: Any = None) -> Any:
        try:
            conn: Any = super()._get_conn(timeout)  # type: ignore[misc]
        except (
            ClosedPoolError
        ):  # by another thread's `Client.close` just now: this call has a connection to itself
            return self._new_conn()  # type: ignore[attr-defined]
        idle_since = getattr(conn, "idle_since", 0.0)
        if idle_since and time.monotonic() - idle_since >= conn.longest_idle_seconds:
            conn.close()
            conn = self._new_conn()  # type: ignore[attr-defined]
        return conn

    def _put_conn(self, conn: Any) -> None:
        if isinstance(conn, LimitedConnection):
            conn.idle_since = time.monotonic()
        super()._put_conn(conn)  # type: ignore[misc]


def _extend(mixin: type, cls: type) -> type:
    if cls not in _extended:
        _extended[cls] = type(cls.__name__, (mixin, cls), {})
    return _extended[cls]
