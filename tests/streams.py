"""Streams of ``--json`` as long runs print them, made up. ``python -m tests.streams client 200 FILE``."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from snat_race.analysis import kept_periods
from tests.results import small_client, small_watch

HEAD = ("schema_version", "run_id", "tool", "started_at", "elapsed_s", "environment", "spec")
TCP = ("ActiveOpens", "AttemptFails", "InSegs", "OutSegs", "OutRsts", "RetransSegs", "TCPTimeouts")


def start_of(result: dict[str, Any]) -> dict[str, Any]:
    """Return the first event of a stream that ends with this result."""
    start = {name: result[name] for name in HEAD} | {"kind": result["kind"], "nat": result["nat"]}
    return {"event": "start"} | start | {"counters_from": result.get("counters_from")}


def client_events(run_id: str = "c", periods: int = 3, failures: int = 0) -> Iterator[dict[str, Any]]:
    """Yield the events of a client whose every period loses 7 of 10,000 dials; its result is the last."""
    result = small_client(run_id, failed=7).model_dump(mode="json")
    watch = small_watch("w", insert_failed=7).model_dump(mode="json")
    period = result["periods"][0] | {"elapsed_s": 1.0, "histogram_from_slot": None}
    period["counters"] = [watch["total"] | {"elapsed_s": 1.0, "tcp": dict.fromkeys(TCP, 1000)}]
    yield start_of(result)
    failure = {
        "ended_ns": 1,
        "latency_ns": 500_000_000,
        "source": "10.0.0.1:1",
        "remote": "s:1",
        "errno": 115,
    }
    for _ in range(periods):
        for _ in range(failures):
            yield {"event": "failure", "schema_version": 2, **failure, "error": "TIMEOUT"}
        yield {"event": "period", "schema_version": 2, "summary": period}
    summary = result["summary"]
    for name in ("attempted", "connected", "failed"):
        summary[name] *= periods
    summary |= {"errors": {"TIMEOUT": 7 * periods}, "elapsed_s": float(periods)}
    yield (
        {"event": "result"}
        | result
        | {"summary": summary, "periods": [period] * min(periods, kept_periods.MOST_PERIODS - 1)}
    )


def watch_events(run_id: str = "w", periods: int = 3) -> Iterator[dict[str, Any]]:
    """Yield the events of a watch, which counts 7 failed inserts in each period; its result is the last."""
    result = small_watch(run_id, insert_failed=7).model_dump(mode="json")
    period = result["periods"][0] | {"elapsed_s": 1.0, "tcp": dict.fromkeys(TCP, 1000)}
    yield start_of(result)
    for _ in range(periods):
        yield {"event": "period", "schema_version": 2} | period
    yield {"event": "result"} | result | {"periods": [period] * min(periods, kept_periods.MOST_PERIODS - 1)}


def lines_of(events: Iterator[dict[str, Any]], *, ended: bool = True) -> list[str]:
    """Return the lines of a stream; without the last, if it has no end."""
    lines = [json.dumps(event) for event in events]
    return lines if ended else lines[:-1]


def write_large(file: TextIO, kind: str, megabytes: int, *, ended: bool = True) -> None:
    """Write a stream of about that size."""
    make = {
        "client": lambda count: client_events(periods=count, failures=10),
        "watch": lambda count: watch_events(periods=count),
    }[kind]
    size = len("\n".join(lines_of(make(1))[1:-1]))
    events = make(megabytes * 1_000_000 // size)
    for event in events:
        if ended or event["event"] != "result":
            file.write(json.dumps(event) + "\n")


if __name__ == "__main__":
    name, size, path, *cut = sys.argv[1:]
    with Path(path).open("w", encoding="utf-8") as out:
        write_large(out, name, int(size), ended=not cut)
