"""Reading a batch's input: JSON objects or plain text, one a line, or a table; checked whole before anything is sent."""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import json
import os
import tempfile
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from .._check import is_encodable
from .._json import loads
from .._stdio import read_stdin
from ..errors import InvalidInput
from .rows import FORMS, BatchRow, check_ms, check_object, check_row

JSONL, TEXT, CSV, TSV = FORMATS = ("jsonl", "text", "csv", "tsv")
MAX_ROW_CHARS = 16 * 1024 * 1024
_BY_SUFFIX = {".jsonl": JSONL, ".ndjson": JSONL, ".json": JSONL, ".txt": TEXT, ".csv": CSV, ".tsv": TSV}
_BY_BOM = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_DELIMITERS = ",;\t|"
_NAMED = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "|"}
_UNDECODABLE = "hestiaos_lite.undecodable"  # surrogateescape knows single bytes only, and so fails for UTF-16
_SAVE_AS = "save it as UTF-8, or name its --encoding (cp1252 of a Western Excel)"
_TOO_LONG = "is longer than {} MiB".format(MAX_ROW_CHARS >> 20)


codecs.register_error(_UNDECODABLE, lambda error: ("\udcff", error.end))  # type: ignore[attr-defined]


# the number of its first line; its cells, or what is wrong with it
Record = Tuple[int, Union[List[str], str]]


class Line(NamedTuple):
    """One row of the input: the number of its first line, the row or what is wrong with it, and a table's own cells."""

    number: int
    row: Union[BatchRow, str]
    cells: Sequence[str] = ()


