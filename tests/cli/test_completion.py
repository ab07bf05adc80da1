"""The completion scripts: shipped, current, and of use."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
from typing import Any, List

import pytest

from hestiaos_lite.cli import make_completions
from hestiaos_lite.cli.completion import SHELLS

from ..cli_call import ROOT, call


def shipped(shell: str) -> str:
    with open(os.path.join(make_completions.FOLDER, "hestiaos-lite." + shell), encoding="utf-8") as file:
        return file.read()


@pytest.mark.parametrize("shell", SHELLS)
def test_it_prints_what_is_shipped(shell: str) -> None:
    assert call("completion", shell).out == shipped(shell)


@pytest.mark.parametrize("shell", SHELLS)
def test_they_are_current(shell: str) -> None:
    shtab = pytest.importorskip("shtab", reason="shtab is a development dependency: pip install '.[dev]'")
    made_with = shipped(shell).splitlines()[-1].split()[-1]
    if shtab.__version__ != made_with:
        pytest.skip("the scripts were made with shtab {}, here is {}".format(made_with, shtab.__version__))
    assert shipped(shell) == make_completions.make(shell), (
        "stale: python -m hestiaos_lite.cli.make_completions"
    )


@pytest.mark.parametrize("shell", SHELLS)
def test_they_know_every_command_and_option(shell: str) -> None:
    """Needs no shtab, so that a forgotten regeneration shows everywhere."""
    script = shipped(shell)
    for parser in make_completions.walk(make_completions.build_parser()):
        for action in parser._actions:
            names = list(action.option_strings)
            if isinstance(action, argparse._SubParsersAction):
                names = list(action.choices)
            for name in names:
                word = name.lstrip("-") if shell == "fish" else name
                assert word in script, "stale: {} of {}".format(name, parser.prog)


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash on this machine")
@pytest.mark.parametrize(
    "words, offered",
    [
        (["hea"], ["health"]),
        (["--json", "out"], ["outbox"]),
        (["run", "--str"], ["--stream"]),
        (["hitl", "ap"], ["approve"]),
        (["hitl", "approve", "--pay"], ["--payload"]),
        (["completion", "z"], ["zsh"]),
        (["outbox", "list", "--outbox", "setup."], ["setup.cfg"]),
    ],
    ids=" ".join,
)
def test_bash_completes(words: List[str], offered: Any) -> None:
    line = ["hestiaos-lite"] + words
    script = shipped("bash") + (
        '\nCOMP_WORDS=("$@"); COMP_CWORD=$(($#-1)); COMPREPLY=()\n'
        '_shtab_hestiaos_lite "$1" "${@: -1}" "${@: -2:1}"\nprintf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        ["bash", "-c", script, "bash"] + line, stdout=subprocess.PIPE, cwd=ROOT, check=True, timeout=30
    )
    assert done.stdout.decode("utf-8").split() == offered
