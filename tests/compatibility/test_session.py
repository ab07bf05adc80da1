"""What a session is used for that a caller lends: ``prepare_request`` and ``send``, with all that they go by."""

from __future__ import annotations

from pathlib import Path
from typing import Any, List
from urllib.parse import quote

import pytest
import requests

from hestiaos_lite import AegisClient, Client, InvalidInput, Outbox

from ..faultserver import FaultServer, answer, ok
from . import needs

HEALTHY = ok({"status": "ok"})


class Wrapped(requests.Session):
    """A session that adds a token in ``request``, as OAuth2Session does."""

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:  # type: ignore[override]
        raise AssertionError("it is not called")


def token(request: requests.PreparedRequest) -> requests.PreparedRequest:
    request.headers["Authorization"] = "Bearer token"
    return request


def test_what_goes_out() -> None:
    seen: List[int] = []
    with FaultServer(answer(HEALTHY)) as server, Wrapped() as callers:
        callers.headers["X-Team"] = "nightly"
        callers.auth = token
        callers.hooks["response"].append(lambda response, *args, **kwargs: seen.append(response.status_code))
        with Client(server.url, session=callers) as client:
            assert client.health().ok
        sent = server.requests[0].headers
        assert (sent["x-team"], sent["authorization"], seen) == ("nightly", "Bearer token", [200])


@pytest.mark.parametrize("by", [pytest.param("OAuth2Session", marks=needs("requests_oauthlib"))])
def test_the_token_of_requests_oauthlib(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is added in ``request``, and so does not go out by itself; as the session's auth it does."""
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")
    from requests_oauthlib import OAuth2, OAuth2Session

    bearer = {"access_token": "token", "token_type": "Bearer"}
    with FaultServer(answer(HEALTHY)) as server, OAuth2Session("id", token=bearer) as callers:
        with Client(server.url, session=callers) as client:
            client.health()
            callers.auth = OAuth2("id", token=bearer)
            client.health()
        assert [request.headers.get("authorization") for request in server.requests] == [None, "Bearer token"]


# -- a service on a Unix socket


@pytest.mark.parametrize("by", [pytest.param("requests-unixsocket", marks=needs("requests_unixsocket"))])
def test_a_service_on_a_unix_socket(by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import requests_unixsocket

    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")  # is nothing to it
    monkeypatch.chdir(tmp_path)  # the name of such a socket may not be long
    url = "http+unix://{}".format(quote(str(tmp_path / "S"), safe=""))
    with FaultServer(answer(HEALTHY), unix_path="S"), requests_unixsocket.Session() as callers:
        with Client(url + "/", session=callers, retries=0) as client:
            assert client.health().ok
            assert client.base_url == url


def test_a_scheme_is_taken_where_an_adapter_is_mounted_for_it(tmp_path: Path) -> None:
    url = "http+unix://%2Frun%2FService.sock"
    with requests.Session() as callers, Outbox(tmp_path / "outbox") as outbox:
        for make in (Client, AegisClient):
            with pytest.raises(InvalidInput, match="must begin with http"):
                make(url, session=callers)
        callers.mount("http+unix://", requests.adapters.HTTPAdapter())
        for make in (Client, AegisClient):
            assert make(url, session=callers).base_url == url
            with pytest.raises(InvalidInput, match="must begin with http"):
                make("ftp://service.example", session=callers)
        # two sockets whose names differ in case are two services
        names = {
            AegisClient(each, session=callers, outbox=outbox)._service
            for each in (url, url.replace("Service", "service"), url + "/")
        }
        assert len(names) == 2
