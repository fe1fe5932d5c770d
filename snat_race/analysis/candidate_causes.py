"""What the kernel's counters could account for: causes, and at most how many lost SYNs of each.

Which event raises which counter by one, for each SYN lost (measured on 6.18 unless a line says otherwise):

======================  ==============================  ==============================================
event                   counters                        source
======================  ==============================  ==============================================
race, or no free port   insert_failed, drop             nf_conntrack_core.c, __nf_conntrack_confirm()
the same before 4.7     insert_failed                   the same; drop came with 71d8c47fc653
hash chain too long     insert_failed, chain_toolong    the same, since 5.15; Linux names it chaintoolong
table full              drop                            nf_conntrack_core.c, nf_conntrack_in()
entry being removed     drop, invalid                   the same, and nf_conntrack_proto_tcp.c, tcp_packet()
accept queue full       ListenOverflows, ListenDrops    net/ipv4/tcp_input.c, tcp_conn_request()
SYN queue full          TCPReqQFullDrop, ListenDrops    the same
no route back           OutNoRoutes, ListenDrops        the same, when the SYN-ACK cannot be routed
connection still open   TCPSYNChallenge                 net/ipv4/tcp_input.c, tcp_validate_incoming()
meets a TIME_WAIT       PAWSTimewait, or PAWSEstab      net/ipv4/tcp_minisocks.c, see _time_wait()
no route to the source  IPReversePathFilter             net/ipv4/ip_input.c, ip_rcv_finish_core()
======================  ==============================  ==============================================

A NAT without a free port looks like the race: get_unique_tuple() in nf_nat_core.c then returns a tuple
that is in use, and the SYN dies at confirm. Only ``found`` tells the two apart, see exhausted_at_most().

Two packets of one UDP socket may clash as well, DNS queries above all. Until it is resolved (see
``results.kernels``), that counts as the race does. Resolved, it raised insert_failed alone up to 5.9
(bc92470413f3), and loses nothing.

All counters are of a whole namespace. So they count what others lost too, and a number here is always
"at most": ``diagnosis`` shares out what one run lost.
"""

import math
from collections.abc import Iterable, Iterator

from snat_race.analysis.intervals import poisson_at_least
from snat_race.results.conclusions import Advice, CandidateCause, CauseName
from snat_race.results.counters import ConntrackDelta, CounterDelta, KernelCounters, summed
from snat_race.results.nat import EVERY_PORT, Nat

RARE = 1e-4
"""Losses less probable than this are not put down to chance."""

# Searches without a free port that are expected: fewer than that are none.
_HARDLY_ANY = 0.05
# There may be this many times as many of them as expected, by chance and because entries come and go.
_EXHAUSTED_MARGIN = 3
# From this share of the table on it may have been full between two readings.
_NEARLY_FULL = 0.9
# Insertions that failed and dropped nothing hide drops that are of no clash: up to this many times as many.
_HIDDEN_MARGIN = 3
# Of a SYN that meets a TIME_WAIT, each kernel raises one of these.
_PAWS_COUNTERS = ("PAWSTimewait", "PAWSEstab", "TCPACKSkippedTimeWait")


def exhausted_at_most(delta: ConntrackDelta, nat: Nat, *, entries: int | None = None) -> int:
    """Return how many of the clashes may be of a NAT without free ports; the others are the race.

    Each clash is one or the other, and no counter says which. Two bounds hold all the same:

    - Each search that finds no port raises ``found`` by a fixed amount (see ``Nat.found_per_exhausted``).
      What ``found`` cannot pay for is the race.
    - A search is in vain only if all ports that it tries are taken. The fewer entries the table has, the
      fewer searches are (see ``Nat.expected_exhausted``).

    It is an upper bound, because healthy dials that meet a taken port raise ``found`` too. A NAT with very
    few ports raises it by nothing, so there the first bound says nothing. The shorter the time, the
    sharper the bound: add it up over the periods of a run. ``entries``: the most entries that the table
    had meanwhile; None: as many as at the end.

    Where ``found`` counts look-ups too, only the table tells: there a search goes through all ports.
    """
    entries = delta.count if entries is None else entries
    clashes = _clashes(delta, nat)
    if not clashes:  # as in almost all periods of a long run
        return 0
    if not nat.clashes_raise_drop:
        return clashes if entries >= nat.ports else 0
    per_search = nat.found_per_exhausted
    found = sum(delta.found)
    affordable = found // per_search if per_search else clashes
    if not affordable:
        return 0
    expected = nat.expected_exhausted(found, clashes, entries)
    likely = math.ceil(_EXHAUSTED_MARGIN * expected) if expected > _HARDLY_ANY else 0
    return min(clashes, affordable, likely)


