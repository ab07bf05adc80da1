"""One value, planted wherever a secret may stand, is shown by nothing: no log record, repr, message, traceback or pickle.

The scenarios differ in where the value is and in how the call fails; what the service answers always quotes it.
"""

from __future__ import annotations

import copy
import html
import json
import logging
import os
import pickle
import traceback
import warnings
from typing import Any, Callable, Dict, Iterator, List, Optional

import pytest
import requests

import hestiaos_lite
from hestiaos_lite import AegisClient, Client, HestiaError, Outbox

from ..faultserver import (
    FaultServer,
    Script,
    answer,
    answer_and_close,
    answer_and_reset,
    chunked,
    closed_port,
    drop,
    head,
    ok,
    reply,
    served,
)

CANARY = 'hunter2-c4n4ry"\\\u00e9'  # with what JSON escapes in more than one way
KEY = "hunter2-c4n4ry"  # the part of it that a header can carry
MARK = "c4n4"  # without its end: a cut must show no part of it either
PACKAGE = os.path.dirname(os.path.abspath(hestiaos_lite.__file__))

QUOTED = json.dumps(CANARY)[1:-1]  # as ASCII JSON
SCRIPTS = {
    "flat": reply(401, json.dumps({"code": "NO", "message": "bad key " + CANARY}).encode()),
    "nested": reply(500, json.dumps({"detail": {"message": CANARY + " is no key", "given": CANARY}}).encode()),
    "code": reply(500, json.dumps({"code": CANARY, "message": "no"}).encode()),
    "unescaped": reply(500, json.dumps({"detail": "got " + CANARY}, ensure_ascii=False).encode()),
    "list": reply(422, json.dumps({"detail": [{"loc": [CANARY], "msg": "bad " + CANARY, "input": CANARY}]}).encode()),
    "text": reply(500, ("upstream said: " + CANARY).encode("utf-8"), {"Content-Type": "text/plain"}),
    "escaped-text": reply(500, ("upstream said: " + QUOTED).encode("ascii"), {"Content-Type": "text/plain"}),
    "across-the-cut": reply(500, ("x " * 140 + CANARY + " y" * 100).encode("utf-8"), {"Content-Type": "text/plain"}),
    "across-the-fold": reply(500, (" " * 5987 + " x " + CANARY).encode("utf-8"), {"Content-Type": "text/plain"}),
    "html": reply(502, ("<p>" + CANARY).encode("utf-8")),
    "title": reply(502, "<html><title>{} {}</title>".format(CANARY, html.escape(CANARY)).encode("utf-8")),
    "title-across-the-cut": reply(502, ("<title>" + "x " * 4990 + CANARY * 9 + "</title>").encode("utf-8")),
    "title-of-a-portal": reply(200, ("<title>" + CANARY + "</title>").encode("utf-8")),
    "title-without-an-end": reply(200, ("<title>" + " " * 9990 + CANARY).encode("utf-8")),
    "not-json": reply(200, CANARY.encode("utf-8")),
    "list-for-an-object": ok([CANARY]),
    "no-such-field": ok({"given": CANARY}),
    "not-utf-8": reply(200, b"\xff" + CANARY.encode("utf-8")),
    "redirect": reply(307, headers={"Location": "http://u:{0}@127.0.0.1/?k={0}#{0}".format(KEY)}),
    "redirect-to-a-path": reply(307, headers={"Location": "/login/" + KEY}),
    "content-type": reply(200, b"{}", {"Content-Type": "text/" + KEY}),
    "content-type-across-the-cut": reply(200, b"{}", {"Content-Type": "text/" + "x" * 66 + KEY}),
    "encoding": reply(200, CANARY.encode("utf-8"), {"Content-Encoding": "gzip"}),
    "unknown-encoding": reply(200, b"{}", {"Content-Encoding": KEY}),
    "cut": head(200, {"Content-Length": 900}) + CANARY.encode("utf-8"),
    "cut-chunk": head(200, {"Transfer-Encoding": "chunked"}) + chunked([CANARY.encode("utf-8")], end=b"zz" + KEY.encode()),
}  # fmt: skip
# what urllib3 logs of these is kept from its log on connections of ours alone
HEADS = {
    "header-without-colon": b"HTTP/1.1 200 OK\r\nX: y\r\nmy key is " + KEY.encode() + b"\r\nY: z\r\n\r\n{}",
    "header-begins-with-space": b"HTTP/1.1 200 OK\r\n " + KEY.encode() + b"\r\nY: z\r\n\r\n{}",
    "not-http": KEY.encode() + b"\r\n",
    "header-too-long": b"HTTP/1.1 200 OK\r\nX: " + KEY.encode() * 9999 + b"\r\n\r\n",
}


