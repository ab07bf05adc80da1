"""The one way to a service: `call` (what to send), `transport` (the one attempt loop), and what serves them.

Only this folder imports requests, urllib3 and http.client.
"""
