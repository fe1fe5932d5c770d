"""Rows as CSV, for spreadsheets: text stays text there, and is not taken for a formula."""

import csv
import io
from collections.abc import Iterable
from typing import Any

from snat_race.report.terminal import printable

# What a spreadsheet takes a cell for a formula by, however wide these are: OWASP, "CSV Injection".
_FORMULAS = tuple("=+-@\uff1d\uff0b\uff0d\uff20")


def as_csv(rows: Iterable[dict[str, Any]]) -> str:
    """Return rows with a line of column names; a row may lack some, and then has empty cells there."""
    kept = [{_cell(name): _cell(value) for name, value in row.items()} for row in rows]
    columns = dict.fromkeys(name for row in kept for name in row)
    out = io.StringIO()
    writer = csv.DictWriter(out, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(kept)
    return out.getvalue().rstrip("\n")


def _cell(value: Any) -> Any:  # noqa: ANN401 - whatever csv can write
    """Return a value as it is to be written: a number as it is, a text that no spreadsheet computes."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.lstrip().startswith(_FORMULAS) else text