def exhausted_over(periods: Iterable[CounterDelta], nat: Nat) -> int:
    """Return the same, added up."""
    return sum(exhausted_at_most(period.conntrack, nat) for period in periods if period.conntrack)


def _clashes(delta: ConntrackDelta, nat: Nat) -> int:
    """Return how many entries clashed, and lost their packet.

    A clash raises insert_failed and drop. A chain that is too long raises insert_failed only, a full
    table drop only; so a clash is what both counted, chains left out. Before 4.7 a clash raised
    insert_failed only.
    """
    failed = _failed(delta)
    return min(failed, sum(delta.drop)) if failed and nat.clashes_raise_drop else failed


def _failed(delta: ConntrackDelta) -> int:
    """Return how many insertions failed, those left out whose hash chain was too long."""
    return max(0, sum(delta.insert_failed) - sum(delta.chain_toolong))


def at_nat(delta: ConntrackDelta, nat: Nat, exhausted: int, *, of_dials: bool) -> Iterator[CandidateCause]:
    """Yield what conntrack's counters could account for.

    ``exhausted``: how many of the clashes may be of a NAT without free ports. ``of_dials``: whether TCP's
    dials are to be explained, so that clashes of UDP are of others.
    """
    chained = sum(delta.chain_toolong)
    yield from _race_or_exhaustion(delta, nat, exhausted, of_dials=of_dials)
    yield CandidateCause(
        cause=CauseName.conntrack_chain_too_long,
        at_most=chained,
        evidence={"chain_toolong": chained, "insert_failed": sum(delta.insert_failed)},
        advice=Advice.raise_buckets,
    )
    yield from _dropped_otherwise(delta, nat)


def _dropped_otherwise(delta: ConntrackDelta, nat: Nat) -> Iterator[CandidateCause]:
    """Yield why packets were dropped, if not because their entry clashed.

    nf_conntrack_in() drops a packet in two cases. No entry can be made: the table is full, or memory is
    short. Or TCP's tracker refuses it: a SYN for an entry that is closed, and somebody else is removing it
    already. That raises invalid too, which stray packets raise as well. So a table that was full comes
    first; else there were no more refusals than ``invalid``.
    """
    dropped = sum(delta.drop)
    clashes = _clashes(delta, nat)
    otherwise = dropped - clashes if nat.clashes_raise_drop else dropped
    evidence = {"drop": otherwise} | _of_table(delta)
    if _was_full(delta):
        yield CandidateCause(
            cause=CauseName.conntrack_table_full,
            at_most=otherwise,
            evidence=evidence,
            advice=Advice.raise_conntrack_max,
        )
        return
    refused = min(otherwise, sum(delta.invalid))
    yield CandidateCause(
        cause=CauseName.conntrack_entry_dying,
        at_most=refused,
        evidence=evidence,
        advice=Advice.rest_source_ports,
    )
    # A vendor's kernel before 4.7 may raise drop for clashes all the same.
    left = otherwise - refused - (0 if nat.clashes_raise_drop else clashes)
    yield CandidateCause(
        cause=CauseName.inconclusive,
        at_most=max(0, left),
        evidence=evidence,
        advice=Advice.look_for_full_table,
    )


def _of_table(delta: ConntrackDelta) -> dict[str, int]:
    """Return what tells why a packet was dropped whose entry did not clash."""
    return {
        "early_drop": sum(delta.early_drop),
        "invalid": sum(delta.invalid),
        "entries": delta.count,
        "most_entries": delta.max,
    }


def _was_full(delta: ConntrackDelta) -> bool:
    """Whether the table was full at some time, or may have been between two readings."""
    return sum(delta.early_drop) > 0 or 0 < _NEARLY_FULL * delta.max <= delta.count


