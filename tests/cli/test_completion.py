"""Completion: what the program offers, and that each shell's script brings it to the line that is being typed."""

from __future__ import annotations

import os
import select
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List

import pytest

from hestiaos_lite.cli.commands import commands_of
from hestiaos_lite.cli.help import SCRIPTS, complete

from ..cli_call import ROOT, Called, call, start_in_a_terminal

SHELL_LIMIT_SECONDS = 30


@pytest.mark.parametrize("shell", SCRIPTS)
def test_it_prints_the_script(shell: str) -> None:
    assert call("completion", shell) == Called(0, SCRIPTS[shell], "")
    assert call("completion", shell, "-j").json == {"shell": shell, "script": SCRIPTS[shell]}


@pytest.mark.parametrize("words, offered", [
    (["hea"], ["health"]),
    (["zzz"], []),
    (["--json", "out"], ["outbox"]),
    (["--timeout", "3", "hea"], ["health"]),
    (["--timeout=3", "hea"], ["health"]),
    (["--timeout", "hea"], []),
    (["run", "--str"], ["--stream"]),
    (["run", "some text", "--api"], ["--api-key", "--api-key-file"]),
    (["run", "-u"], ["-u"]),
    (["run", ""], []),
    (["run", "--", "--str"], []),
    (["bogus", ""], []),
    (["hitl", "ap"], ["approve"]),
    (["hitl", "approve", "--pay"], ["--payload"]),
    (["hitl", "approve", "k", "--payload", "{"], []),
    (["hitl", "approve", "k", "--payload", "@x"], [":files\t@"]),
    (["hitl", "approve", "k", "--payload=@x"], [":files\t--payload=@"]),
    (["outbox", "list", "--state", "d"], ["dead"]),
    (["outbox", "list", "--outbox", ""], [":files\t"]),
    (["health", "--api-key-file", ""], [":files\t"]),
    (["batch", ""], [":files\t"]),
    (["batch", "in", ""], []),
    (["batch", "-", ""], []),
    (["batch", "--jobs", "3", ""], [":files\t"]),
    (["batch", "in", "--out", ""], [":files\t"]),
    (["batch", "in", "--failed=b"], [":files\t--failed="]),
    (["batch", "in", "--call=r"], ["--call=run"]),
    (["sandbox", "--policy", ""], [":files\t"]),
    (["guard", "--", "./scr"], [":files\t"]),
    (["guard", "--", "sort", "-u", ""], [":files\t"]),
    (["completion", ""], ["bash", "zsh", "fish"]),
    (["help", "e"], ["environment", "exit-codes", "explain"]),
    (["help", "hitl", "k"], ["key"]),
    (["help", "hitl", "e"], []),
], ids=" ".join)  # fmt: skip
def test_what_is_offered(words: List[str], offered: List[str]) -> None:
    lines = list(complete(words))
    assert [line if line.startswith(":") else line.partition("\t")[0] for line in lines] == offered


def test_it_explains_what_it_offers() -> None:
    assert list(complete([""])) == ["{0.name}\t{0.help}".format(command) for command in commands_of("")]
    assert list(complete(["secret", "g"])) == ["get\tprint the value"]
    assert list(complete(["health", "--json"])) == ["--json\tprint JSON"]


def test_each_option_is_offered_in_its_long_form() -> None:
    offered = [line.partition("\t")[0] for line in complete(["run", "-"])]
    assert offered[:3] == ["--help", "--stream", "--session-id"]
    assert [word for word in offered if not word.startswith("--")] == []


def test_the_hidden_command_prints_it() -> None:
    assert call("__complete", "completion", "f") == Called(0, "fish\n", "")
    assert call("__complete", "run", "x") == Called(0, "", "")
    assert "__complete" not in call("--help").out


LINES = [
    ("hea", "health"),
    ("hitl appr", "hitl approve"),
    ('run "two words" --str', 'run "two words" --stream'),
    ("batch in.jsonl --call=ch", "batch in.jsonl --call=chat"),
    ("batch inp", "batch input.jsonl"),
    ("batch x --out inp", "batch x --out input.jsonl"),
    ("batch x --out=inp", "batch x --out=input.jsonl"),
    ("batch two\\ w", "batch two\\ words.jsonl"),
    ("hitl approve k --payload @inp", "hitl approve k --payload @input.jsonl"),
    ("hitl approve k --payload=@inp", "hitl approve k --payload=@input.jsonl"),
    ("hitl approve k --payload @two\\ w", "hitl approve k --payload @two\\ words.jsonl"),
    ("run inp", "run inp"),
]


