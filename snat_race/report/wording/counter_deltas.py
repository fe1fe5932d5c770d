"""What a namespace's counters counted, as a line."""

from snat_race.results.counters import ConntrackDelta, CounterDelta

# As `conntrack -S` calls them.
CONNTRACK = {
    "insert_failed": "insert_failed",
    "drop": "drop",
    "found": "found",
    "clash_resolve": "clash_resolve",
    "chaintoolong": "chain_toolong",
    "early_drop": "early_drop",
    "invalid": "invalid",
    "search_restart": "search_restart",
}
LOSSES = {"insert_failed", "drop", "chaintoolong"}
TCP = (
    "ListenOverflows",
    "ListenDrops",
    "TCPReqQFullDrop",
    "TCPReqQFullDoCookies",
    "SyncookiesSent",
    "PAWSActive",
    "PAWSEstab",
    "PAWSTimewait",
    "TCPACKSkippedTimeWait",
    "TCPSYNChallenge",
    "IPReversePathFilter",
    "TCPSynRetrans",
)
_MOST_CPUS_IN_LINE = 4


def delta_line(period: CounterDelta) -> str:
    """Return one period as a line: what was counted, on which CPUs, and the table's fill."""
    parts = [
        f"{name} +{sum(per_cpu):,}{_on_cpus(name, per_cpu)}"
        for name, per_cpu in conntrack(period)
        if sum(per_cpu)
    ]
    parts += [f"{name} +{period.tcp[name]:,}" for name in TCP if period.tcp.get(name)]
    if not parts:
        parts = ["nothing rose"]
    if period.conntrack:
        parts.append(f"entries {period.conntrack.count:,} of {period.conntrack.max:,}")
    return "  ".join(parts)


def conntrack(period: CounterDelta) -> list[tuple[str, list[int]]]:
    """Return conntrack's counters by name, one number per CPU; nothing where nobody read them."""
    counted: ConntrackDelta | None = period.conntrack
    return [(name, getattr(counted, field)) for name, field in CONNTRACK.items()] if counted else []


def _on_cpus(name: str, per_cpu: list[int]) -> str:
    if name not in LOSSES:
        return ""
    where = [f"CPU {cpu} +{count:,}" for cpu, count in enumerate(per_cpu) if count]
    return f" ({', '.join(where)})" if len(where) <= _MOST_CPUS_IN_LINE else ""
