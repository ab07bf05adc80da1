"""Reading a batch's input: JSON objects or plain text, one a line, or a table; checked whole before anything is sent."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple, Union

from .._stdio import read_stdin
from ..errors import InvalidInput
from .index import RowIndex
from .rows import FORMS, BatchRow, check_row, digest, id_key
from .table import DELIMITERS, Table

JSONL, TEXT, CSV, TSV = FORMATS = ("jsonl", "text", "csv", "tsv")
MAX_LINE_BYTES = 16 * 1024 * 1024
_BY_SUFFIX = {".jsonl": JSONL, ".ndjson": JSONL, ".json": JSONL, ".txt": TEXT, ".csv": CSV, ".tsv": TSV}
_BOM = b"\xef\xbb\xbf"


class Line(NamedTuple):
    """One line of the input: its number, from 1, and the row it holds, or what is wrong with it."""

    number: int
    row: Union[BatchRow, str]


class BatchInput:
    """A file of rows that can be read more than once.

    Args:
        path: the file; ``-`` is standard input. What cannot be rewound (a pipe) is first copied to a temporary file, since
            it is checked whole before anything is sent.
        call: the call that the rows are for.
        format: ``jsonl``: a JSON object a line; ``text``: an input a line, with its line number as id; ``csv``, ``tsv``: a
            `Table`. None goes by the name's ending (``.jsonl``, ``.ndjson``, ``.json``, ``.txt``, ``.csv``, ``.tsv``), else
            it is ``csv`` where a column is named, else goes by whether the first line begins with ``{``.
        column, id_column: of a table.

    Empty lines are skipped. Raises OSError when the file cannot be read, InvalidInput for text where the call needs more, and
    for a table whose header does not name what is needed.
    """

    def __init__(
        self,
        path: str,
        call: str,
        format: Optional[str] = None,
        column: Optional[str] = None,
        id_column: Optional[str] = None,
    ) -> None:
        self.name = "standard input" if path == "-" else path
        self._call = call
        self._file = _rewindable(path)
        self._table: Optional[Table] = None
        try:
            self.format = self._format(format, os.path.splitext(path)[1].lower(), column or id_column)
            if self.format in DELIMITERS:
                delimiter = DELIMITERS[self.format]
                self._table = Table(self._file, self.name, delimiter, call, column, id_column)
        except BaseException:
            self._file.close()
            raise

    def describe(self) -> str:
        """What a row is read from."""
        return self.format if self._table is None else "{}: {}".format(self.format, self._table.describe())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def lines(self) -> Iterator[Line]:
        """Read from the beginning."""
        if self._table is not None:
            for number, values in self._table.rows():
                yield Line(number, values if isinstance(values, str) else self._checked(values))
            return
        self._file.seek(0)
        number = 0
        while True:
            raw = self._file.readline(MAX_LINE_BYTES + 1)
            if not raw:
                return
            number += 1
            if len(raw) > MAX_LINE_BYTES:
                yield Line(number, "longer than {} MiB".format(MAX_LINE_BYTES >> 20))
                while raw and not raw.endswith(b"\n"):
                    raw = self._file.readline(MAX_LINE_BYTES)
                continue
            if number == 1 and raw.startswith(_BOM):
                raw = raw[len(_BOM) :]
            if raw.strip():
                yield Line(number, self._row(number, raw))

    def rows(self) -> Iterator[BatchRow]:
        """Read the rows again after `check` found no fault; raises InvalidInput if the file has changed since."""
        for number, row in self.lines():
            if isinstance(row, str):
                raise InvalidInput(
                    "{} line {}: {} (it has changed while it was read)".format(self.name, number, row),
                    code="BAD_DATA",
                )
            yield row

    def _row(self, number: int, raw: bytes) -> Union[BatchRow, str]:
        try:
            text = raw.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            return "is not UTF-8 text (byte {})".format(error.start + 1)
        if self.format == TEXT:
            return BatchRow(number, {FORMS[self._call].main: text})
        try:
            return self._checked(_decode(text))
        except json.JSONDecodeError as error:
            return "is not JSON: {} at column {}".format(error.msg, error.colno)
        except (ValueError, RecursionError) as error:
            return "is not JSON: {}".format(error)

    def _checked(self, values: Any) -> Union[BatchRow, str]:
        try:
            return check_row(values, self._call)
        except InvalidInput as error:
            return error.message

    def _format(self, format: Optional[str], suffix: str, column: Optional[str]) -> str:
        format = format or _BY_SUFFIX.get(suffix) or (CSV if column else self._guess())
        if column and format not in DELIMITERS:
            raise InvalidInput(
                "{} is read as {}, which has no columns: --format csv".format(self.name, format)
            )
        if format == TEXT and len(FORMS[self._call].required) > 1:
            raise InvalidInput("a line of text is not enough for {}: give it JSON lines".format(self._call))
        return format

    def _guess(self) -> str:
        self._file.seek(0)
        head = self._file.read(65536)
        return JSONL if head.replace(_BOM, b"", 1).lstrip()[:1] == b"{" else TEXT


def check(source: BatchInput, call: str, index: RowIndex) -> Tuple[int, List[str]]:
    """Read the whole input into the index.

    Returns:
        How many lines are faulty, and what is wrong with the first twenty.
    """
    count = 0
    faults: List[str] = []
    for number, row in source.lines():
        fault = ""
        if isinstance(row, str):
            fault = row
        else:
            earlier = index.add(id_key(row.id), number, digest(call, row))
            if earlier is not None:
                fault = "the id {} stands in line {} already".format(id_key(row.id), earlier)
        if fault:
            count += 1
            if len(faults) < 20:
                faults.append("{} line {}: {}".format(source.name, number, fault))
    return count, faults


def _decode(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)


def _object(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError("the name {} stands twice in one object".format(json.dumps(twice)))
    return values


def _no_constant(name: str) -> Any:
    raise ValueError("{} is no JSON value".format(name))


def _rewindable(path: str) -> Any:
    """Open a file of bytes that can be read again from its beginning."""
    file: Any = None if path == "-" else open(path, "rb")  # noqa: SIM115 - BatchInput.close closes it
    if file is not None and file.seekable():
        return file
    spool = tempfile.TemporaryFile(prefix="hestiaos-lite-batch-")  # noqa: SIM115 - likewise
    try:
        if file is None:
            spool.writelines(read_stdin())
        else:
            shutil.copyfileobj(file, spool)
    except BaseException:
        spool.close()
        raise
    finally:
        if file is not None:
            file.close()
    return spool
