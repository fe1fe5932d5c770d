"""What the kernel's counters could account for: causes, and at most how many lost SYNs of each.

Sources: net/netfilter/nf_conntrack_core.c (``__nf_conntrack_confirm``: a clash raises
insert_failed and drop, a chain that is too long insert_failed and chaintoolong; a full table
raises drop), nf_nat_core.c (``get_unique_tuple``: when every port is taken it returns one in use,
which also dies at confirm), net/ipv4/tcp_input.c, tcp_ipv4.c, tcp_minisocks.c and fib_frontend.c
for the rest. All measured on 6.18, one counter up for each SYN lost, unless a line says otherwise.
"""

import math
from collections.abc import Iterable, Iterator

from snat_race.analysis.intervals import poisson_at_least
from snat_race.results.cause import Cause
from snat_race.results.counters import ConntrackDelta, CounterDelta, KernelCounters, summed
from snat_race.results.nat import EVERY_PORT, Nat

_HARDLY = 0.05  # expected searches without a port: fewer are none
RARE = 1e-4  # losses less probable than this are not put down to chance

_RANDOMISE = "add --random-fully (nftables: fully-random) to the SNAT rule: see 'snat-race mitigate'"
_BY_CHANCE = "nothing: two SYNs at once draw the same port now and then"
_NOT_BY_CHANCE = "report it: this rule draws ports at random, and yet more SYNs collide than chance has it"
_MORE_PORTS = "give the NAT more ports or addresses, or the load more destinations"
_WHOSE = "look for the rule where it is: 'snat-race doctor' on each host on the way"
_WHICH = "count what one destination has: 'conntrack -L -d ADDRESS | wc -l'"

_UNREAD = "; nobody read the NAT's rule: if that has 32 ports or fewer, they may have run out"
_PAWS = ("PAWSTimewait", "PAWSEstab", "TCPACKSkippedTimeWait")


