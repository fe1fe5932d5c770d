"""The lines of a client while it runs. The block of a period is the Go tool's, to the letter; ours
stands below it.
"""

import os
from collections import Counter
from collections.abc import Mapping
from errno import EINPROGRESS
from typing import Any

from snat_race.analysis.summary import Failure
from snat_race.report.wording.counter_deltas import delta_line
from snat_race.report.wording.formats import ancestor_stamp, namespace, plural
from snat_race.results.schema import Summary

_NS_PER_MS = 1e6
LATE = "late by a retransmit"
"""How dials connected that lost a SYN: a second later, or more."""
_TIMES = {"0": "never", "1": "once", "2": "twice", "7": "7 times or more"}


def opening_line(now_ns: int, remote: str, spec: Mapping[str, Any]) -> str:
    """Return the first line of a run: what it will dial, and how; ``spec`` as the result has it."""
    interval_us = spec["dial_interval_us"]
    if spec["mode"] == "rendezvous":
        low, high = spec["source_ports"]
        how = f"in rendezvous each {interval_us} us, ports {low}-{high}, {spec['lanes']} lanes"
    else:
        how = f"independent, each {interval_us} us" if interval_us else "flat out"
    return f"{ancestor_stamp(now_ns)} Starting to dial {remote}, workers: {spec['workers']}, {how}"


def failure_line(failure: Failure) -> str:
    """Return one failed dial, as the Go tool logs it."""
    timed_out = failure.errno == EINPROGRESS
    why = "i/o timeout" if timed_out else f"connect: {os.strerror(failure.errno).lower()}"
    return (
        f"{ancestor_stamp(failure.ended_ns)} error after {failure.latency_ns // 1_000_000}ms, "
        f'err: "dial tcp {failure.source}->{failure.remote}: {why}"'
    )


def other_failures_line(now_ns: int, others: Counter[str]) -> str:
    """Count the failures of a period that had no line of their own."""
    causes = ", ".join(f"{count:,} {name}" for name, count in others.most_common())
    return f"{ancestor_stamp(now_ns)} and {plural(others.total(), 'more error')} in this period: {causes}"


def period_block(now_ns: int, summary: Summary, seconds: int, failed: int, total: int) -> str:
    """Return the Go tool's block for one period; ``failed`` and ``total`` count since the start."""
    latency = summary.latency_all_ns
    if not latency:
        return f"{ancestor_stamp(now_ns)} No request completed in the current time frame"
    recorded = summary.attempted - summary.overruns
    return (
        f"{ancestor_stamp(now_ns)} Summary of the last {seconds} seconds:\n"
        f"             Max response time: {latency.max / _NS_PER_MS:5.1f}ms\n"
        f"                 99 percentile: {latency.p99 / _NS_PER_MS:5.1f}ms\n"
        f"                 95 percentile: {latency.p95 / _NS_PER_MS:5.1f}ms\n"
        f"                        median: {latency.p50 / _NS_PER_MS:5.1f}ms\n"
        f"                  Request Rate: {round(recorded / summary.elapsed_s):5d}req/s\n"
        "\n"
        f"Requests since start (error/total): {failed:5d}/{total}\n"
    )


def period_extra(summary: Summary) -> str:
    """Return what we add below a period's block; empty if there is nothing to say."""
    notes = []
    if summary.late:
        notes.append(f"late slots: {summary.late:,}")
    if summary.overruns:
        notes.append(f"overruns: {plural(summary.overruns, 'sample')} dropped, the ring was full")
    if summary.syn_retransmits:
        notes.append(f"slow: {retransmits(summary.syn_retransmits)}")
    if summary.late_by_retransmit:
        notes.append(f"{LATE}: {summary.late_by_retransmit:,}")
    lines = ["  ".join(notes)] if notes else []
    lines += [f"{namespace(delta.netns)}: {delta_line(delta)}" for delta in summary.counters]
    return "\n".join(lines)


def retransmits(syn_retransmits: dict[str, int]) -> str:
    """Count the connects that were slow by how often their SYN was sent again.

    The kernel's counter has three bits, so "7" stands for 7 or more.
    """
    counts = [
        f"{_TIMES.get(times, f'{times} times')} {count:,}" for times, count in syn_retransmits.items()
    ]
    return f"SYN retransmitted: {', '.join(counts)}"
