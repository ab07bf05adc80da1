"""The one way to a service. Only this folder imports requests, urllib3 and http.client.

On the way out: `call` (what is sent, by when, and may it be sent again?), `transport` (what a client's methods call, and the
one attempt loop), `connections` (requests' sessions, proxies, certificates, which connection a call gets) and `sockets` (what
keeps the deadline and knows what was sent). On the way back: `body` (an answer as it arrives), `answers` (status and body to
a value or an error) and `failures` (exception to error, one ordered table).

What it depends on beyond the public promises of those three, and in brackets the tests that would notice it gone (tests/):

- requests: ``HTTPAdapter.init_poolmanager``, ``proxy_manager_for`` and ``get_connection_with_tls_context`` (wire/
  test_connections.py, "a_connection_is_kept"), ``build_response`` (guarantees/test_faults.py); the hooks of a prepared request
  run in order (guarantees/test_delivered.py); ``Response._content`` and ``_content_consumed`` (compatibility/test_lent_answers.py).
- urllib3: a connection's ``_new_conn`` (wire/test_never_too_long.py, "silent"), ``connect``, ``_tunnel``, ``send``, ``sock`` and
  ``auto_open`` (wire/test_connections.py, "proxy"); a pool's ``ConnectionCls`` (compatibility/test_recorders.py),
  ``_validate_conn`` (wire/test_connections.py, "warns_once"), ``_get_conn`` and ``_put_conn`` (wire/test_never_twice.py,
  "given_up", "closed_while"), ``pool``; a manager's ``pool_classes_by_scheme`` and ``pools`` (guarantees/test_threads.py); a
  response's ``_fp`` and ``connection`` (wire/test_never_twice.py, "beyond").
- http.client: ``HTTPConnection.response_class`` and a response that asks its socket for ``makefile`` and nothing more
  (guarantees/test_faults.py, the drips); its ``begin`` and ``_read_status`` (guarantees/test_faults.py, interim answers),
  ``fp`` (wire/test_never_twice.py, "beyond"), ``msg.defects``, ``chunked``, ``chunk_left`` and ``length`` (wire/
  test_never_too_long.py, "in_hand", "no_header"), ``read1`` (guarantees/test_faults_stream.py); the words of its two limits on
  a head (guarantees/test_delivered.py) and of a refused tunnel (wire/test_connections.py, "wants_credentials").

The tests pass on requests 2.25.1 with urllib3 1.26.5 on Python 3.7 and on requests 2.34 with urllib3 2.8 on 3.11; CI runs
them on the newest pair of every Python from 3.7 on, and on two older ones.
"""