@pytest.fixture
def shown() -> Iterator[List[str]]:
    """Everything that anybody logs, at any level, as a handler at the root would write it, and what a test adds: none of it has the mark."""
    lines: List[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.extend([self.format(record), repr(record.args), repr(vars(record))])

    root, handler = logging.getLogger(), Keep(logging.DEBUG)
    levels = {
        logging.getLogger(name): logging.getLogger(name).level
        for name in list(logging.root.manager.loggerDict)
    }
    root_level = root.level
    for logger in levels:
        logger.setLevel(logging.NOTSET)
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield lines
        assert lines  # it did listen
        assert not [line for line in lines if MARK in line]
    finally:
        root.removeHandler(handler)
        root.setLevel(root_level)
        for logger, level in levels.items():
            logger.setLevel(level)


def variables_of(error: BaseException) -> List[str]:
    """What a tool that prints the variables of a traceback's frames shows of ours, of its causes and contexts too."""
    lines: List[str] = []
    seen: List[BaseException] = []
    waiting: List[Optional[BaseException]] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or one in seen:
            continue
        seen.append(one)
        waiting += [one.__cause__, one.__context__]
        stack = traceback.TracebackException.from_exception(one, capture_locals=True).stack
        for frame in stack:
            if frame.filename.startswith(PACKAGE):
                lines += ["{} {}={}".format(frame.name, *item) for item in (frame.locals or {}).items()]
    assert lines or error.__traceback__ is None
    return lines


def all_about(error: BaseException, payload: bool = False) -> List[str]:
    """All that can be seen of an error without asking for its details.

    Args:
        payload: the value is in a payload, which frames that the caller gave it to may show.
    """
    again = pickle.loads(pickle.dumps(error))
    return ([] if payload else variables_of(error)) + [
        str(error),
        repr(error),
        repr(error.args),
        "".join(traceback.format_exception(type(error), error, error.__traceback__)),
        str(pickle.dumps(error, 0)),
        repr(again),
        repr(vars(again)),
        repr(copy.copy(error)),
        repr(copy.deepcopy(error)),
    ]


CALLS: Dict[str, Callable[[Client], Any]] = {
    "health": lambda client: client.health(),
    "run": lambda client: client.run("hello"),
    "stream": lambda client: list(client.run_stream("hello")),
    "secret-set": lambda client: client.secrets.set("name", CANARY),
    "secret-set-to-the-key": lambda client: client.secrets.set("name", KEY),
    "secret-get": lambda client: client.secrets.get("name"),
    "secret-delete": lambda client: client.secrets.delete("name"),
    "explain": lambda client: client.governance.explain("hello"),
}


FAULTS: Dict[str, Script] = {
    "refused": drop,  # at a port where nobody listens
    "dropped": drop,
    "reset": answer_and_reset(b""),
    "cut-by-a-reset": answer_and_reset(SCRIPTS["cut"]),
}


def script_of(name: str) -> Script:
    return FAULTS.get(name) or answer_and_close(SCRIPTS.get(name) or HEADS[name])


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, kind) for name in SCRIPTS for kind in ("own", "lent")]
    + [(name, "own") for name in {**HEADS, **FAULTS}],
)
def test_an_api_key_and_a_secret_s_value(name: str, kind: str, shown: List[str]) -> None:
    with FaultServer(script_of(name)) as server, requests.Session() as lent:
        lent.headers["X-Lent"] = KEY
        url = "http://127.0.0.1:{}".format(closed_port()) if name == "refused" else server.url
        session = lent if kind == "lent" else None
        with Client(url, KEY, retries=0, timeout=10, headers={"X-More": KEY}, session=session) as client:
            shown.extend([repr(client), repr(client.secrets), repr(vars(client))])
            for call in CALLS.values():
                try:
                    call(client)
                except HestiaError as error:
                    shown.extend(all_about(error))


