"""What a namespace's counters counted, as a line."""

from snat_race.report.wording.formats import stamp
from snat_race.results.counters import (
    CONNTRACK_COUNTERS,
    CONNTRACK_LABELS,
    LOSS_COUNTERS,
    TCP_COUNTERS,
    CounterDelta,
)

_MOST_CPUS_IN_LINE = 4


def delta_line(period: CounterDelta) -> str:
    """Return one period as a line: what was counted, on which CPUs, and the table's fill."""
    parts = [
        f"{name} +{sum(per_cpu):,}{_on_cpus(name, per_cpu)}"
        for name, per_cpu in conntrack(period)
        if sum(per_cpu)
    ]
    parts += [f"{name} +{period.tcp[name]:,}" for name in TCP_COUNTERS if period.tcp.get(name)]
    if not parts:
        parts = ["nothing rose"]
    if period.conntrack:
        parts.append(f"entries {period.conntrack.count:,} of {period.conntrack.max:,}")
    return "  ".join(parts)


def period_line(now_ns: int, period: CounterDelta) -> str:
    """Return a period that has just ended as a line of its own."""
    return f"{stamp(now_ns)}  {delta_line(period)}"


def conntrack(period: CounterDelta) -> list[tuple[str, list[int]]]:
    """Return conntrack's counters by name, one number per CPU; nothing where nobody read them."""
    if not period.conntrack:
        return []
    return [(label(name), getattr(period.conntrack, name)) for name in CONNTRACK_COUNTERS]


def label(name: str) -> str:
    """Return what ``conntrack -S`` calls a counter."""
    return CONNTRACK_LABELS.get(name, name)


LOSSES = frozenset(label(name) for name in LOSS_COUNTERS)
"""What ``conntrack -S`` calls the counters that rise when a packet is lost."""


def _on_cpus(name: str, per_cpu: list[int]) -> str:
    if name not in LOSSES:
        return ""
    where = [f"CPU {cpu} +{count:,}" for cpu, count in enumerate(per_cpu) if count]
    return f" ({', '.join(where)})" if len(where) <= _MOST_CPUS_IN_LINE else ""
