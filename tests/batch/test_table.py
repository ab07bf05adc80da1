"""A batch's input as CSV or TSV: what a header, a cell, a quote and a byte order mark become."""

from __future__ import annotations

import os
from typing import Any, List, Optional

import pytest

from hestiaos_lite.batch.input import BatchInput
from hestiaos_lite.batch.rows import BatchRow
from hestiaos_lite.sandbox import Sandbox

from ..cli_call import call


def read(
    path: Any,
    content: bytes,
    call_name: str = "run",
    column: Optional[str] = None,
    id_column: Optional[str] = None,
) -> List[Any]:
    """What each row is: its id and arguments, or what is wrong with it."""
    path.write_bytes(content)
    source = BatchInput(str(path), call_name, column=column, id_column=id_column)
    try:
        lines = list(source.lines())
        assert list(source.lines()) == lines  # it can be read again
    finally:
        source.close()
    return [tuple(line.row) if isinstance(line.row, BatchRow) else (line.number, line.row) for line in lines]


@pytest.mark.parametrize(("content", "rows"), [
    (b"input\na\nb\n", [(2, {"input": "a"}), (3, {"input": "b"})]),
    (b"\xef\xbb\xbfid,input\r\nx,a\r\n\r\ny,b", [("x", {"input": "a"}), ("y", {"input": "b"})]),
    (b'\xef\xbb\xbf"input"\n"a ""b"", c\nd"\n', [(2, {"input": 'a "b", c\nd'})]),
    (b'input\n"a\nb"\nc\n', [(2, {"input": "a\nb"}), (4, {"input": "c"})]),
    (
        b"id,colour,input,timeout_ms,session_id\n7,red,a,500,s\n8,,b,,\n",
        [("7", {"input": "a", "timeout_ms": 500, "session_id": "s"}), ("8", {"input": "b"})],
    ),
    ("input\nZürich \U0001f600\n".encode(), [(2, {"input": "Zürich \U0001f600"})]),
    (b"input\n", []),
    (b"id,input\nx,a\n,\n,,,\ny,b\n,\n", [("x", {"input": "a"}), ("y", {"input": "b"})]),
    (
        b'input,n\na,1\nb\n"c"d,1\n,4\n\xff,5\ne,6\n',
        [
            (2, {"input": "a"}),
            (3, "has 1 cells, and the header has 2"),
            (4, "is not CSV: ',' expected after '\"'"),
            (5, "input is missing"),
            (6, "is not UTF-8 text (after 0 characters): save it as UTF-8, or name its --encoding (cp1252 of a Western Excel)"),
            (7, {"input": "e"}),
        ],
    ),
    (b"input,timeout_ms\na,soon\n", [(2, "timeout_ms must be a whole number, 1 or more, not 'soon'")]),
    (b'input\n"a', [(2, "is not CSV: unexpected end of data")]),
])  # fmt: skip
def test_a_table_whose_header_names_input_is_read_by_its_header(
    tmp_path: Any, content: bytes, rows: List[Any]
) -> None:
    assert read(tmp_path / "in.csv", content) == rows


def test_columns_are_chosen_and_the_tab_is_a_delimiter(tmp_path: Any) -> None:
    content = b"question\tticket\tid\tinput\n1, 2\tT-1\tnot this\tnor this\n"
    assert read(tmp_path / "in.tsv", content, "run", "question", "ticket") == [("T-1", {"input": "1, 2"})]
    # what is named as an argument of the call is one, whatever its place
    content = b'agent_id,task,config\na,"do it","{""depth"": 2}"\n'
    expected = {"task": "do it", "agent_id": "a", "config": {"depth": 2}}
    assert read(tmp_path / "in.csv", content, "agent") == [(2, expected)]
    for cell in ("{", "[" * 100000, "5"):
        content = "agent_id,task,config\na,b,{}\n".format(cell).encode()
        assert read(tmp_path / "in.csv", content, "agent") == [
            (2, "config must be a mapping, not {}".format("int" if cell == "5" else "str"))
        ]
    assert read(tmp_path / "in.csv", b"message\nhi\n", "chat") == [(2, {"message": "hi"})]
    assert read(tmp_path / "in.csv", b"input\nhi\n", "chat") == [(2, {"message": "hi"})]
    assert read(tmp_path / "in", b"q\nhi\n", "chat", "q") == [(2, {"message": "hi"})]