@pytest.mark.parametrize("where", ["environment", "session"])
@pytest.mark.parametrize(
    "url", ["http://u:{}@127.0.0.1:{}", "http://u:{}@bad host:{}", "http://u:{}@[::1:{}", "ftp://u:{}@h:{}"]
)
def test_a_proxy_s_password(url: str, where: str, shown: List[str], monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = url.format(KEY, closed_port())
    with requests.Session() as lent, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        if where == "environment":
            monkeypatch.setenv("http_proxy", proxy)
            monkeypatch.setenv("https_proxy", proxy)
        else:
            lent.proxies = {"http": proxy, "https": proxy}
        for scheme in ("http", "https"):
            session = lent if where == "session" else None
            with Client(scheme + "://service.example", KEY, retries=0, timeout=5, session=session) as client:
                with pytest.raises(HestiaError) as caught:
                    client.run("hello")
                shown.extend(all_about(caught.value) + [repr(client)])
        shown.extend(str(warning.message) for warning in warned)


def test_a_proxy_s_refusal(shown: List[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultServer(answer_and_close(reply(407, KEY.encode()))) as proxy:
        for scheme in ("http", "https"):
            monkeypatch.setenv(scheme + "_proxy", proxy.url.replace("//", "//u:{}@".format(KEY)))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                client = Client(scheme + "://service.example", KEY, retries=0, timeout=5)
            with client, pytest.raises(HestiaError) as caught:
                client.run("hello")
            shown.extend(all_about(caught.value))


@pytest.mark.parametrize("arguments", [
    {"base_url": "http://u:{}@h".format(KEY)},
    {"base_url": "http://{}@h/p?q={}".format(KEY, KEY)},
    {"base_url": "http://u:{}@[::1".format(KEY)},
    {"base_url": "u:{}@h".format(KEY)},
    {"base_url": "http://u:{}@h:99999999".format(KEY)},
    {"api_key": KEY + "\x00"},
    {"api_key": KEY + "\u4f60"},
    {"api_key": [KEY]},
    {"headers": {"X-Auth": KEY + "\n"}},
    {"headers": {"X-Auth": [KEY]}},
    {"headers": {"X-Auth": KEY + "\u4f60"}},
    {"api_key": KEY.encode()},
    *(
        dict({"api_key": KEY, "headers": {"X-Auth": KEY}}, **other)
        for other in (
            {"timeout": 0}, {"timeout": "soon"}, {"retries": -1}, {"verify": 0}, {"max_body_bytes": 0},
            {"base_url": "ftp://h"}, {"base_url": 5}, {"profile": "none"}, {"headers": {"bad name": KEY}},
        )  # fmt: skip
    ),
], ids=lambda arguments: "-".join(arguments))  # fmt: skip
def test_what_is_refused_before_anything_is_sent(arguments: Dict[str, Any], shown: List[str]) -> None:
    with pytest.raises(HestiaError) as caught:
        Client(**arguments)
    shown.extend(all_about(caught.value))


@pytest.mark.parametrize("kind", [Client, AegisClient])
@pytest.mark.parametrize(("text", "options"), [
    ("[default]\napi_key = {0}\naegis_api_key = {0}\ntimeout = soon\naegis_timeout = soon\n", {}),
    ("[default]\napi_key = {0}\u4f60\naegis_api_key = {0}\u4f60\n", {}),
    ("[default]\nbase_url = http://u:{0}@h\naegis_base_url = http://u:{0}@h\n", {}),
    ("[default]\napi_kye = {0}\n", {}),  # a slip of the pen, where warnings are errors
    ("[default]\napi_key = {0}\napi_key = {0}\n", {}),
    ("api_key = {0}\n", {}),
    ("[default]\napi_key = {0}\n", {"profile": "none"}),
    ("[default]\napi_key = {0}\xff\n", {}),
    ("[default]\napi_key_file = {1}\naegis_api_key_file = {1}\n", {}),  # the file itself: no key at all
], ids=range(9))  # fmt: skip
def test_a_file_with_a_key_that_is_refused(
    text: str, options: Any, kind: Any, shown: List[str], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.ini"
    data = text.format(KEY, path)
    path.write_bytes(data.encode("latin-1" if "\xff" in data else "utf-8"))
    path.chmod(0o600)
    monkeypatch.setenv("HESTIAOS_CONFIG", str(path))
    with warnings.catch_warnings(), pytest.raises((HestiaError, UserWarning)) as caught:
        warnings.simplefilter("error")
        kind(**options)
    shown.extend(all_about(caught.value))
    logging.getLogger().warning("heard")


@pytest.mark.parametrize(("name", "value", "provider"), [
    ("..", CANARY, "custom"),
    ("name", CANARY.encode(), "custom"),
    ("name", [CANARY], "custom"),
    ("name", CANARY, 5),
    ("name", CANARY + "\ud800", "custom"),
    (5, CANARY, "custom"),
])  # fmt: skip
def test_a_secret_s_value_that_is_not_sent(name: Any, value: Any, provider: Any) -> None:
    with Client("http://127.0.0.1:1", KEY) as client, pytest.raises(HestiaError) as caught:
        client.secrets.set(name, value, provider)
    assert not [line for line in all_about(caught.value) if MARK in line]


@pytest.mark.parametrize("script", [*SCRIPTS, *HEADS])
def test_the_key_of_aegis(script: str) -> None:
    with FaultServer(script_of(script)) as server:
        for method in ("approve", "conclude", "get_status"):
            options = {"api_key": KEY, "thread_id": "t", "max_retries": 0, "timeout": 5}
            with AegisClient(server.url, **options) as client:  # type: ignore[arg-type]
                with pytest.raises(HestiaError) as caught:
                    getattr(client, method)("key-1")
            assert not [line for line in all_about(caught.value) if MARK in line]


def test_a_key_from_the_environment(shown: List[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HESTIAOS_API_KEY", KEY)
    with FaultServer(answer_and_close(SCRIPTS["flat"])) as server, Client(server.url, timeout=5) as client:
        with pytest.raises(HestiaError) as caught:
            client.run("hello")
        assert server.requests[0].headers["authorization"] == "Bearer " + KEY
    shown.extend(all_about(caught.value) + [repr(client), repr(client._settings)])


def test_good_calls_log_none_of_it(shown: List[str]) -> None:
    run = ok({"result": "ALLOW", "trace_id": "t"})
    headers = {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"}
    events = head(200, headers) + chunked([b'data: {"type": "done"}\n\n'])
    with served(answer(ok({"value": CANARY}), reply(204), run, events), api_key=KEY) as (client, _):
        assert client.secrets.get("name") == CANARY
        client.secrets.set("name", CANARY)
        client.run("hello")
        list(client.run_stream("hello"))
    ours = [line for line in shown if line.startswith(("GET ", "POST "))]  # as the others, once a record
    assert len(ours) == 4
    assert ours[0].startswith("GET /api/secrets/name 200 in ")


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_aegis_payload(script: str, shown: List[str], tmp_path: Any) -> None:
    payload = {"amount": 5, "card": CANARY, "more": [{"note": CANARY}]}
    with FaultServer(answer_and_close(SCRIPTS[script])) as server, Outbox(tmp_path / "outbox.db") as outbox:
        for box in (None, outbox):
            with AegisClient(
                server.url, api_key=KEY, thread_id="t", max_retries=0, timeout=5, outbox=box
            ) as client:
                shown.append(repr(client))
                for decide in (client.approve, client.reject):
                    try:
                        shown.append(
                            repr(decide("key-{}-{}".format(decide.__name__, box is None), payload=payload))
                        )
                    except HestiaError as error:
                        shown.extend(all_about(error, payload=True))
                if box is not None:
                    try:
                        shown.append(repr(client.flush()))
                    except HestiaError as error:
                        shown.extend(all_about(error, payload=True))
                    shown.append(repr(outbox))
    # an answer's `data` is the service's word, and what the caller asked for; nothing else may quote the payload
    shown[:] = [line for line in shown if not line.startswith("ActionResult(")]