class BatchInput:
    """A file of rows that can be read more than once.

    Args:
        path: the file; ``-`` is standard input. What cannot be rewound (a pipe) is first copied to a temporary file, since
            it is checked whole before anything is sent.
        call: the call that the rows are for.
        format: ``jsonl``: one JSON object per line; ``text``: one input per line, with its line number as id; ``csv``, ``tsv``: a
            table whose header names the columns. By default by the name's ending (``.jsonl``, ``.ndjson``, ``.json``,
            ``.txt``, ``.csv``, ``.tsv``), else a table where a column is named, else JSON where the first line begins
            with ``{``.
        column: of a table, the one that is the call's main argument; by default ``input``, or the one named as that is.
        id_column: the one that is the id; by default ``id``, or the number of the row's first line.
        delimiter: of a table's cells; by default the one of ``, ; tab |`` under which the header names what is needed.
        encoding: of the text, by default UTF-8; a byte order mark of UTF-8 or UTF-16 takes precedence.

    Empty lines are skipped. Raises OSError when the file cannot be read, InvalidInput for text where the call needs more, for
    a table whose header does not name what is needed, and for an unknown encoding.
    """

    def __init__(
        self,
        path: str,
        call: str,
        format: Optional[str] = None,
        column: Optional[str] = None,
        id_column: Optional[str] = None,
        delimiter: Optional[str] = None,
        encoding: Optional[str] = None,
    ) -> None:
        self.name = "standard input" if path == "-" else path
        self._call = call
        self._form = FORMS[call]
        self._file = _rewindable(path)
        self._text: Optional[io.TextIOWrapper] = None
        self._columns: Dict[str, int] = {}  # the call's argument, or id -> the place of its cell
        self.columns: List[str] = []  # of a table; else what a row may have
        self.delimiter = delimiter
        self.line_end = "\n"
        try:
            self.encoding = self._encoding(encoding)
            suffix = os.path.splitext(path)[1].lower()
            self.format = self._format(format, suffix, column or id_column or delimiter)
            if self._is_table:
                self._read_header(column, id_column)
            else:
                self.columns = ["id", *self._form.checks]
        except BaseException:
            self._file.close()
            raise

    def describe(self) -> str:
        """What a row is read from."""
        if not self._is_table:
            return self.format
        used = ["{} from column {}".format(field, self.columns[at]) for field, at in self._columns.items()]
        if "id" not in self._columns:
            used.append("the line's number as id")
        unused = [name for at, name in enumerate(self.columns) if at not in self._columns.values()]
        text = "{}: {}".format(self.format, ", ".join(used))
        return text + "; not used: " + ", ".join(unused) if unused else text

    def has_changed(self, number: int = 0) -> InvalidInput:
        """Build the error of an input that is no longer what was checked."""
        where = "line {}".format(number) if number else "it ends early and"
        what = "{}: {} has changed since it was checked; put it back as it was, and --resume"
        return InvalidInput(what.format(self.name, where), code="BAD_DATA")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def lines(self) -> Iterator[Line]:
        """Read from the beginning."""
        is_table = self._is_table
        records = self._table_records() if is_table else self._text_records()
        for number, record in itertools.islice(records, int(is_table), None):  # below a table's header
            row = record if isinstance(record, str) else self._row(number, record)
            yield Line(number, row, record if is_table else ())

    @property
    def _is_table(self) -> bool:
        return self.format in (CSV, TSV)

    def _row(self, number: int, cells: List[str]) -> Union[BatchRow, str]:
        """Make a row of a record's cells, of which a line of text has one; or say what is wrong with it."""
        text = "".join(cells)
        if not (text.isascii() or is_encodable(text)):
            name = "UTF-8" if self.encoding.startswith("utf-8") else self.encoding
            at = next(at for at, char in enumerate(text) if not is_encodable(char))
            return "is not {} text (after {} characters): {}".format(name, at, _SAVE_AS)
        if self.format == TEXT:
            return BatchRow(number, {self._form.main: text})
        if self._is_table and len(cells) != len(self.columns):
            return "has {} cells, and the header has {}".format(len(cells), len(self.columns))
        try:
            values = self._values(number, cells) if self._is_table else loads(text)
            return check_row(values, self._call)
        except InvalidInput as error:
            return error.message
        except json.JSONDecodeError as error:
            return "is not JSON: {} at column {}".format(error.msg, error.colno)
        except (ValueError, RecursionError) as error:
            return "is not JSON: {}".format(error)

    # -- lines of text, or of JSON

    def _text_records(self) -> Iterator[Record]:
        text = self._opened("\n")
        for number in itertools.count(1):
            line = text.readline(MAX_ROW_CHARS + 1)
            if not line:
                return
            if len(line) > MAX_ROW_CHARS:
                yield number, _TOO_LONG
            elif line.strip():
                yield number, [line.rstrip("\r\n")]
            while len(line) > MAX_ROW_CHARS and not line.endswith("\n"):  # of which no more is held
                line = text.readline(MAX_ROW_CHARS + 1)

    # -- a table

    def _read_header(self, column: Optional[str], id_column: Optional[str]) -> None:
        """Find the delimiter and which column is what; raises InvalidInput where the header does not name what is needed."""
        main = self._form.main
        mains = ["input", main] if column is None else [column]
        needed = [mains, [id_column]] if id_column else [mains]
        given = self.delimiter or ("\t" if self.format == TSV else None)
        headers: Dict[str, Union[List[str], str]] = {}
        for delimiter in given or _DELIMITERS:
            self.delimiter = delimiter
            _, header = next(self._table_records(), (0, []))
            headers[delimiter] = header
            if not isinstance(header, str):
                headers[delimiter] = self.columns = [cell.strip() for cell in header]
                if all(set(names) & set(self.columns) for names in needed):
                    break
        else:
            raise self._no_such_column(headers, needed)
        line = self._opened("").readline(MAX_ROW_CHARS)
        self.line_end = "\r\n" if line.endswith("\r\n") else "\n"
        names = {main: next(name for name in mains if name in self.columns), "id": id_column or "id"}
        names.update((field, field) for field in self._form.checks if field not in [main, *names.values()])
        for field, name in names.items():
            if self.columns.count(name) > 1:
                raise InvalidInput("{}: its header names the column {} twice".format(self.name, name))
            if name in self.columns:
                self._columns[field] = self.columns.index(name)

    def _no_such_column(self, headers: Mapping[str, Any], needed: Sequence[Sequence[str]]) -> InvalidInput:
        """Say what the header has, by the separator under which it has most."""
        if "\0" in self._opened("").readline(MAX_ROW_CHARS):  # which csv refuses before 3.11
            return InvalidInput("{} is not {} text: {}".format(self.name, self.encoding, _SAVE_AS))
        read = {delimiter: header for delimiter, header in headers.items() if not isinstance(header, str)}
        if not read:
            return InvalidInput("{} line 1: {}".format(self.name, next(iter(headers.values()))))
        delimiter, header = max(read.items(), key=lambda item: len(item[1]))
        names = next(names for names in needed if not set(names) & set(header))
        separated = "separated by {}, ".format(_NAMED.get(delimiter, delimiter)) if len(header) > 1 else ""
        what = "{}: its header names no column {}; {}it has {}: choose with {}"
        option = "--column" if names is needed[0] else "--id-column"
        return InvalidInput(what.format(self.name, names[0], separated, ", ".join(header) or "none", option))

    def _values(self, number: int, cells: List[str]) -> Dict[str, Any]:
        """Read the cells of the call's arguments; an empty one is absent."""
        values: Dict[str, Any] = {} if "id" in self._columns else {"id": number}
        for field, at in self._columns.items():
            if cells[at]:
                values[field] = _READERS.get(self._form.checks.get(field), str)(cells[at])
        return values

    def _table_records(self) -> Iterator[Record]:
        csv.field_size_limit(MAX_ROW_CHARS)  # for the process: the module has no other
        lines = _Lines(self._opened(""))
        assert self.delimiter is not None  # noqa: S101 - a table has one
        reader = csv.reader(lines, delimiter=self.delimiter, strict=True)
        while True:
            number = reader.line_num + 1
            lines.chars = 0
            try:
                cells = next(reader)
            except StopIteration:
                return
            except _TooLong:
                yield number, _TOO_LONG + " (is a quote left open?); what follows was not read"
                return
            except csv.Error as error:
                yield number, "is not CSV: {}".format(error)
                continue
            if len(cells) == 1 or any(cells):  # a spreadsheet may write its empty rows, as separators alone
                yield number, cells

    # -- bytes and text

    def _opened(self, newline: str) -> io.TextIOWrapper:
        """The text from its beginning; what does not decode becomes lone surrogates, which `_row` looks for."""
        if self._text is not None:
            self._text.detach()  # else it would close the file when it is forgotten
        self._file.seek(0)
        self._text = io.TextIOWrapper(self._file, self.encoding, _UNDECODABLE, newline)
        return self._text

    def _encoding(self, given: Optional[str]) -> str:
        self._file.seek(0)
        head = self._file.read(4)
        found = next((name for mark, name in _BY_BOM if head.startswith(mark)), given or "utf-8")
        try:
            "".encode(found)
        except LookupError as error:
            raise InvalidInput("--encoding: {}".format(error)) from None
        return found

    def _format(self, format: Optional[str], suffix: str, column: Optional[str]) -> str:
        format = format or _BY_SUFFIX.get(suffix) or (CSV if column else None)
        if format is None:
            format = JSONL if self._opened("\n").read(65536).lstrip()[:1] == "{" else TEXT
        if column and format not in (CSV, TSV):
            what = "{} is read as {}, which has no columns: --format csv"
            raise InvalidInput(what.format(self.name, format))
        if format == TEXT and len(self._form.required) > 1:
            raise InvalidInput("a line of text is not enough for {}: give it JSON lines".format(self._call))
        return format


