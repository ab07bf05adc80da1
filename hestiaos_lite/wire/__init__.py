"""The one way to a service. Only this folder imports requests, urllib3 and http.client.

On the way out: `caller` (a client's methods call it), `call` (what is sent, by when), `transport` (the one attempt loop),
`retry` (may it be sent again?), `session` and `network` (requests' session, proxies and certificates), `pools` and `sockets`
(connections that keep the deadline and know what was sent). On the way back: `body` (bytes as they arrive), `answers` (status
and body to a value or an error), `bytestream` (the body of a stream), `failures` (what an exception below means), `log`.

What it stands on beyond the public promises of those three:

- requests: ``HTTPAdapter.init_poolmanager``, ``proxy_manager_for``, ``get_connection_with_tls_context`` and
  ``build_response``; the hooks of a prepared request run in order.
- urllib3: a connection's ``_new_conn``, ``connect``, ``_tunnel``, ``send``, ``sock`` and ``auto_open``; a pool's
  ``ConnectionCls``, ``_validate_conn``, ``_get_conn`` and ``_put_conn``; a manager's ``pool_classes_by_scheme`` and
  ``pools``; a response's ``_fp``.
- http.client: ``HTTPConnection.response_class``; a response that asks its socket for ``makefile`` and nothing more, its
  ``begin``, ``_read_status``, ``fp``, ``msg`` and ``read1``; the words of its two limits on a head and of a refused tunnel.

The tests pass on requests 2.25.1 with urllib3 1.26.5 on Python 3.7 and on requests 2.34 with urllib3 2.8 on 3.11; CI runs
them on the newest pair of every Python from 3.7 on, and on two older ones.
"""
