"""The documents are executed: what their Python prints, what their commands print, the links, and what the code says of them.

- ``python``: a script against a sandbox of its own; ``print(x)  # text`` says what the line prints.
- ``console``: line by line in one folder; what follows a ``$`` line is what it prints.
- ``crontab``: each line in cron's environment; it succeeds and prints nothing, so that there is nothing to mail.
- ``ini``: a configuration file that the library reads, with every key it knows.
- ``sh``: commands of .ci/run. ``text`` and ``json`` are shown only.

The README is short, shows the ways in, and names a test for each promise.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Iterator, List, Tuple

import pytest

import hestiaos_lite
from hestiaos_lite import models
from hestiaos_lite.config import resolve
from hestiaos_lite.sandbox import Sandbox
from tests.cli_call import Called, call
from tests.markdown import (
    DOCUMENTS,
    ROOT,
    Block,
    anchors_of,
    blocks_of,
    check_signature,
    commands,
    jobs,
    links_of,
    run_job,
    shell_environment,
)

REFERENCE = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = [block for path in DOCUMENTS for block in blocks_of(path)]


def written_in(language: str) -> List[object]:
    return [pytest.param(block, id=str(block)) for block in BLOCKS if block.language == language]


def consoles() -> List[object]:
    """The console blocks; those of the tutorial, which go on where the one before has ended, are one."""
    tutorial = [block for block in BLOCKS if block[0::2] == ("docs/tutorial.md", "console")]
    whole = Block("docs/tutorial.md", 0, "console", "".join(block.text for block in tutorial))
    others = [block for block in BLOCKS if block.language == "console" and block not in tutorial]
    return [pytest.param(block, id=str(block)) for block in [*others, whole]]


@pytest.fixture
def at_a_terminal(box: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder with nothing in it, with the reader's settings; processes inherit both."""
    monkeypatch.chdir(tmp_path)
    for name, value in shell_environment(box).items():
        monkeypatch.setenv(name, value)