def _clash_or_not(delta: ConntrackDelta, nat: Nat) -> CandidateCause:
    """Return the drops that may be of a clash, or of what else drops a packet.

    What failed to be inserted and was not dropped for that, as up to 5.9 a UDP clash that was resolved,
    looks like a clash beside a drop of another kind. There may be some more of these than show.
    """
    failed, dropped = _failed(delta), sum(delta.drop)
    showing = max(0, failed - dropped) if nat.clashes_raise_drop else 0
    full = _was_full(delta)
    at_most = min(dropped, _HIDDEN_MARGIN * showing)
    return CandidateCause(
        cause=CauseName.inconclusive,
        at_most=at_most if full else min(at_most, sum(delta.invalid)),
        evidence={"insert_failed": sum(delta.insert_failed), "drop": dropped} | _of_table(delta),
        advice=Advice.raise_conntrack_max if full else Advice.rest_source_ports,
    )


def _race_or_exhaustion(
    delta: ConntrackDelta, nat: Nat, exhausted: int, *, of_dials: bool
) -> Iterator[CandidateCause]:
    """Tell the race from a NAT out of ports.

    Neither can be ruled out where the NAT has so few ports that a search does not show, nor where
    the table is so large that it may, or may not, be of one destination.
    """
    clashed = {
        "insert_failed": sum(delta.insert_failed),
        "drop": sum(delta.drop),
        "found": sum(delta.found),
    }
    per_search = nat.found_per_exhausted
    fill = {"found_per_search": per_search, "entries": delta.count, "ports": nat.ports}
    if not per_search or nat.ports == EVERY_PORT:
        yield CandidateCause(
            cause=CauseName.inconclusive,
            at_most=exhausted,
            evidence=clashed | fill,
            advice=Advice.count_entries_of_destination,
        )
    else:
        yield CandidateCause(
            cause=CauseName.nat_ports_exhausted,
            at_most=exhausted,
            evidence=clashed | fill,
            advice=Advice.give_nat_more_ports,
        )
    unclear = _clash_or_not(delta, nat)
    yield unclear
    raced = max(0, _clashes(delta, nat) - exhausted - unclear.at_most)
    if not nat.clashes_raise_drop:
        clashed |= {"drop_uncounted": 1}
    cause, advice = _race_or_others(raced, nat, of_dials=of_dials)
    if cause == CauseName.snat_race and not nat.known:
        clashed |= {"rules_unread": 1}
    yield CandidateCause(cause=cause, at_most=raced, evidence=clashed, advice=advice)


def _race_or_others(raced: int, nat: Nat, *, of_dials: bool) -> tuple[CauseName, Advice]:
    """Return what clashes are that are not for want of ports, and what to do about them.

    Of UDP they are for certain only where rules make DNS clash, none races, and nobody asks about TCP's
    losses. Before 4.7 any flow of UDP may have clashed, but that is no proof.
    """
    dns = nat.udp_clashes and nat.clashes_raise_drop
    if dns and not of_dials and (nat.absent or nat.drawn):
        return CauseName.udp_clash, Advice.resolve_udp_clashes
    if nat.udp_clashes:
        return CauseName.inconclusive, Advice.tell_udp_clashes
    if nat.absent:
        return CauseName.inconclusive, Advice.find_translating_rule
    return CauseName.snat_race, _advice_about_race(raced, nat)


def _advice_about_race(raced: int, nat: Nat) -> Advice:
    """Advise to draw ports at random, unless the NAT does."""
    if not nat.drawn and not nat.same_draws:
        return Advice.draw_ports_at_random
    if nat.same_draws and poisson_at_least(raced, nat.same_draws) <= RARE:
        return Advice.report_excess
    return Advice.accept_chance


def beyond_nat(kernel: KernelCounters, answered: int) -> Iterator[CandidateCause]:
    """Yield what TCP's and IP's counters could account for.

    ``answered``: dials that an ICMP error, or a RST, ended at once. They are failures of their own, and
    not among the lost SYNs that these counters are to explain.
    """
    # Not of the containers: after a lost SYN-ACK, the client raises TCPSYNChallenge and others itself.
    served = summed((kernel.source_tcp, kernel.destination))
    overflows = served.get("ListenOverflows", 0)
    challenged = served.get("TCPSYNChallenge", 0)
    yield CandidateCause(
        cause=CauseName.accept_queue_full,
        at_most=overflows,
        evidence={"ListenOverflows": overflows},
        advice=Advice.accept_faster,
    )
    yield CandidateCause(
        cause=CauseName.open_connection_reused,
        at_most=challenged,
        evidence={"TCPSYNChallenge": challenged},
        advice=Advice.match_entry_lifetime,
    )
    yield from _listener_drops(served)
    yield _time_wait(served)
    yield from _routes(kernel.tcp, answered)