def test_one_main_argument_is_given(tmp_path: Any) -> None:
    content = b'{"id": 1, "message": "a", "input": "b"}'
    fault = "input is short for message, so only one of them may be given"
    assert read(tmp_path / "in.jsonl", content, "chat") == [(1, fault)]


@pytest.mark.parametrize(("name", "content", "rows"), [
    # what follows a line that is too long is read, but a record that is may be a quote left open
    ("in.txt", b"a\n" + b"b" * 31 + b"\nc\n" + b"d" * 30, [(1, {"input": "a"}), (2, "is longer than 16 MiB"),
     (3, {"input": "c"}), (4, {"input": "d" * 30})]),
    ("in.txt", b"b" * 95, [(1, "is longer than 16 MiB")]),
    ("in.csv", b'input\na\n"' + b"b\n" * 20, [(2, {"input": "a"}),
     (3, "is longer than 16 MiB (is a quote left open?); what follows was not read")]),
    ("in.csv", b'input\n"' + b"b\n" * 13 + b'"\n', [(2, {"input": "b\n" * 13})]),
])  # fmt: skip
def test_a_row_that_is_too_long_is_refused(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes, rows: List[Any]
) -> None:
    monkeypatch.setattr("hestiaos_lite.batch.input.MAX_ROW_CHARS", 30)
    assert read(tmp_path / name, content) == rows


@pytest.mark.parametrize(("name", "content", "column", "id_column", "words"), [
    ("in.csv", b"question,id\na,1\n", None, None, "names no column input; separated by commas, it has question, id: choose with --column"),
    ("in.csv", b"", None, None, "names no column input; it has none"),
    ("in.csv", "input\na\n".encode("utf-16-le"), None, None, "is not utf-8 text: save it as UTF-8"),
    ("in.csv", b"input\na\n", "question", None, "names no column question"),
    ("in.csv", b"input\na\n", None, "ticket", "names no column ticket; it has input: choose with --id-column"),
    ("in.csv", b"input,input\na,b\n", None, None, "names the column input twice"),
    ("in.csv", b'"input"x\na\n', None, None, "line 1: is not CSV"),
    ("in.txt", b"a\n", "input", None, "is read as text, which has no columns"),
    ("in.jsonl", b"{}\n", None, "id", "is read as jsonl, which has no columns"),
])  # fmt: skip
def test_a_table_that_does_not_name_its_input_is_refused_and_never_read_as_text(
    box: Sandbox, tmp_path: Any, name: str, content: bytes, column: Any, id_column: Any, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    arguments = ["batch", str(tmp_path / name), "--out", str(tmp_path / "out"), "--base-url", box.url]
    arguments += ["--column", column] if column else []
    arguments += ["--id-column", id_column] if id_column else []
    called = call(*arguments)
    assert (called.code, words in called.err) == (2, True), called
    assert box.requests_total == 0
    assert os.listdir(str(tmp_path)) == [name]


def test_check_says_what_the_input_holds_and_sends_nothing(box: Sandbox, tmp_path: Any) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(b"question,date,session_id\na,today,s\nb,today,s\n")
    called = call("batch", str(path), "--check", "--column", "question", "--base-url", box.url)
    assert called == (
        0,
        "{}: 2 rows for run (csv: input from column question, session_id from column session_id, the line's number as id;"
        " not used: date)\n".format(path),
        "",
    )
    called = call("batch", str(path), "--check", "--column", "question", "--json")
    assert (called.json["rows"], called.json["call"], called.json["format"]) == (2, "run", "csv")
    for delimiter, header, read_as in (
        (":", "id:input", "input from column input, id from column id"),  # which nobody would guess
        ("tab", "input\tx,input", "input from column input, the line's number as id; not used: x,input"),
    ):
        path.write_text(header + "\n")
        called = call("batch", str(path), "--check", "--delimiter", delimiter)
        assert called.out == "{}: 0 rows for run (csv: {})\n".format(path, read_as)
    path.write_bytes(b'question\na\n\n""\n')
    called = call("batch", str(path), "--check", "--column", "question")
    assert called.code == 65
    assert "line 4: input is missing" in called.err
    assert box.requests_total == 0
    assert os.listdir(str(tmp_path)) == ["in.csv"]
