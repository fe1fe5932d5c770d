"""Which cause explains how many losses, by the kernel's own counters. Never a guess.

Sources: net/netfilter/nf_conntrack_core.c (``__nf_conntrack_confirm``: a clash raises
insert_failed and drop; a chain that is too long raises insert_failed and chaintoolong; a full
table raises drop) and nf_nat_core.c (``get_unique_tuple``: when every port is taken it returns
one in use, which also dies at confirm, after some 128 or more look-ups that raise ``found``).
"""

from dataclasses import dataclass

from snat_race.analysis.intervals import by_chance
from snat_race.analysis.result import Cause, Kernel

# A dial that meets taken ports raises `found` by 3 to 5 (measured); an exhausted search by over 100.
_FOUND_PER_DIAL, _FOUND_PER_EXHAUSTED = 5, 100

_PAWS = ("PAWSTimewait", "PAWSEstab", "TCPACKSkippedTimeWait")

_RANDOMISE = "add --random-fully (nftables: fully-random) to the SNAT rule"
_BY_CHANCE = "nothing: two SYNs at once draw the same port now and then"

_NOT_BY_CHANCE = "report it: this rule draws ports at random, and yet more SYNs collide than chance has it"
RARE = 1e-4  # losses less probable than this are not put down to chance

_BY_ERROR = {
    "ECONNREFUSED": ("refused", "nobody listens at the destination; start the server"),
    "ECONNRESET": ("reset", "the destination, or a firewall, resets connections"),
    "EHOSTUNREACH": ("unreachable", "check routes and firewalls"),
    "ENETUNREACH": ("unreachable", "check routes"),
    "EADDRNOTAVAIL": ("client_ports_exhausted", "no SYN was sent: widen ip_local_port_range"),
    "EADDRINUSE": ("client_port_taken", "no SYN was sent: another program holds the source port"),
    "EMFILE": ("client_out_of_files", "no SYN was sent: raise ulimit -n"),
}


@dataclass(frozen=True, slots=True)
class Nat:
    """How many ``ports`` the NAT has for a destination and, if it draws them, how many simultaneous
    SYNs are expected to draw the same one.
    """

    ports: int = 64512
    same_draws: float = 0.0


DEFAULT_NAT = Nat()


def diagnose(
    attempted: int,
    errors: dict[str, int],
    kernel: Kernel,
    *,
    nat: Nat = DEFAULT_NAT,
    answered_late: int = 0,
) -> list[Cause]:
    """Return the causes of the failed dials, most losses first; what is left is "unexplained".

    ``answered_late``: requests that the server answered beyond those that connected.
    """
    causes = [_by_error(name, count) for name, count in errors.items() if name != "TIMEOUT"]
    left = errors.get("TIMEOUT", 0)
    for found in (
        _clash(attempted, kernel, nat),
        _chain(kernel),
        _table_full(kernel),
        _backlog(kernel),
        _time_wait(kernel),
        _late(answered_late),
    ):
        explained = min(left, found.losses)
        if explained:
            causes.append(found.model_copy(update={"losses": explained}))
            left -= explained
    if left:
        causes.append(
            Cause(
                cause="unexplained",
                losses=left,
                evidence="timeouts that no counter accounts for",
                advice="packets may be lost elsewhere, or the timeout is too short for this path",
            )
        )
    return sorted(causes, key=lambda cause: -cause.losses)


def _by_error(name: str, count: int) -> Cause:
    cause, advice = _BY_ERROR.get(name, (name.lower(), "see errno(3)"))
    return Cause(
        cause=cause, losses=count, evidence=f"connect() failed with {name} {count:,} times", advice=advice
    )


def _clash(attempted: int, kernel: Kernel, nat: Nat) -> Cause:
    searched, same_draws = min(_FOUND_PER_EXHAUSTED, nat.ports // 2), nat.same_draws
    source = kernel.source
    clashes = min(sum(source.insert_failed) - sum(source.chain_toolong), sum(source.drop))
    found = sum(source.found)
    evidence = f"insert_failed +{sum(source.insert_failed):,}, drop +{sum(source.drop):,}, found +{found:,}"
    if clashes and found - attempted * min(_FOUND_PER_DIAL, searched / 4) > clashes * searched:
        return Cause(
            cause="nat_ports_exhausted",
            losses=clashes,
            evidence=f"{evidence}: over {searched} ports were tried for each loss",
            advice="give the NAT more ports or addresses, or the load more destinations",
        )
    advice = _RANDOMISE
    if same_draws:
        advice = _BY_CHANCE if by_chance(clashes, same_draws) > RARE else _NOT_BY_CHANCE
    return Cause(cause="snat_race", losses=clashes, evidence=evidence, advice=advice)


def _chain(kernel: Kernel) -> Cause:
    return Cause(
        cause="conntrack_chain_too_long",
        losses=sum(kernel.source.chain_toolong),
        evidence=f"chaintoolong +{sum(kernel.source.chain_toolong)}",
        advice="raise net.netfilter.nf_conntrack_buckets",
    )


def _table_full(kernel: Kernel) -> Cause:
    source = kernel.source
    clashes = sum(source.insert_failed) - sum(source.chain_toolong)
    return Cause(
        cause="conntrack_table_full",
        losses=max(0, sum(source.drop) - clashes),
        evidence=f"drop +{sum(source.drop)} beyond insert_failed, table {source.count} of {source.max}",
        advice="raise net.netfilter.nf_conntrack_max",
    )


def _backlog(kernel: Kernel) -> Cause:
    drops = kernel.destination.get("ListenDrops", 0)
    return Cause(
        cause="accept_queue_full",
        losses=drops,
        evidence=f"ListenDrops +{drops} at the destination",
        advice="accept faster, or raise the backlog and net.core.somaxconn",
    )


def _time_wait(kernel: Kernel) -> Cause:
    """Count SYNs that met a TIME_WAIT at the destination: tcp_timewait_state_process() rejects
    those with older timestamps (PAWSTimewait on newer kernels, PAWSEstab on older ones).
    """
    counted = {name: kernel.destination.get(name, 0) for name in _PAWS}
    name = max(counted, key=lambda each: counted[each])
    return Cause(
        cause="time_wait_reuse",
        losses=counted[name],
        evidence=f"{name} +{counted[name]:,} at the destination, where a SYN sent again counts again",
        advice="give the NAT more ports or addresses, so that ports rest for longer",
    )


def _late(answered_late: int) -> Cause:
    return Cause(
        cause="answered_too_late",
        losses=max(0, answered_late),
        evidence=f"the server answered {answered_late:,} more than the dialers heard in time",
        advice="raise the timeout; if that changes nothing, answers are lost on their way back",
    )
