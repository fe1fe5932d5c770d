"""Rows as CSV."""

import csv
import io
from collections.abc import Iterable
from typing import Any


def as_csv(rows: Iterable[dict[str, Any]]) -> str:
    """Return rows with a line of column names; a row may lack some, and then has empty cells there."""
    kept = list(rows)
    columns = dict.fromkeys(name for row in kept for name in row)
    out = io.StringIO()
    writer = csv.DictWriter(out, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(kept)
    return out.getvalue().rstrip("\n")
