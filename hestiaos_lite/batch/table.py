"""Reading CSV and TSV: the header says which column is which argument of the call; quoting is the csv module's."""

from __future__ import annotations

import csv
import json
from typing import Any, BinaryIO, Callable, Dict, Iterator, List, Mapping, Optional, Tuple, Union

from ..errors import InvalidInput
from .rows import FORMS

DELIMITERS = {"csv": ",", "tsv": "\t"}


class Table:
    """The rows of a table.

    Args:
        file: can be read again from its beginning.
        name: of the file, for what is wrong with it.
        column: the one that holds the call's main argument; None: the one named ``input``, or as that argument.
        id_column: the one that holds the ids; None: the one named ``id``, or the number of the row's first line.

    Further columns that are named as an argument of the call are that; all others are left alone. An empty cell is an
    argument that is not given.

    Raises:
        InvalidInput: the header does not name what is needed.
    """

    def __init__(
        self,
        file: BinaryIO,
        name: str,
        delimiter: str,
        call: str,
        column: Optional[str],
        id_column: Optional[str],
    ) -> None:
        self._file = file
        self._name = name
        self._delimiter = delimiter
        header = next(iter(self._records()), (0, []))[1]
        if isinstance(header, str):
            raise InvalidInput("{} line 1: {}".format(name, header))
        self._header: List[str] = [cell.strip() for cell in header]
        form = FORMS[call]
        mains = ["input", form.main] if column is None else [column]
        main = next((wanted for wanted in mains if wanted in self._header), None)
        if main is None or id_column is not None and id_column not in self._header:
            raise InvalidInput(
                "{}: its header names no column {}; it has {}: choose with {}".format(
                    name,
                    mains[0] if main is None else id_column,
                    ", ".join(self._header) or "none",
                    "--column" if main is None else "--id-column",
                )
            )
        names = {form.main: main, "id": id_column or "id"}
        kinds = dict(form.required, **form.optional)
        names.update((field, field) for field in kinds if field not in [form.main, *names.values()])
        self._kinds = kinds
        self._columns = {
            field: self._position(column) for field, column in names.items() if column in self._header
        }

    def rows(self) -> Iterator[Tuple[int, Union[Dict[str, Any], str]]]:
        """The number of each row's first line, and its fields, or what is wrong with it."""
        records = iter(self._records())
        next(records, None)
        for number, cells in records:
            if isinstance(cells, str):
                yield number, cells
            elif len(cells) != len(self._header):
                yield number, "has {} cells, and the header has {}".format(len(cells), len(self._header))
            else:
                values = {
                    field: _READERS.get(self._kinds.get(field, ""), str)(cells[position])
                    for field, position in self._columns.items()
                    if cells[position]
                }
                yield number, values if "id" in self._columns else dict(values, id=number)

    def describe(self) -> str:
        """Which column is what, and which are left alone."""
        used = ["{} from column {}".format(field, self._header[at]) for field, at in self._columns.items()]
        if "id" not in self._columns:
            used.append("the line's number as id")
        unused = [name for at, name in enumerate(self._header) if at not in self._columns.values()]
        return ", ".join(used) + ("; not used: " + ", ".join(unused) if unused else "")

    def _position(self, column: str) -> int:
        if self._header.count(column) > 1:
            raise InvalidInput("{}: its header names the column {} twice".format(self._name, column))
        return self._header.index(column)

    def _records(self) -> Iterator[Tuple[int, Union[List[str], str]]]:
        """The cells of each record, or what is wrong with it, and the number of its first line."""
        self._file.seek(0)
        # what is not UTF-8 becomes lone surrogates, and those are refused in a row's fields
        lines = (raw.decode("utf-8", "surrogateescape") for raw in self._file)
        reader = csv.reader(_without_bom(lines), delimiter=self._delimiter, strict=True)
        while True:
            number = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield number, "is not CSV: {}".format(error)
                continue
            if cells:
                yield number, cells


def _without_bom(lines: Iterator[str]) -> Iterator[str]:
    for first in lines:
        yield first[1:] if first.startswith("\ufeff") else first
        yield from lines


def _number(cell: str) -> Any:
    return int(cell) if cell.isdigit() and cell.isascii() and len(cell) < 19 else cell


def _object(cell: str) -> Any:
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        return cell  # which is refused for what it is


_READERS: Mapping[str, Callable[[str], Any]] = {"ms": _number, "object": _object}
