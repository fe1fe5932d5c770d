"""Which cause explains how many losses. Never a guess: what cannot be told is called inconclusive,
what no counter accounts for unexplained.
"""

from snat_race.analysis.candidate_causes import at_nat, beyond_nat, exhausted_at_most, late
from snat_race.results.cause import Cause
from snat_race.results.counters import KernelCounters
from snat_race.results.nat import Nat

DEFAULT_NAT = Nat()
UNPROVEN = frozenset({"inconclusive", "unexplained", "filtered", "not_watched"})

# Another's clashes are counted with ours. Two or three clients alike lose a share each; but where far
# more clashed than was lost, that ours are among them is no more than likely.
_MOSTLY_OTHERS = 3
_ANSWERED = ("ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH")
_BY_ERROR = {
    "ECONNREFUSED": ("refused", "nobody listens at the destination; start the server"),
    "ECONNRESET": ("reset", "the destination, or a firewall, resets connections"),
    "EHOSTUNREACH": ("unreachable", "check routes and firewalls"),
    "ENETUNREACH": ("unreachable", "check routes"),
    "EADDRNOTAVAIL": ("client_ports_exhausted", "no SYN was sent: widen ip_local_port_range"),
    "EADDRINUSE": ("client_port_taken", "no SYN was sent: another program holds the source port"),
    "EMFILE": ("client_out_of_files", "no SYN was sent: raise ulimit -n"),
}


def diagnose(
    attempted: int,
    errors: dict[str, int],
    kernel: KernelCounters,
    *,
    nat: Nat = DEFAULT_NAT,
    answered_late: int = 0,
    resent: int = 0,
) -> list[Cause]:
    """Return the causes of the lost dials, most losses first; together they are all losses.

    ``answered_late``: requests that the server answered beyond those that connected.
    ``resent``: lost SYNs of dials that connected all the same, after SYNs sent again.
    """
    lost = errors.get("TIMEOUT", 0) + resent
    at_most = exhausted_at_most(kernel.conntrack, nat) if kernel.exhausted is None else kernel.exhausted
    suspects = [
        *at_nat(kernel.conntrack, nat, at_most),
        *beyond_nat(kernel, sum(errors.get(name, 0) for name in _ANSWERED)),
        late(answered_late),
    ]
    causes = [_by_error(name, count) for name, count in errors.items() if name != "TIMEOUT"]
    causes += _shared_out([each for each in suspects if each.losses > 0], lost)
    if left := lost + sum(errors.values()) - errors.get("TIMEOUT", 0) - sum(each.losses for each in causes):
        causes.append(
            _unaccounted(left, kernel, nothing_came=left == errors.get("TIMEOUT", 0) == attempted)
        )
    return sorted(causes, key=lambda cause: -cause.losses)


def _shared_out(suspects: list[Cause], lost: int) -> list[Cause]:
    """Give each suspect the losses that are certainly its own.

    Counters may have risen for others' sake. If together they account for more than was lost, a
    suspect is only sure of what is left when all others are given theirs; what nobody is sure of
    is inconclusive.
    """
    total = sum(each.losses for each in suspects)
    if total <= lost or len(suspects) == 1:
        sure = [min(lost, each.losses) for each in suspects]
    else:
        sure = [max(0, lost - (total - each.losses)) for each in suspects]
    others = [each.cause == "snat_race" and each.losses > _MOSTLY_OTHERS * lost for each in suspects]
    sure = [0 if mostly else own for own, mostly in zip(sure, others, strict=True)]
    certain = [_owned(each, own) for each, own in zip(suspects, sure, strict=True) if own]
    unsure = min(total, lost) - sum(sure)
    if not unsure:
        return certain
    named = "; or ".join(
        f"{each.cause}, at most {min(each.losses, lost):,} ({each.evidence})" for each in suspects
    )
    advice = (
        "measure again while nothing else uses these hosts, merge what all clients measured with "
        "'snat-race report', or mend the one and see what is left"
    )
    return [*certain, Cause(cause="inconclusive", losses=unsure, evidence=named, advice=advice)]


def _owned(cause: Cause, losses: int) -> Cause:
    beyond = f"; at most {losses:,} of them are of this run" if cause.losses > losses else ""
    return cause.model_copy(update={"losses": losses, "evidence": cause.evidence + beyond})


def _by_error(name: str, count: int) -> Cause:
    cause, advice = _BY_ERROR.get(name, (name.lower(), "see errno(3)"))
    return Cause(
        cause=cause, losses=count, evidence=f"connect() failed with {name} {count:,} times", advice=advice
    )


def _unaccounted(losses: int, kernel: KernelCounters, *, nothing_came: bool) -> Cause:
    """Say what can be said of losses without a counter.

    A packet that a firewall drops raises no counter but the rule's own (measured, in raw, FORWARD,
    INPUT and POSTROUTING), and it drops them all.
    """
    cause, evidence, advice = (
        "unexplained",
        "timeouts that no counter accounts for",
        "packets may be lost elsewhere, or the timeout is too short for this path",
    )
    if not kernel.source:
        cause = "not_watched"
        evidence = "the NAT's counters were not read, so the cause cannot be told"
        advice = (
            "add --watch-netns 1 (the host's; containers need --pid host), "
            "or run 'snat-race watch' at the NAT"
        )
    elif nothing_came:
        cause = "filtered"
        evidence = "not one dial was answered, and no counter rose"
        advice = (
            "look for a rule that drops ('iptables-save -c' and 'nft list ruleset' count packets), "
            "for the route, and whether the host is up; a full accept queue shows if the server's "
            "namespace is watched too"
        )
    return Cause(cause=cause, losses=losses, evidence=evidence, advice=advice)
