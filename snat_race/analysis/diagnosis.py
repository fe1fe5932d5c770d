"""Which cause explains how many losses. Never a guess: what cannot be told is called inconclusive,
what no counter accounts for unexplained.
"""

from collections.abc import Iterable, Iterator, Sequence

from snat_race.analysis.candidate_causes import answered_too_late, at_nat, beyond_nat, exhausted_at_most
from snat_race.results.conclusions import Advice, CandidateCause, Cause, CauseName
from snat_race.results.counters import KernelCounters
from snat_race.results.nat import Nat
from snat_race.results.schema import Summary

DEFAULT_NAT = Nat()
TIMEOUT = "TIMEOUT"

# Another's clashes are counted with ours. Two or three clients alike lose a share each; but where far
# more clashed than was lost, that ours are among them is no more than likely.
_MOSTLY_OTHERS = 3
# Errors that end a dial at once, because somebody answered by RST or ICMP.
_ANSWERED = ("ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH")
# What may be behind an inconclusive candidate, by what would tell; and what to do if it is that.
_MAY_BE = {
    Advice.count_entries_of_destination: {
        CauseName.snat_race: Advice.count_entries_of_destination,
        CauseName.nat_ports_exhausted: Advice.give_nat_more_ports,
    },
    Advice.raise_conntrack_max: {
        CauseName.snat_race: Advice.draw_ports_at_random,
        CauseName.conntrack_table_full: Advice.raise_conntrack_max,
    },
    Advice.rest_source_ports: {
        CauseName.snat_race: Advice.draw_ports_at_random,
        CauseName.conntrack_entry_dying: Advice.rest_source_ports,
    },
    Advice.look_for_full_table: {CauseName.conntrack_table_full: Advice.look_for_full_table},
}
_BY_ERROR = {
    "ECONNREFUSED": (CauseName.refused, Advice.start_server),
    "ECONNRESET": (CauseName.reset, Advice.find_who_resets),
    "EHOSTUNREACH": (CauseName.unreachable, Advice.check_routes_and_firewalls),
    "ENETUNREACH": (CauseName.unreachable, Advice.check_routes_and_firewalls),
    "EADDRNOTAVAIL": (CauseName.client_ports_exhausted, Advice.widen_local_ports),
    "EADDRINUSE": (CauseName.client_port_taken, Advice.free_source_port),
    "EMFILE": (CauseName.client_out_of_files, Advice.raise_open_files),
}


def diagnose(
    summary: Summary, kernel: KernelCounters, *, nat: Nat = DEFAULT_NAT, answered_late: int = 0
) -> list[Cause]:
    """Return the causes of the lost dials, most losses first; together they are all losses.

    Losses are the dials that failed, and the lost SYNs of dials that connected after a retransmit.
    ``answered_late``: requests that the server answered beyond those that connected.
    """
    timeouts = summary.errors.get(TIMEOUT, 0)
    lost_syns = timeouts + lost_before_retransmit(summary.syn_retransmits)
    causes = [_by_error(name, count) for name, count in summary.errors.items() if name != TIMEOUT]
    causes += _shared_out(_candidates(summary, kernel, nat, answered_late), lost_syns)
    losses = sum(summary.errors.values()) - timeouts + lost_syns
    unaccounted = losses - sum(cause.losses for cause in causes)
    if unaccounted:
        nothing_came = unaccounted == timeouts == summary.attempted
        causes.append(_unaccounted(unaccounted, kernel, nothing_came=nothing_came))
    return sorted(causes, key=lambda cause: -cause.losses)


def lost_before_retransmit(syn_retransmits: dict[str, int]) -> int:
    """Return how many SYNs were lost of dials that connected in the end."""
    return sum(int(times) * count for times, count in syn_retransmits.items())


def _candidates(
    summary: Summary, kernel: KernelCounters, nat: Nat, answered_late: int
) -> list[CandidateCause]:
    """Return all causes that may have cost a SYN."""
    exhausted = kernel.exhausted
    if exhausted is None:
        exhausted = exhausted_at_most(kernel.conntrack, nat)
    answered = sum(summary.errors.get(name, 0) for name in _ANSWERED)
    candidates: Iterable[CandidateCause] = (
        *at_nat(kernel.conntrack, nat, exhausted, of_dials=True),
        *beyond_nat(kernel, answered),
        answered_too_late(answered_late),
    )
    return [candidate for candidate in candidates if candidate.at_most > 0]