def exhausted_at_most(rose: ConntrackDelta, nat: Nat, *, entries: int | None = None) -> int:
    """Return how many of the clashes may be of a NAT without free ports; the others are the race.

    Each search that finds no port raises ``found`` by a fixed amount, so what ``found`` cannot pay
    for is the race; and a table with few entries exhausts none. Very few ports raise it by nothing.
    The shorter the time, the sharper this is: add it up over the laps of a run. ``entries``: the most
    entries that the table had meanwhile; None: as many as at the end.
    """
    each, found, clashes = nat.found_per_exhausted, sum(rose.found), _clashes(rose)
    expected = nat.expected_exhausted(found, clashes, rose.count if entries is None else entries)
    at_most = math.ceil(3 * expected) if expected > _HARDLY else 0
    return min(clashes, found // each if each else clashes, at_most)


def exhausted_over(laps: Iterable[CounterDelta], nat: Nat) -> int:
    """Return the same, added up."""
    return sum(exhausted_at_most(each.conntrack, nat) for each in laps if each.conntrack)


def _clashes(rose: ConntrackDelta) -> int:
    return min(sum(rose.insert_failed) - sum(rose.chain_toolong), sum(rose.drop))


def at_nat(rose: ConntrackDelta, nat: Nat, exhausted: int) -> Iterator[Cause]:
    """Yield what conntrack's counters could account for; ``exhausted``: see above."""
    failed, chained, dropped = sum(rose.insert_failed), sum(rose.chain_toolong), sum(rose.drop)
    evidence = f"insert_failed +{failed:,}, drop +{dropped:,}, found +{sum(rose.found):,}"
    yield from _race_or_exhaustion(evidence, rose, nat, exhausted)
    yield _cause(
        "conntrack_chain_too_long",
        chained,
        f"chaintoolong +{chained:,}, insert_failed +{failed:,}",
        "raise net.netfilter.nf_conntrack_buckets",
    )
    yield _cause(
        "conntrack_table_full",
        max(0, dropped - max(0, failed - chained)),
        f"drop +{dropped:,} beyond insert_failed, early_drop +{sum(rose.early_drop):,}, "
        f"table {rose.count:,} of {rose.max:,}",
        "raise net.netfilter.nf_conntrack_max",
    )


def _race_or_exhaustion(evidence: str, rose: ConntrackDelta, nat: Nat, exhausted: int) -> Iterator[Cause]:
    """Tell the one from the other, but where neither can be ruled out: with so few ports that a
    search does not show, and in a table so large that it may, or may not, be of one destination.
    """
    each = nat.found_per_exhausted
    fill = f"{rose.count:,} entries, {nat.ports:,} ports"
    if not each or nat.ports == EVERY_PORT:
        told = f"{evidence}: the race, or a NAT out of ports; {fill}"
        yield _cause("inconclusive", exhausted, told, _WHICH)
    else:
        told = f"{evidence}: {each} taken ports for each; {fill}"
        yield _cause("nat_ports_exhausted", exhausted, told, _MORE_PORTS)
    raced, advice = _clashes(rose) - exhausted, _RANDOMISE
    if nat.absent:
        yield _cause("inconclusive", raced, f"{evidence}: but no rule there translates these", _WHOSE)
        return
    if nat.drawn or nat.same_draws:
        rare = nat.same_draws and poisson_at_least(raced, nat.same_draws) <= RARE
        advice = _NOT_BY_CHANCE if rare else _BY_CHANCE
    doubt = "" if nat.known else _UNREAD
    yield _cause("snat_race", raced, f"{evidence}{doubt}", advice)


def beyond_nat(kernel: KernelCounters, answered: int) -> Iterator[Cause]:
    """Yield what TCP's and IP's counters could account for.

    ``answered``: dials that an ICMP error, or a RST, ended at once. What is counted where the dials
    come from counts only where it is of routes: a SYN-ACK that was lost raises TCPSYNChallenge there.
    """
    served, everywhere = summed((kernel.source_tcp, kernel.destination)), kernel.tcp
    overflows, challenged = served.get("ListenOverflows", 0), served.get("TCPSYNChallenge", 0)
    yield _cause(
        "accept_queue_full",
        overflows,
        f"ListenOverflows +{overflows:,} at the server",
        "accept faster, or raise the backlog and net.core.somaxconn",
    )
    yield _cause(
        "open_connection_reused",
        challenged,
        f"TCPSYNChallenge +{challenged:,}: at the server that connection is open still",
        "let the NAT's entries live as long as the server's connections, or give it more ports",
    )
    yield from _listener_drops(served)
    yield _time_wait(served)
    yield from _routes(everywhere, answered)


def of_node(kernel: KernelCounters, nat: Nat) -> list[Cause]:
    """Return what a node's counters could account for, whoever dialled."""
    every = [*at_nat(kernel.conntrack, nat, kernel.exhausted or 0), *beyond_nat(kernel, 0)]
    return [each for each in every if each.losses > 0]


def _routes(rose: dict[str, int], answered: int) -> Iterator[Cause]:
    """Yield what routers and firewalls say; each answer by ICMP stands for one SYN."""
    filtered, lost = rose.get("IPReversePathFilter", 0), rose.get("IpExtInNoRoutes", 0)
    yield _cause(
        "reverse_path_filter",
        filtered,
        f"IPReversePathFilter +{filtered:,}",
        "mend the route back, or set net.ipv4.conf.*.rp_filter=2 (loose) or 0",
    )
    yield _cause(
        "no_route",
        max(0, lost - answered),
        f"IpExtInNoRoutes +{lost:,} at a router",
        "mend the routes of the hosts in between: 'ip route get ADDRESS' on each",
    )
    rejected = max(0, rose.get("IcmpInDestUnreachs", 0) - max(answered, lost))
    yield _cause(
        "rejected",
        rejected,
        f"IcmpInDestUnreachs +{rejected:,} that the dials did not wait for",
        "a firewall REJECTs, or a route ends: 'iptables-save -c', 'nft list ruleset' count packets",
    )


def _listener_drops(rose: dict[str, int]) -> Iterator[Cause]:
    """Yield the ListenDrops that are not of a full accept queue: of the SYN queue, of the quarter of
    tcp_max_syn_backlog that is kept for known peers, or of answers without a route.
    """
    drops, full = rose.get("ListenDrops", 0), rose.get("TCPReqQFullDrop", 0)
    others = max(0, drops - rose.get("ListenOverflows", 0) - full)
    no_route_back = min(others, rose.get("IpOutNoRoutes", 0))
    yield _cause(
        "syn_queue_full",
        full + others - no_route_back,
        f"TCPReqQFullDrop +{full:,}, ListenDrops +{drops:,} at the server",
        "a SYN flood? set net.ipv4.tcp_syncookies=1, raise tcp_max_syn_backlog and net.core.somaxconn",
    )
    yield _cause(
        "no_route_back",
        no_route_back,
        f"OutNoRoutes +{no_route_back:,}, ListenDrops +{drops:,}: the server has no route to answer on",
        "give the server a route back, or translate these addresses too",
    )


def _time_wait(rose: dict[str, int]) -> Cause:
    """Count SYNs that met a TIME_WAIT at the server: tcp_timewait_state_process() rejects those
    with older timestamps (PAWSTimewait on newer kernels, PAWSEstab on older ones). The client sends
    its SYN again after two ticks, so only timeouts of a few ms lose it.
    """
    counted = {name: rose.get(name, 0) for name in _PAWS}
    name = max(counted, key=lambda each: counted[each])
    return _cause(
        "time_wait_reuse",
        counted[name],
        f"{name} +{counted[name]:,} at the server, where a SYN sent again counts again",
        "give the NAT more ports or addresses, so that ports rest for longer",
    )


def late(answered_late: int) -> Cause:
    """Return the requests that were answered, but not in time."""
    return _cause(
        "answered_too_late",
        max(0, answered_late),
        f"the server answered {answered_late:,} more than the dialers heard in time",
        "raise the timeout; if that changes nothing, answers are lost on their way back",
    )


def _cause(cause: str, losses: int, evidence: str, advice: str) -> Cause:
    return Cause(cause=cause, losses=losses, evidence=evidence, advice=advice)
