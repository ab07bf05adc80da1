"""What a job of many calls pays: calls a second of the client's processor time."""

from __future__ import annotations

import io
import json
from typing import Any, Callable, Dict, List

from .measure import Row, at_least, cpu_per_second, median_ratio, told
from .peers import BODY

CALLS = 1000


def rows(url: str) -> List[Row]:
    """`Client.run` against `requests.Session().post(...).json()`, on one kept-alive connection each."""
    import requests

    from hestiaos_lite import Client

    session = requests.Session()
    endpoint = url + "/calls/api/v1/run"

    with Client(url + "/calls") as client, session:
        ours = _many(lambda: client.run("hi"))
        theirs = _many(lambda: session.post(endpoint, json=BODY, timeout=30).json())
        ours()
        theirs()
        return [
            at_least(
                "calls a cpu second / Session.post",
                median_ratio(9, lambda: cpu_per_second(ours), lambda: cpu_per_second(theirs)),
                2.1,
            )
        ] + [
            told(
                "calls a cpu second / {}".format(name),
                median_ratio(5, lambda: cpu_per_second(ours), lambda: cpu_per_second(_many(call))),
            )
            for name, call in _not_python(endpoint).items()
        ]


def _many(call: Callable[[], Any]) -> Callable[[], int]:
    def work() -> int:
        for _ in range(CALLS):
            call()
        return CALLS

    return work


def _not_python(endpoint: str) -> Dict[str, Callable[[], Any]]:
    """The same call by clients written in C and Rust, where they are installed."""
    calls: Dict[str, Callable[[], Any]] = {}
    try:
        import pycurl
    except ImportError:
        pass
    else:
        handle = pycurl.Curl()
        handle.setopt(pycurl.URL, endpoint)
        handle.setopt(pycurl.HTTPHEADER, ["Content-Type: application/json"])

        def curl() -> Any:
            answer = io.BytesIO()
            handle.setopt(pycurl.POSTFIELDS, json.dumps(BODY))
            handle.setopt(pycurl.WRITEDATA, answer)
            handle.perform()
            return json.loads(answer.getvalue())

        calls["pycurl"] = curl
    try:
        import primp
    except ImportError:
        pass
    else:
        client = primp.Client()
        calls["primp"] = lambda: client.post(endpoint, json=BODY).json()
    return calls
