"""What a job of many calls pays: calls a second of the client's processor time."""

from __future__ import annotations

from typing import List

from .measure import Row, at_least, cpu_per_second, median_ratio
from .peers import BODY

CALLS = 1000


def rows(url: str) -> List[Row]:
    """`Client.run` against `requests.Session().post(...).json()`, on one kept-alive connection each."""
    import requests

    from hestiaos_lite import Client

    session = requests.Session()

    def ours() -> int:
        for _ in range(CALLS):
            client.run("hi")
        return CALLS

    def theirs() -> int:
        for _ in range(CALLS):
            session.post(url + "/calls/api/v1/run", json=BODY, timeout=30).json()
        return CALLS

    with Client(url + "/calls") as client, session:
        ours()
        theirs()
        return [
            at_least(
                "calls a cpu second / Session.post",
                median_ratio(9, lambda: cpu_per_second(ours), lambda: cpu_per_second(theirs)),
                2.1,
            )
        ]
