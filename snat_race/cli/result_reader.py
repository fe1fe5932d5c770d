"""Reads results that were kept: files of ``--output``, and streams of ``--json``."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from snat_race.analysis.merge import merged
from snat_race.analysis.stream import so_far
from snat_race.cli.parsing import quoted
from snat_race.errors import UsageError
from snat_race.results.findings import DoctorResult
from snat_race.results.model import SCHEMA_VERSION, Model
from snat_race.results.schema import ClientResult, LabResult, MergedResult, WatchResult
from snat_race.results.schema_v1 import upgraded

AnyResult = ClientResult | LabResult | MergedResult | WatchResult | DoctorResult
_KINDS: dict[str, type[AnyResult]] = {
    "client": ClientResult,
    "lab": LabResult,
    "merged": MergedResult,
    "watch": WatchResult,
    "doctor": DoctorResult,
}


def schema() -> dict[str, Any]:
    """Return the JSON Schema of every kind of result."""
    fields: dict[str, Any] = TypeAdapter(AnyResult).json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "snat_race result"} | fields


def read(path: Path) -> AnyResult:
    """Read one result, of any kind.

    Raises:
        UsageError: it is missing, empty, cut off, foreign, or of another schema.

    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is no result of snat_race; give a file of --output or --json") from None
    except OSError as failed:
        raise UsageError(f"{path}: cannot be read ({failed.strerror}); give a file of --output") from failed
    if not text.strip():
        raise UsageError(f"{path}: is empty; give a file of --output or --json")
    try:
        result = so_far([upgraded(event) for event in _events(path, text)])
        return result if isinstance(result, Model) else _validated(path, result)
    except ValidationError as failed:
        raise UsageError(
            f"{path}: is no result of snat_race, or a damaged one: {_damage(failed)}"
        ) from None
    except ValueError as failed:
        raise UsageError(f"{path}: is no result of snat_race, or a damaged one: {failed}") from None


def _events(path: Path, text: str) -> list[dict[str, Any]]:
    """Return the objects in a file: one, or one a line; the last line may be cut off."""
    lines = text.splitlines()
    try:
        return [_event(json.loads(text))]
    except RecursionError:
        raise UsageError(f"{path}: is no result of snat_race; give a file of --output or --json") from None
    except json.JSONDecodeError as failed:
        broken = failed
    events: list[dict[str, Any]] = []
    for number, line in enumerate(lines):
        try:
            events.append(_event(json.loads(line)))
        except json.JSONDecodeError:
            if not events or number < len(lines) - 1 or events[0].get("event") is None:
                raise UsageError(
                    f"{path}: is no result of snat_race, or one that was cut off (line {broken.lineno}: "
                    f"{broken.msg}); give a file of --output or --json"
                ) from None
    return events


def _event(document: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Return an object as an event: what has no such word is a result."""
    if not isinstance(document, dict):
        return {"event": "foreign"}
    return {"event": "result"} | document


def _validated(path: Path, document: dict[str, Any] | None) -> AnyResult:
    if document is None or document.get("kind") not in _KINDS:
        kind = f" (kind {document['kind']!r})" if document and "kind" in document else ""
        raise UsageError(f"{path}: holds no result of snat_race{kind}; give a file of --output or --json")
    version = document.get("schema_version")
    if version != SCHEMA_VERSION:
        newer = isinstance(version, int) and version > SCHEMA_VERSION
        advice = "update snat_race" if newer else "read it with the version that wrote it"
        raise UsageError(f"{path}: has schema_version {version}, this reads {SCHEMA_VERSION}; {advice}")
    return _KINDS[document["kind"]].model_validate(document)


def _damage(failed: ValidationError) -> str:
    """Return what is wrong with a file, in words: the first of it is enough."""
    error = failed.errors()[0]
    field = ".".join(map(str, error["loc"])) or "the result"
    if error["type"] == "missing":
        return f"{field} is missing"
    if error["type"] == "value_error":
        return f"{field}: {error['ctx']['error']}"
    return f"{field} cannot be {quoted(str(error['input']))}"


def read_all(paths: Sequence[Path]) -> AnyResult:
    """Read results and make them one.

    Raises:
        UsageError: as for :func:`read`; or they cannot be merged.

    """
    results = [(path, read(path)) for path in paths]
    known: dict[str, Path] = {}
    for path, result in results:
        if result.run_id in known:
            raise UsageError(f"{path}: is the same run as {known[result.run_id]}; give each only once")
        known[result.run_id] = path
    if len(results) == 1:
        return results[0][1]
    for path, result in results:
        if result.kind not in {"client", "watch"}:
            advice = "'compare' sets labs side by side" if result.kind == "lab" else "give it alone"
            raise UsageError(f"{path}: a {result.kind} result cannot be merged with others; {advice}")
    clients = [result for _, result in results if result.kind == "client"]
    watches = [result for _, result in results if result.kind == "watch"]
    if not clients:
        raise UsageError(f"{paths[0]}: only watch results; give those of the clients too, or one alone")
    try:
        return merged(clients, watches)
    except ValueError as failed:
        raise UsageError(f"these results cannot be merged: {failed}") from failed
