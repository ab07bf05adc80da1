"""CONTRIBUTING.md's list of what a call needs: every call has all of it, or the test names the file that lacks it."""

from __future__ import annotations

import inspect
import re
from typing import Callable, Dict, List

import pytest

import hestiaos_lite
from hestiaos_lite import Client, namespaces

from .markdown import ROOT

# Another way to ask for the same request.
SAME_REQUEST = {"chat.send": "chat.run", "governance.require": "governance.explain"}

WITHOUT_A_COMMAND = {"governance.trace"}  # `hestiaos-lite trace` shows the traces of runs


def discovered() -> List[str]:
    """The calls that the code has, whatever is written of them."""
    client = Client("http://127.0.0.1:1")
    found = [name for name, _ in inspect.getmembers(Client, inspect.isfunction)]
    for space in dir(Client):
        value = getattr(client, space)
        if type(value).__module__ == namespaces.__name__:
            found += [
                "{}.{}".format(space, name) for name, _ in inspect.getmembers(type(value), inspect.isfunction)
            ]
    client.close()
    return sorted(name for name in found if "_" not in (name[0], name.split(".")[-1][0]) and name != "close")


CALLS = discovered()


def text_of(place: str) -> str:
    path = ROOT / place
    return "\n".join(
        file.read_text(encoding="utf-8") for file in (sorted(path.rglob("*.py")) if path.is_dir() else [path])
    )


def request_of(call: str) -> List[str]:
    """The method and path of docs/contract.md."""
    return re.findall(
        r"^\| `{}` \| `(\w+) ([^` ]+)".format(re.escape(call)), text_of("docs/contract.md"), re.MULTILINE
    )


def answers_with_a_model(call: str) -> bool:
    owner, name = ("", call) if "." not in call else call.split(".")
    of = getattr(Client("http://127.0.0.1:1"), owner) if owner else Client
    names = set(re.findall(r"\w+", str(inspect.signature(getattr(of, name)).return_annotation)))
    return bool(names & (set(hestiaos_lite.__all__) | {"Dict", "str", "None"}))


# The places of the list, and whether a call is there.
NEEDS: Dict[str, Callable[[str], object]] = {
    "docs/contract.md": request_of,
    "hestiaos_lite/models/": answers_with_a_model,
    "hestiaos_lite/sandbox/": lambda call: all('"' + path.split("{")[0] in text_of("hestiaos_lite/sandbox") for _, path in request_of(call)),
    "hestiaos_lite/cli/": lambda call: (
        call in WITHOUT_A_COMMAND or ".{}(".format(call) in text_of("hestiaos_lite/cli")
    ),
    "docs/reference.md": lambda call: re.search(r"^[Cc]lient\.{}\(".format(re.escape(call)), text_of("docs/reference.md"), re.MULTILINE),
    "tests/guarantees/test_short_way.py": lambda call: '"{}": '.format(call) in text_of("tests/guarantees/test_short_way.py"),
}  # fmt: skip


def test_the_list_names_these_places() -> None:
    section = text_of("CONTRIBUTING.md").partition("## Add a call\n")[2].partition("\n## ")[0]
    assert set(NEEDS) - set(re.findall(r"`([\w/.]+)`", section)) == set()


@pytest.mark.parametrize("call", CALLS)
def test_a_call_has_all_that_the_list_names(call: str) -> None:
    assert [place for place, has in NEEDS.items() if not has(SAME_REQUEST.get(call, call))] == []


def test_the_calls_are_seen() -> None:
    assert {"run", "chat.run", "secrets.delete", "governance.trace"} <= set(CALLS)
