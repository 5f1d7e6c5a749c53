"""Print tables, JSON, CSV and lines of text so that no value can act on the terminal."""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence

from thresher.terminal import open_console, visible

TYPE_CHECKING = False  # typing itself is not imported: it takes milliseconds of every command
if TYPE_CHECKING:
    import pyarrow as pa
    from rich.console import Console

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""Characters with which a cell begins that spreadsheets take for a formula (OWASP, CSV injection); the last are full-width."""
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")
READABLE = 12
"""Characters for which a column must have room; a table with a narrower column is printed one value per line."""
_UNSEEN = re.compile("[\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]")
"""Characters that act on a terminal and that JSON lets through: C1, marks of direction, and half a surrogate pair."""
LONGEST = 300
"""Characters of a cell that a terminal shows."""


def print_line(text: str) -> None:
    """Print one line of text at once, also into a file, with control characters and what the terminal cannot show as escapes."""
    encoding = sys.stdout.encoding or "utf-8"
    print(visible(text).encode(encoding, "backslashreplace").decode(encoding), flush=True)


def print_error(text: str) -> None:
    """Print a message on standard error, after the program's name; no address in it shows a password."""
    from thresher.credentials import hidden

    print(f"thresher: {visible(hidden(text))}", file=sys.stderr, flush=True)


def print_note(options: argparse.Namespace, text: str) -> None:
    """Print a line that is no data: on standard error where standard output is JSON or CSV."""
    if options.json or options.csv:
        print(visible(text), file=sys.stderr)
    else:
        print_line(text)


def print_json(document: object) -> None:
    """Print a JSON document; NaN and infinity become null."""
    import json

    from thresher.auditing.show import finite

    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    text = json.dumps(finite(document), indent=1, default=str, ensure_ascii=not unicode)
    print(_UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text) if unicode else text)


def print_csv(table: "pa.Table") -> None:
    """Print a table as CSV with a header line; objects and lists become JSON text. No cell is a formula for a spreadsheet."""
    import csv

    seen = sys.stdout.isatty()
    lines = (table.column_names, *([_as_text(value) for value in row.values()] for row in table.to_pylist()))
    writer = csv.writer(sys.stdout, lineterminator="\n")
    for line in lines:
        cells = [_no_formula(cell) if isinstance(cell, str) else cell for cell in line]
        writer.writerow([visible(cell) if seen and isinstance(cell, str) else cell for cell in cells])


def print_table(table: "pa.Table") -> None:
    """Print a table for a person: as columns, or one value per line where the terminal is too narrow."""
    import pyarrow as pa
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    console = open_console()
    names = [visible(name) for name in table.column_names]
    rows = [["" if value is None else _cell(value) for value in row.values()] for row in table.to_pylist()]
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    least = sum(max(len(name), min(width, READABLE)) + 2 for name, width in zip(names, widths, strict=True))
    if least > console.width:
        _print_records(names, rows, console)
        return
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name, field in zip(names, table.schema, strict=True):
        shown.add_column(escape(name), overflow="fold", justify="right" if pa.types.is_primitive(field.type) else "left")
    for row in rows:
        shown.add_row(*map(escape, row))
    console.print(shown)


def print_rows(options: argparse.Namespace, table: "pa.Table", document: Mapping[str, object] | None = None) -> None:
    """Print a table in the format of the options: --csv, --json (the document, else an object per row), or for a person."""
    if options.json:
        print_json(table.to_pylist() if document is None else document)
    elif options.csv:
        print_csv(table)
    else:
        print_table(table)


def _print_records(names: Sequence[str], rows: Sequence[Sequence[str]], console: "Console") -> None:
    """Print each row as a block with one value per line."""
    from rich.markup import escape
    from rich.table import Table

    for number, row in enumerate(rows, start=1):
        shown = Table.grid(padding=(0, 2))
        shown.add_column(style="dim", no_wrap=True)
        shown.add_column(overflow="fold")
        for name, value in zip(names, row, strict=True):
            shown.add_row(escape(name), escape(value))
        console.print(f"row {number}", style="bold", highlight=False)
        console.print(shown)


def _no_formula(text: str) -> str:
    """A text of a cell, with an apostrophe before it where a spreadsheet would calculate it. Half a surrogate pair, which no
    file can hold, becomes an escape."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return f"'{text}" if text.lstrip(" ").startswith(FORMULA) and not _NUMBER.fullmatch(text) else text


def _as_text(value: object) -> object:
    import json

    from thresher.auditing.show import finite

    return json.dumps(finite(value), ensure_ascii=False, default=str) if isinstance(value, Mapping | list | tuple) else value


def _cell(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(_as_text(value))
    return visible(text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…")
