"""Results as text. The block of a period is the ancestor's, to the letter; ours stands below."""

import os
from collections import Counter
from collections.abc import Mapping
from errno import EINPROGRESS
from typing import Any

from snat_race.analysis.summary import Failure
from snat_race.analysis.warnings import lost_nothing_alone
from snat_race.report.wording.causes import advice, evidence
from snat_race.report.wording.counter_deltas import delta_line
from snat_race.report.wording.formats import ancestor_stamp, duration, percent
from snat_race.report.wording.verdicts import ADVERSARIAL
from snat_race.report.wording.warnings import sentence
from snat_race.results.conclusions import Cause, MeasurementWarning, WarningKind
from snat_race.results.schema import ClientResult, Latency, Summary

_MS = 1e6
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
    """Return one failed dial, as the ancestor logs it."""
    timed_out = failure.errno == EINPROGRESS
    why = "i/o timeout" if timed_out else f"connect: {os.strerror(failure.errno).lower()}"
    return (
        f"{ancestor_stamp(failure.ended_ns)} error after {failure.latency_ns // 1_000_000}ms, "
        f'err: "dial tcp {failure.source}->{failure.remote}: {why}"'
    )


def other_failures_line(now_ns: int, others: Counter[str]) -> str:
    """Count the failures of a period that had no line of their own."""
    causes = ", ".join(f"{count:,} {name}" for name, count in others.most_common())
    return f"{ancestor_stamp(now_ns)} and {others.total():,} more errors in this period: {causes}"


def period_block(now_ns: int, summary: Summary, seconds: int, failed: int, total: int) -> str:
    """Return the ancestor's block for one period; ``failed`` and ``total`` count since the start."""
    every = summary.latency_all_ns
    if not every:
        return f"{ancestor_stamp(now_ns)} No request completed in the current time frame"
    recorded = summary.attempted - summary.overruns
    return (
        f"{ancestor_stamp(now_ns)} Summary of the last {seconds} seconds:\n"
        f"             Max response time: {every.max / _MS:5.1f}ms\n"
        f"                 99 percentile: {every.p99 / _MS:5.1f}ms\n"
        f"                 95 percentile: {every.p95 / _MS:5.1f}ms\n"
        f"                        median: {every.p50 / _MS:5.1f}ms\n"
        f"                  Request Rate: {round(recorded / summary.elapsed_s):5d}req/s\n"
        "\n"
        f"Requests since start (error/total): {failed:5d}/{total}\n"
    )


def period_extra(summary: Summary) -> str:
    """Return what we add below a period's block; empty if there is nothing to say."""
    doubts = [f"late slots: {summary.late:,}"] if summary.late else []
    if summary.overruns:
        doubts.append(f"overruns: {summary.overruns:,} samples dropped, the ring was full")
    if summary.syn_retransmits:
        doubts.append(f"slow: {slow_text(summary.syn_retransmits)}")
    lines = ["  ".join(doubts)] if doubts else []
    return "\n".join(lines + [f"{each.netns}: {delta_line(each)}" for each in summary.counters])


def slow_text(syn_retransmits: dict[str, int]) -> str:
    """Count the connects that were slow by how often their SYN was sent again, which the last count
    does not tell beyond.
    """
    again = [f"{_TIMES.get(times, times + ' times')} {count:,}" for times, count in syn_retransmits.items()]
    return f"SYN retransmitted: {', '.join(again)}"


def client_summary(result: ClientResult) -> str:
    """Return the final summary of a client's run."""
    summary = result.summary
    low, high = summary.loss_rate_ci95
    rate = f"{percent(summary.loss_rate)} (95 % interval {percent(low)} to {percent(high)})"
    causes = ", ".join(f"{name} {count:,}" for name, count in summary.errors.items()) or "none"
    lines = [
        f"Summary of the whole run ({summary.elapsed_s:.1f} s):",
        f"  attempted   {summary.attempted:>12,}   {summary.rate_per_s:,.0f} a second",
        f"  connected   {summary.connected:>12,}",
        f"  failed      {summary.failed:>12,}   {rate}",
        f"  errors      {causes}",
        f"  late slots  {summary.late:>12,}   not dialled: a dial was in flight, or being prepared",
        f"  overruns    {summary.overruns:>12,}   samples dropped because the ring was full",
        f"  cut short   {summary.cut_short:>12,}   in flight at the stop; not counted above",
        *([f"  slow        {_slow(summary)}"] if summary.syn_retransmits else []),
        "  latency          p50       p90       p95       p99     p99.9       max",
        _latency_line("connected", summary.latency_ns),
        _latency_line("all", summary.latency_all_ns),
        _latency_line("from slot", summary.latency_from_slot_ns),
    ]
    lines += [f"  {each.netns}: {delta_line(each)}" for each in summary.counters]
    lines += [line for cause in result.diagnosis for line in cause_lines(cause)]
    if result.spec["mode"] == "rendezvous" and "TIMEOUT" in summary.errors:
        lines.append(f"  {ADVERSARIAL}")
    clock = (warning for warning in result.warnings if warning.kind is WarningKind.clock_stepped)
    lines += [f"  {sentence(warning)}" for warning in clock]
    if lost_nothing_alone(result):
        warning = MeasurementWarning(kind=WarningKind.nothing_lost_alone)
        lines.append(f"  {sentence(warning)}")
    return "\n".join(lines)


def cause_lines(cause: Cause) -> list[str]:
    """Return a cause, its evidence and what to do about it."""
    return [
        f"  {cause.losses:,} x {cause.cause}: {evidence(cause)}.",
        f"  To do about {cause.cause}: {advice(cause)}.",
    ]


def _slow(summary: Summary) -> str:
    slow = sum(summary.syn_retransmits.values())
    return f"{slow:>12,}   connects of over 0.9 s. {slow_text(summary.syn_retransmits)}"


def _latency_line(name: str, latency: Latency | None) -> str:
    if not latency:
        return f"  {name:<10}" + 6 * "         -"
    values = (latency.p50, latency.p90, latency.p95, latency.p99, latency.p999, latency.max)
    return f"  {name:<10}" + "".join(f"{duration(value):>10}" for value in values)