def test_every_block_says_what_it_is() -> None:
    known = {"python", "console", "crontab", "ini", "sh", "text", "json"}
    assert {block.language for block in BLOCKS} <= known
    for path in DOCUMENTS:
        fences = re.findall("^```", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert len(fences) == 2 * len(blocks_of(path)), path


@pytest.mark.parametrize("block", written_in("python"))
def test_python(block: Block, at_a_terminal: None, capsys: pytest.CaptureFixture[str]) -> None:
    promised = [
        found.group(1) for found in re.finditer(r"^ *(?:print\(.*)?\)  # (.*)$", block.text, re.MULTILINE)
    ]
    exec(compile(block.text, str(block), "exec"), {"__name__": "__main__"})
    assert " ".join(capsys.readouterr().out.split()) == " ".join(promised)


@pytest.mark.parametrize("block", consoles())
def test_console(block: Block, at_a_terminal: None) -> None:
    shown = commands(block.text)
    assert shown
    for command, output in shown:
        assert (command, *printed_by(command)) == (command, 0, output)


# Of a line that begins with a command of ours: its words. A guarded command would take this process's place.
OURS = re.compile(r"""hestiaos-lite (?!guard)((?:"[^"$]*"|[^"$'|<>&;])+?)(?= \d?>| \||$)""")


def printed_by(line: str) -> Tuple[int, str]:
    """The exit code and the standard output of a console's line, for which the shell starts nothing that can be called here."""
    called = Called(0, "", "")
    ours = OURS.match(line)
    if ours:
        called = call(*shlex.split(ours.group(1)))
        line = 'hestiaos-lite() { printf %s "$OUT"; printf %s "$ERR" >&2; return $CODE; }; ' + line
    variables = dict(os.environ, OUT=called.out, ERR=called.err, CODE=str(called.code))
    done = subprocess.run(["bash", "-c", line], stdout=subprocess.PIPE, env=variables, timeout=60, text=True)
    return done.returncode, done.stdout


@pytest.mark.parametrize("block", written_in("crontab"))
def test_crontab(block: Block, box: Sandbox, tmp_path: Path) -> None:
    settings, lines = jobs(block.text)
    assert lines
    for line in lines:
        done = run_job(line, settings, tmp_path, box.url)
        assert (done.returncode, done.stdout) == (0, ""), line


@pytest.mark.parametrize("block", written_in("ini"))
def test_configuration_file(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, key = tmp_path / "config.ini", tmp_path / "key"
    key.write_text("k3y\n", encoding="utf-8")
    key.chmod(0o600)
    path.write_text(re.sub(r"(api_key_file = ).*", r"\g<1>" + str(key), block.text), encoding="utf-8")
    path.chmod(0o600)
    for name in ("BASE_URL", "API_KEY", "API_KEY_FILE", "TIMEOUT", "TENANT_ID", "THREAD_ID"):
        for service in ("HESTIAOS_", "AEGIS_"):
            monkeypatch.delenv(service + name, raising=False)
    monkeypatch.setenv("HESTIAOS_CONFIG", str(path))
    assert resolve("hestiaos").base_url == "https://hestia.example"
    assert resolve("aegis").tenant_id == "acme"


@pytest.mark.parametrize("block", written_in("sh"))
def test_shell_is_what_ci_runs(block: Block) -> None:
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for line in block.text.splitlines():
        assert line in ci, line


@pytest.mark.parametrize("block", written_in("json"))
def test_json(block: Block) -> None:
    json.loads(block.text)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links(path: Path) -> None:
    for target in links_of(path):
        name, _, anchor = target.partition("#")
        linked = (path.parent / name) if name else path
        assert linked.exists(), target
        assert not anchor or anchor in anchors_of(linked), target


def signatures() -> Iterator[Tuple[str, str]]:
    """The calls that docs/reference.md lists: their names and their parameters."""
    section = REFERENCE.partition("## Public names")[2].partition("\n## ")[0]
    block = re.sub(r"\n +", " ", section.partition("```text\n")[2].partition("```")[0])
    lines = block.replace("), ", ")\n")
    yield from re.findall(r"^([\w.]+)(\(.*?\))(?=$| ->|,)", lines, re.MULTILINE)


def test_signatures() -> None:
    listed = list(signatures())
    assert len(listed) > 30
    for name, parameters in listed:
        check_signature(name, parameters)


def test_every_public_name_is_documented() -> None:
    unnamed = [name for name in hestiaos_lite.__all__ if name not in REFERENCE]
    assert [name for name in unnamed if not re.match(r"is_\w+_event|__version__", name)] == []


def test_the_models_have_the_fields_that_are_documented() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([\w, ]*)\| ([\w, ]+) \| .*\|$", REFERENCE, re.MULTILINE)
    assert len(rows) == len(models.__all__)
    for name, required, optional in rows:
        documented = ", ".join(filter(None, [required.strip(), optional.strip(), "extra"]))
        fields = dataclasses.fields(getattr(hestiaos_lite, name))
        assert ", ".join(field.name for field in fields) == documented, name


@pytest.mark.skipif(sys.version_info < (3, 11), reason="older Pythons show a signature otherwise")
def test_the_page_of_the_api_is_made_from_the_source_of_today(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else: ``python docs/make_api.py > docs/api.md``."""
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    made = runpy.run_path(str(ROOT / "docs" / "make_api.py"))["page"]()
    assert (ROOT / "docs" / "api.md").read_text(encoding="utf-8") == "\n".join(made) + "\n"


def test_every_error_code_of_ours_is_documented() -> None:
    table = REFERENCE.partition("### Error codes")[2].partition("\n## ")[0]
    pattern = r'(?:HestiaError\(|code=|"code": |default_code = |unknown\()\s*"([A-Z_]{5,})"'
    codes = {
        code
        for path in (ROOT / "hestiaos_lite").rglob("*.py")
        if path.parent.name != "sandbox"
        for code in re.findall(pattern, path.read_text(encoding="utf-8"))
    }
    assert codes - set(re.findall(r"`([A-Z_]+)`", table)) == set()


def named_in_code() -> Iterator[Tuple[str, str, str]]:
    """Where the code sends its reader: (file, document, heading or ""), as in ``docs/reference.md, "Retries"``."""
    for path in sorted((ROOT / "hestiaos_lite").rglob("*.py")) + sorted((ROOT / "tests").rglob("*.py")):
        if path.name != Path(__file__).name:
            text = re.sub(r"\n *#? *", " ", path.read_text(encoding="utf-8"))
            for document, heading in re.findall(r'(docs/\w+\.md)(?:, "([^"]+)")?', text):
                yield str(path.relative_to(ROOT)), document, heading


def test_the_code_names_what_the_documents_have() -> None:
    named = sorted(set(named_in_code()))
    assert named
    for path, document, heading in named:
        assert (ROOT / document).is_file(), (path, document)
        headings = re.findall(r"^#+ (.*)$", (ROOT / document).read_text(encoding="utf-8"), re.MULTILINE)
        assert not heading or heading in headings, (path, document, heading)


def test_the_table_of_exit_codes_says_what_the_help_says() -> None:
    section = REFERENCE.partition("## Exit codes")[2].partition("\n## ")[0]
    documented = {
        code: again.partition(";")[0].strip()
        for codes, again in re.findall(r"^\| ([\d, ]+) \| .*\| ([^|]*) ?\|$", section, re.MULTILINE)
        for code in codes.split(", ")
    }
    in_help = {
        code: re.split(r"[:;]", again)[0].strip()
        for line in re.findall(r"^ {0,2}\d.*", call("help", "exit-codes").out, re.MULTILINE)
        for code, again in [(found, line[55:]) for found in re.findall(r"(?:^ *|; )(\d+)", line[:55])]
    }
    assert documented == in_help


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_the_files_that_are_named_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    named = re.findall(r"`((?:tests|examples|docs|hestiaos_lite)/[\w./-]+\.\w+)", text)
    assert [name for name in named if not (ROOT / name).exists()] == []


# -- what the README alone must keep


def test_the_readme_is_short_and_shows_the_ways_in() -> None:
    assert len(README.splitlines()) <= 130
    languages = [block.language for block in BLOCKS if block.document == "README.md"]
    assert (languages.count("crontab"), set(languages)) == (1, {"python", "console", "crontab", "sh"})
    assert "`hestiaos-lite sandbox --port 8000`" in README


def test_the_readme_names_the_commands_of_ci() -> None:
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    named = re.findall(r"^ +readme '(.*)'$", ci, re.MULTILINE)
    assert len(named) == 2
    assert "".join(command + "\n" for command in named) in [block.text for block in BLOCKS]


def test_each_promise_of_the_readme_names_its_tests() -> None:
    table = README.partition("## What it promises")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", table, re.MULTILINE)[1:]
    assert len(rows) >= 10
    for promise, tests in rows:
        names = re.findall(r"`(test_\w+)`", tests)
        assert names and all((ROOT / "tests/guarantees" / (name + ".py")).is_file() for name in names), (
            promise
        )


def test_the_readme_has_no_link_that_a_package_index_would_break() -> None:
    assert [link for link in links_of(ROOT / "README.md") if not link.startswith("#")] == []


def test_the_readme_names_the_versions_and_the_license_of_the_metadata() -> None:
    setup = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    versions = re.findall(r"Python :: (3\.\d+)", setup)
    license = re.findall(r"^license = (.*)$", setup, re.MULTILINE)
    said = "Python {} to {} · two dependencies (requests, sseclient-py) · {} license".format(
        versions[0], versions[-1], *license
    )
    assert said in README.splitlines()