@pytest.fixture(name="shell_environment")
def _shell_environment(tmp_path: Path) -> Dict[str, str]:
    """A folder with files in it, and a ``hestiaos-lite`` on the path that is this one."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "hestiaos-lite"
    program.write_text(
        "#!/bin/sh\nPYTHONPATH='{}' exec '{}' -S -m hestiaos_lite \"$@\"\n".format(ROOT, sys.executable)
    )
    program.chmod(0o755)
    for name in ("input.jsonl", "two words.jsonl"):
        (tmp_path / name).touch()
    return dict(
        os.environ, PATH="{}:{}".format(program.parent, os.environ["PATH"]), TERM="dumb", HOME=str(tmp_path)
    )


def read_until(screen: int, mark: str) -> str:
    """What a terminal shows, up to the mark."""
    shown = ""
    deadline = time.monotonic() + SHELL_LIMIT_SECONDS
    while mark not in shown:
        left = deadline - time.monotonic()
        assert left > 0, "the shell showed {!r}, not {!r}".format(shown, mark)
        if select.select([screen], [], [], left)[0]:
            shown += os.read(screen, 4096).decode("utf-8", "replace")
    return shown


SHELLS: Dict[str, Any] = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "bind 'set enable-bracketed-paste off'"),
    "zsh": (["zsh", "-f", "-i"], "autoload -U compinit; compinit -u -D; unsetopt zle_bracketed_paste"),
}


@pytest.mark.skipif(os.name != "posix", reason="terminals as POSIX has them")
@pytest.mark.parametrize("shell", SHELLS)
def test_a_tab_in_a_real_shell(shell: str, shell_environment: Dict[str, str], tmp_path: Path) -> None:
    """Each line is typed with a tab, and then run as the arguments of a command that prints them."""
    argv, setup = SHELLS[shell]
    if shutil.which(shell) is None:
        pytest.skip("no {} on this machine".format(shell))
    script = tmp_path / "script"
    script.write_text(SCRIPTS[shell])
    # ^A goes to the beginning of the line; the mark is written so that its echo is not taken for its output
    setup += "; . {}; show() {{ printf '<%s>' \"$@\"; echo en''d; }}; echo rea''dy\n".format(script)
    child, screen = start_in_a_terminal(argv, shell_environment, str(tmp_path))
    try:
        os.write(screen, "PS1=; {}".format(setup).encode("utf-8"))
        read_until(screen, "ready")
        for typed, completed in LINES:
            os.write(screen, "hestiaos-lite {}\t\x01show \n".format(typed).encode("utf-8"))
            shown = read_until(screen, "end")
            expected = "".join(map("<{}>".format, shlex.split("hestiaos-lite " + completed)))
            assert expected + "end" in shown, (typed, shown)
    finally:
        child.kill()
        child.wait()
        os.close(screen)


@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish on this machine")
def test_a_tab_in_fish(shell_environment: Dict[str, str], tmp_path: Path) -> None:
    """fish says itself what a tab would offer."""
    script = tmp_path / "script"
    script.write_text(SCRIPTS["fish"])
    asked = "".join(
        "echo {}; complete -C {};".format(number, shlex.quote("hestiaos-lite " + typed))
        for number, (typed, _) in enumerate(LINES)
    )
    done = subprocess.run(
        ["fish", "--no-config", "-c", "source {}; {}".format(script, asked)],
        stdout=subprocess.PIPE,
        env=shell_environment,
        cwd=str(tmp_path),
        check=True,
        timeout=SHELL_LIMIT_SECONDS,
    )
    offered: Dict[int, List[str]] = {}
    for line in done.stdout.decode("utf-8").splitlines():
        if line.isdigit():
            current = offered[int(line)] = []
        else:
            current.append(line.partition("\t")[0])
    expected = {}
    for number, (typed, completed) in enumerate(LINES):
        expected[number] = [] if typed == completed else shlex.split(completed)[-1:]
    assert offered == expected
