"""What rose in a namespace, as a line."""

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


def rise_line(lap: CounterDelta) -> str:
    """Return one period as a line: what rose, by how much, on which CPUs, and the table's fill."""
    parts = [f"{name} +{sum(rise):,}{_on_cpus(name, rise)}" for name, rise in conntrack(lap) if sum(rise)]
    parts += [f"{name} +{lap.tcp[name]:,}" for name in TCP if lap.tcp.get(name)]
    fill = f"entries {lap.conntrack.count:,} of {lap.conntrack.max:,}" if lap.conntrack else ""
    return "  ".join([*(parts or ["nothing rose"]), fill]).rstrip()


def conntrack(lap: CounterDelta) -> list[tuple[str, list[int]]]:
    """Return conntrack's counters by name, one number per CPU; nothing where nobody read them."""
    found: ConntrackDelta | None = lap.conntrack
    return [(name, getattr(found, field)) for name, field in CONNTRACK.items()] if found else []


def _on_cpus(name: str, rise: list[int]) -> str:
    where = [f"CPU {cpu} +{count:,}" for cpu, count in enumerate(rise) if count]
    return f" ({', '.join(where)})" if name in LOSSES and len(where) <= _MOST_CPUS_IN_LINE else ""
