"""Reads results that were kept: files of ``--output``, and streams of ``--json``."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import TypeAdapter, ValidationError

from snat_race.analysis.fleet import fleet
from snat_race.analysis.merge import merged
from snat_race.analysis.stream import ClientSoFar, WatchPeriods, WatchSoFar, so_far
from snat_race.cli.parsing import quoted
from snat_race.cli.result_lines import Line, NotJson, Periods, opened, pieces
from snat_race.errors import UsageError
from snat_race.results.findings import DoctorResult
from snat_race.results.fleet import FleetResult
from snat_race.results.model import SCHEMA_VERSION
from snat_race.results.schema import ClientResult, LabResult, MergedResult, Started, WatchResult
from snat_race.results.schema_v1 import upgraded
from snat_race.results.trace import TraceResult

_Adder = ClientSoFar | WatchSoFar | WatchPeriods
AnyResult = ClientResult | LabResult | MergedResult | WatchResult | TraceResult | DoctorResult | FleetResult
_KINDS: dict[str, type[AnyResult]] = {
    "client": ClientResult,
    "lab": LabResult,
    "merged": MergedResult,
    "watch": WatchResult,
    "trace": TraceResult,
    "doctor": DoctorResult,
    "fleet": FleetResult,
}


_ALONE = {
    "lab": "'compare' sets labs side by side",
    "doctor": "give doctor's results only, of as many hosts as you like",
    "fleet": "give doctor's results of all hosts anew",
}
"""What else can be done with a result that cannot be merged with others; else it is given alone."""


def schema() -> dict[str, Any]:
    """Return the JSON Schema of every kind of result."""
    fields: dict[str, Any] = TypeAdapter(AnyResult).json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "snat_race result"} | fields


def read(path: Path) -> AnyResult:
    """Read one result, of any kind.

    Raises:
        UsageError: it is missing, empty, cut off, foreign, or of another schema; or there are several.

    """
    results = read_runs(path)
    if len(results) > 1:
        raise UsageError(
            f"{path}: holds {len(results)} runs; give each in a file of its own, or what "
            "'report --format json -o FILE' makes of them"
        )
    return results[0]


def read_runs(path: Path) -> list[AnyResult]:
    """Read the results of a file, of any kind: one; or those of all runs that were appended to it.

    A run that was killed is read as far as it came. One that did not come to the end of its first period
    is left out.

    Raises:
        UsageError: there is none; or something is cut off, foreign, or of another schema.

    """
    with opened(path) as file:
        results: list[AnyResult] = []
        run = _Run(path, file)
        is_empty = True
        for piece in pieces(path, file):
            is_empty = False
            if isinstance(piece, Periods):
                run.first_period = run.first_period or piece
                continue
            with _damage_in(path, piece, may_be_cut_off=piece.is_last and piece.number > 1):
                event = piece.event or piece.parsed()["event"]
                if event == "start":
                    results += run.cut_off(piece)
                    run = _Run(path, file, piece)
                elif event == "period":
                    run.first_period = run.first_period or piece
                elif event == "result":
                    results.append(run.whole(piece))
                    run = _Run(path, file)
        results += run.cut_off(None)
    if is_empty:
        raise EmptyFile(f"{path}: is empty; give a file of --output or --json")
    if not results:
        raise UsageError(f"{path}: holds no result of snat_race; give a file of --output or --json")
    return results


class EmptyFile(UsageError):
    """A file has nothing in it: the program that was to write it ended before."""


class _Run:
    """A run in a file, as far as it is read."""

    def __init__(self, path: Path, file: BinaryIO, start: Line | None = None) -> None:
        self._path = path
        self._file = file
        self._start = start  # None: there is no stream, or its first event is missing
        self.first_period: Line | Periods | None = None

    def whole(self, end: Line) -> AnyResult:
        """Return the result that it ends with. Periods are read only if the result does not repeat them.

        Raises:
            UsageError: it is the result of another run.
            ValueError: it is damaged.

        """
        document = upgraded(end.parsed())
        del document["event"]
        if self._start and self._start.parsed().get("run_id") != document.get("run_id"):
            raise UsageError(
                f"{self._path}: line {end.number} ends another run than that of line {self._start.number}; "
                "give each of two runs at a time a file of its own"
            )
        if document.get("kind") == "watch" and not document.get("periods") and self.first_period:
            periods = WatchPeriods()
            self._add_periods(periods, end)
            document["periods"] = periods.all()
        return _validated(self._path, document)

    def cut_off(self, end: Line | None) -> list[ClientResult | WatchResult]:
        """Return what its periods add up to, up to the line ``end``; nothing, if there are none.

        Nor of a trace: its periods do not say who lost. Its losses are in the stream, line by line.
        """
        if not self._start or not self.first_period:
            return []
        with _damage_in(self._path, self._start):
            started = Started.model_validate(upgraded(self._start.parsed()))
            if started.kind == "trace":
                return []
            run = so_far(started)
        self._add_periods(run, end)
        with _damage_in(self._path, self._start):
            result = run.result()
        return [result] if result else []

    def _add_periods(self, run: _Adder, end: Line | None) -> None:
        back_to = self._file.tell()
        for piece in pieces(self._path, self._file, first=self.first_period):
            if end and piece.offset >= end.offset:
                break
            if isinstance(piece, Line):
                self._add_line(run, piece)
            else:
                self._add_as_written(run, piece)
        self._file.seek(back_to)

    def _add_as_written(self, run: _Adder, periods: Periods) -> None:
        """Add periods that are as this version writes them; one that is not is looked at more closely.

        A long stream consists of these. Bytes become an object in 8 us; by way of a dict in 14.
        """
        for at, fields in enumerate(periods.fields()):
            try:
                run.add_json(fields)
            except ValidationError:
                self._add_line(run, periods.line(at))

    def _add_line(self, run: _Adder, line: Line) -> None:
        try:
            if (line.event or line.parsed()["event"]) == "period":
                run.add(upgraded(line.parsed()))
        except ValueError as failed:
            _refuse(self._path, line, failed, may_be_cut_off=line.is_last)


@contextmanager
def _damage_in(path: Path, line: Line, *, may_be_cut_off: bool = False) -> Iterator[None]:
    """Say which file and which line is damaged; a line that may be cut off is left out."""
    try:
        yield
    except ValueError as failed:
        _refuse(path, line, failed, may_be_cut_off=may_be_cut_off)


def _refuse(path: Path, line: Line, failed: ValueError, *, may_be_cut_off: bool) -> None:
    damage = str(failed)
    if isinstance(failed, ValidationError):
        damage = _damage(failed)
    elif isinstance(failed, NotJson):
        if may_be_cut_off:
            return
        # Of an object that begins the file it says where, counted from there.
        damage = "it is no JSON" if line.number > 1 else damage
    raise _damaged(path, line.number, damage) from None


def _damaged(path: Path, line: int, damage: str) -> UsageError:
    where = f"line {line}: " if line > 1 else ""
    return UsageError(
        f"{path}: is no result of snat_race, or one that is damaged or was cut off ({where}{damage}); "
        "give a file of --output or --json"
    )


def _validated(path: Path, document: dict[str, Any]) -> AnyResult:
    model = _KINDS.get(str(document.get("kind")))
    if not model:
        kind = f" (kind {quoted(str(document['kind']))})" if "kind" in document else ""
        raise UsageError(f"{path}: holds no result of snat_race{kind}; give a file of --output or --json")
    version = document.get("schema_version")
    if version != SCHEMA_VERSION:
        if not isinstance(version, int | None):
            said = quoted(str(version))
            raise UsageError(
                f"{path}: its schema_version, {said}, is no whole number; give a file as it was written"
            )
        advice = (
            "update snat_race"
            if (version or 0) > SCHEMA_VERSION
            else "read it with the version that wrote it"
        )
        raise UsageError(f"{path}: has schema_version {version}, this reads {SCHEMA_VERSION}; {advice}")
    return model.model_validate(document)


def _damage(failed: ValidationError) -> str:
    """Return what is wrong with a file, in words: the first of it is enough."""
    error = failed.errors()[0]
    field = ".".join(map(str, error["loc"])) or "it"
    field = field if field.isprintable() else quoted(field)
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
    results, empty = _read_each(paths)
    known: dict[str, Path] = {}
    for path, result in results:
        if known.get(result.run_id) == path:
            raise UsageError(f"{path}: is or holds the same run twice; give each only once")
        if result.run_id in known:
            raise UsageError(f"{path}: is the same run as {known[result.run_id]}; give each only once")
        known[result.run_id] = path
    if len(results) == 1 and not empty:
        return results[0][1]
    examined = [(_host(path), result) for path, result in results if result.kind == "doctor"]
    if len(examined) == len(results):
        return fleet(examined, list(map(_host, empty)))
    _require_mergeable(results)
    clients = [result for _, result in results if result.kind == "client"]
    watches = [result for _, result in results if result.kind == "watch"]
    if not clients:
        raise UsageError(f"{paths[0]}: only watch results; give those of the clients too, or one alone")
    try:
        return merged(clients, watches)
    except ValidationError as failed:
        raise UsageError(f"these results cannot be merged: {_damage(failed)}") from failed
    except ValueError as failed:
        raise UsageError(f"these results cannot be merged: {failed}") from failed


def _read_each(paths: Sequence[Path]) -> tuple[list[tuple[Path, AnyResult]], list[Path]]:
    """Return the results of all files; and the files that are empty, which is no fault beside results of
    ``doctor``: it could not be run on each host of many.
    """
    results: list[tuple[Path, AnyResult]] = []
    empty: dict[Path, EmptyFile] = {}
    for path in paths:
        try:
            results += [(path, result) for result in read_runs(path)]
        except EmptyFile as failed:
            empty[path] = failed
    if empty and {result.kind for _, result in results} != {"doctor"}:
        raise next(iter(empty.values()))
    return results, list(empty)


def _host(path: Path) -> str:
    """Return which host a file is of, if its result does not say: as 'doctor-HOST.json' is."""
    return path.stem.removeprefix("doctor-")


def _require_mergeable(results: Sequence[tuple[Path, AnyResult]]) -> None:
    for path, result in results:
        if result.kind not in {"client", "watch"}:
            advice = _ALONE.get(result.kind, "give it alone")
            raise UsageError(f"{path}: a {result.kind} result cannot be merged with others; {advice}")
