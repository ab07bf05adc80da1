"""The one way to a service. Only this folder imports requests, urllib3 and http.client.

On the way out: `call` (what is sent, by when, and may it be sent again?), `transport` (what a client's methods call, and the
one attempt loop), `connections` (requests' sessions, proxies, certificates, which connection a call gets) and `sockets` (what
keeps the deadline and knows what was sent). On the way back: `body` (an answer as it arrives), `answers` (status and body to
a value or an error) and `failures` (exception to error, one ordered table).

What it depends on beyond the public promises of those three is a table in docs/design.md ("What it stands on"), each hook with
what would notice it gone.

The tests pass on requests 2.25.1 with urllib3 1.26.5 on Python 3.7 and on requests 2.34 with urllib3 2.8 on 3.11; CI runs
them on the newest pair of every Python from 3.7 on, and on two older ones.
"""