class _TooLong(Exception):
    """A row is longer than it may be."""


class _Lines:
    """The lines of a text, for the csv module; raises `_TooLong` where those of one record have too many characters."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self.chars = 0  # of the record that is being read

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._text.readline(MAX_ROW_CHARS + 1)
        self.chars += len(line)
        if self.chars > MAX_ROW_CHARS:
            raise _TooLong
        if not line:
            raise StopIteration
        return line


def _number(cell: str) -> Any:
    return int(cell) if cell.isdigit() and cell.isascii() and len(cell) < 19 else cell


def _object(cell: str) -> Any:
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        return cell  # which is refused for what it is


_READERS: Mapping[Any, Callable[[str], Any]] = {check_ms: _number, check_object: _object}


def _rewindable(path: str) -> Any:
    """Open a file of bytes that can be read again from its beginning."""
    file: Any = None if path == "-" else open(path, "rb")  # noqa: SIM115 - BatchInput.close closes it
    if file is not None and file.seekable():
        return file
    spool = tempfile.TemporaryFile(prefix="hestiaos-lite-batch-")  # noqa: SIM115 - likewise
    try:
        spool.writelines(read_stdin() if file is None else file)
    except BaseException:
        spool.close()
        raise
    finally:
        if file is not None:
            file.close()
    return spool