def of_node(kernel: KernelCounters, nat: Nat) -> list[CandidateCause]:
    """Return what a node's counters could account for, whoever dialled."""
    candidates = [
        *at_nat(kernel.conntrack, nat, kernel.exhausted or 0, of_dials=False),
        *beyond_nat(kernel, 0),
    ]
    return [candidate for candidate in candidates if candidate.at_most > 0]


def _routes(tcp: dict[str, int], answered: int) -> Iterator[CandidateCause]:
    """Yield what routers and firewalls say; each answer by ICMP stands for one SYN.

    A router without a route counts InNoRoutes, and its ICMP error is counted where it arrives. So the
    errors that are neither a router's nor known to a dial are of a firewall that rejects.
    """
    filtered = tcp.get("IPReversePathFilter", 0)
    unrouted = tcp.get("IpExtInNoRoutes", 0)
    rejected = max(0, tcp.get("IcmpInDestUnreachs", 0) - max(answered, unrouted))
    yield CandidateCause(
        cause=CauseName.reverse_path_filter,
        at_most=filtered,
        evidence={"IPReversePathFilter": filtered},
        advice=Advice.loosen_reverse_path_filter,
    )
    yield CandidateCause(
        cause=CauseName.no_route,
        at_most=max(0, unrouted - answered),
        evidence={"IpExtInNoRoutes": unrouted},
        advice=Advice.mend_routes,
    )
    yield CandidateCause(
        cause=CauseName.rejected,
        at_most=rejected,
        evidence={"IcmpInDestUnreachs": rejected},
        advice=Advice.find_rejecting_rule,
    )


def _listener_drops(tcp: dict[str, int]) -> Iterator[CandidateCause]:
    """Yield the ListenDrops that are not of a full accept queue.

    They are of the SYN queue, of the quarter of tcp_max_syn_backlog that is kept for known peers (which
    only ListenDrops counts), or of answers without a route (which OutNoRoutes counts as well).
    """
    drops = tcp.get("ListenDrops", 0)
    full = tcp.get("TCPReqQFullDrop", 0)
    unrouted = tcp.get("IpOutNoRoutes", 0)
    others = max(0, drops - tcp.get("ListenOverflows", 0) - full)
    no_route_back = min(others, unrouted)
    yield CandidateCause(
        cause=CauseName.syn_queue_full,
        at_most=full + others - no_route_back,
        evidence={"TCPReqQFullDrop": full, "ListenDrops": drops},
        advice=Advice.relieve_syn_queue,
    )
    yield CandidateCause(
        cause=CauseName.no_route_back,
        at_most=no_route_back,
        evidence={"IpOutNoRoutes": no_route_back, "ListenDrops": drops},
        advice=Advice.add_route_back,
    )


def _time_wait(tcp: dict[str, int]) -> CandidateCause:
    """Count SYNs that met a TIME_WAIT at the server.

    tcp_timewait_state_process() rejects those with older timestamps. That raises PAWSTimewait on newer
    kernels (6.18, 7.2), PAWSEstab on older ones (6.12), and TCPACKSkippedTimeWait where the answer is
    rate-limited. They are of the same SYNs, so the highest counts. The client sends its SYN again after
    two ticks, so only timeouts of a few ms lose it.
    """
    counted = {name: tcp.get(name, 0) for name in _PAWS_COUNTERS}
    name = max(counted, key=lambda counter: counted[counter])
    return CandidateCause(
        cause=CauseName.time_wait_reuse,
        at_most=counted[name],
        evidence={name: counted[name]},
        advice=Advice.let_ports_rest,
    )


def answered_too_late(requests: int) -> CandidateCause:
    """Return the requests that were answered, but not in time."""
    return CandidateCause(
        cause=CauseName.answered_too_late,
        at_most=requests,
        evidence={"answered_late": requests},
        advice=Advice.raise_timeout,
    )