def _shared_out(candidates: Sequence[CandidateCause], lost: int) -> list[Cause]:
    """Give each candidate the losses that are certainly its own.

    Counters may have risen for others' sake. If together they account for more than was lost, a
    candidate is only sure of what is left when all others are given theirs; what nobody is sure of
    is inconclusive.
    """
    total = sum(candidate.at_most for candidate in candidates)
    causes: list[Cause] = []
    left: list[CandidateCause] = []
    for candidate in candidates:
        others = total - candidate.at_most
        certain = min(candidate.at_most, max(0, lost - others)) if total > lost else candidate.at_most
        if candidate.cause == CauseName.inconclusive or _mostly_of_others(candidate, lost):
            certain = 0
        if certain:
            causes.append(_certain(candidate, certain))
        if certain < candidate.at_most:
            left.append(candidate)
    unsure = min(total, lost) - sum(cause.losses for cause in causes)
    if unsure:
        causes.append(_inconclusive(left, unsure, lost))
    return causes


def _inconclusive(candidates: Sequence[CandidateCause], unsure: int, lost: int) -> Cause:
    """Return losses of which nobody can tell whose they are, with one advice: what would tell.

    Some candidates are inconclusive in themselves, because one counter counts two events. If only that
    is in doubt, what tells those events apart is the advice. Else each event is a candidate of its own.
    """
    unclear = [candidate for candidate in candidates if candidate.cause == CauseName.inconclusive]
    if unclear and (len(candidates) == 1 or _all_may_be_race(candidates, lost)):
        gravest = max(unclear, key=lambda candidate: candidate.at_most)
        return Cause(
            cause=CauseName.inconclusive,
            losses=unsure,
            at_most=max(unsure, gravest.at_most),
            evidence=gravest.evidence,
            advice=gravest.advice,
        )
    events = [event for candidate in candidates for event in _events(candidate)]
    at_most: dict[CauseName, int] = {}
    for event in events:
        at_most[event.cause] = at_most.get(event.cause, 0) + event.at_most
    first_of_each = {event.cause: event for event in reversed(events)}
    return Cause(
        cause=CauseName.inconclusive,
        losses=unsure,
        advice=Advice.measure_alone,
        candidates=[_bounded(first_of_each[cause], min(total, lost)) for cause, total in at_most.items()],
    )


def _all_may_be_race(candidates: Iterable[CandidateCause], lost: int) -> bool:
    """Whether each candidate is the race, or may be, and no clash is mostly of others."""
    return all(
        candidate.cause == CauseName.snat_race
        or (candidate.cause == CauseName.inconclusive and candidate.advice != Advice.look_for_full_table)
        for candidate in candidates
    ) and not any(_mostly_of_others(candidate, lost) for candidate in candidates)


def _events(candidate: CandidateCause) -> Iterator[CandidateCause]:
    """Yield what may be behind a candidate: itself, or what it may be, if it is inconclusive."""
    events = _MAY_BE.get(candidate.advice, {CauseName.snat_race: candidate.advice})
    if candidate.cause != CauseName.inconclusive:
        events = {candidate.cause: candidate.advice}
    for cause, advice in events.items():
        yield CandidateCause(
            cause=cause, at_most=candidate.at_most, evidence=candidate.evidence, advice=advice
        )


def _mostly_of_others(candidate: CandidateCause, lost: int) -> bool:
    return candidate.cause == CauseName.snat_race and candidate.at_most > _MOSTLY_OTHERS * lost


def _certain(candidate: CandidateCause, losses: int) -> Cause:
    return Cause(
        cause=candidate.cause,
        losses=losses,
        at_most=candidate.at_most,
        evidence=candidate.evidence,
        advice=candidate.advice,
    )


def _bounded(candidate: CandidateCause, at_most: int) -> CandidateCause:
    """Return a candidate that cost no more than that."""
    return CandidateCause(
        cause=candidate.cause,
        at_most=at_most,
        evidence=candidate.evidence,
        advice=candidate.advice,
    )


def _by_error(name: str, count: int) -> Cause:
    cause, advice = _BY_ERROR.get(name, (CauseName.other_error, Advice.look_up_errno))
    return Cause(cause=cause, losses=count, evidence={name: count}, advice=advice)


def _unaccounted(losses: int, kernel: KernelCounters, *, nothing_came: bool) -> Cause:
    """Say what can be said of losses without a counter.

    A packet that a firewall drops raises no counter but the rule's own (measured, in raw, FORWARD,
    INPUT and POSTROUTING), and it drops them all.
    """
    if not kernel.source:
        return Cause(cause=CauseName.not_watched, losses=losses, advice=Advice.read_nat_counters)
    if nothing_came:
        return Cause(cause=CauseName.filtered, losses=losses, advice=Advice.find_dropping_rule)
    return Cause(cause=CauseName.unexplained, losses=losses, advice=Advice.check_path)
