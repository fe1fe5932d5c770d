"""The words of a trace: a line for each loss, and the sentences of its report."""

from datetime import datetime

from snat_race.report.wording.formats import duration, percent, plural
from snat_race.results.trace import Loss, SentAgain, TracedPeriod, TraceResult

NOT_SEEN = (
    "Not seen: SYNs that this host sends and loses before the device, devices of other namespaces, UDP."
)
"""What no trace can see."""

COMPARE_WINDOW = "This is the race window as this traffic meets it: compare 'snat-race lab --window'."
"""What the distances between losers and winners mean."""

NOTHING_SEEN = (
    "No device here has received a SYN yet that this host should forward. The NAT may be elsewhere: on the "
    "host, if this is a container's namespace (--netns 1, with --pid host), or in a virtual machine."
)
"""What to say where nothing comes in."""


def loss_line(loss: Loss) -> str:
    """Return a loss as a line: who lost, to whom, how far apart, and which port both were to have."""
    apart = duration(abs(loss.apart_ns))
    if loss.winner == loss.translated:
        winner = f"lost to this host's own {loss.winner}, {apart} apart"
    else:
        winner = f"lost to {loss.winner}, {apart} apart, both translated to {loss.translated}"
    return f"{_local(loss.at)}  {loss.source} -> {loss.destination}  {winner}"


def sent_again_line(sent: SentAgain) -> str:
    """Return the retransmit of a lost SYN as a line."""
    return (
        f"{_local(sent.at)}  {sent.source} -> {sent.destination}  "
        f"sent again after {sent.waited_ns / 1e9:.2f} s, and left"
    )


def period_line(period: TracedPeriod) -> str:
    """Return what else was seen in an interval as a line; empty, if that was nothing."""
    parts = []
    if period.vanished:
        parts.append(f"{plural(period.vanished, 'SYN')} of {period.syns:,} did not leave, without a winner")
    if period.dropped:
        parts.append(f"the ring was full: {plural(period.dropped, 'sighting')} missing")
    return f"{_local(period.began_at)}  {'; '.join(parts)}" if parts else ""


def verdict(result: TraceResult) -> str:
    """Return what a trace proves."""
    if not result.syns:
        return "no SYN came in to be forwarded, so nothing is known."
    share = percent(result.lost / result.syns)
    perhaps = min(result.unsure, max(0, _clashes(result) - result.lost))
    if result.lost:
        victims = sum(bool(victim.lost) for victim in result.victims)
        said = f"{plural(result.lost, 'SYN')} of {result.syns:,} ({share}) lost the race, "
        said += f"of {plural(victims, 'address')}: each is proven by its packets."
    else:
        sure = " for certain" if perhaps else ""
        said = f"none of {plural(result.syns, 'SYN')} lost the race{sure}."
    if perhaps:
        said += f" {plural(result.vanished, 'SYN')} did not leave either; "
        said += f"up to {perhaps:,} of them may have lost it too."
    elif result.vanished:
        said += f" {plural(result.vanished, 'SYN')} did not leave for another reason."
    return said


def unseen(result: TraceResult) -> list[str]:
    """Return what makes a trace incomplete, and what to do about it."""
    said = []
    if result.dropped:
        share = percent(result.dropped / (result.sightings + result.dropped))
        said.append(
            f"The ring was full: {plural(result.dropped, 'sighting')} ({share}) are missing, so nothing is "
            f"said of {plural(result.unknown, 'SYN')} that did not leave. Use a larger --ring."
        )
    elif result.unknown:
        said.append(
            f"Nothing is said of {plural(result.unknown, 'SYN')}: the clock was set meanwhile, or too many "
            "SYNs were alike, as a scanner's are."
        )
    if not result.syns:
        said.append(
            "No device here received a SYN that it should forward. Trace where the NAT is: on the host, or "
            "with --netns; 'snat-race doctor' there shows its rules."
        )
    return said


def against_counters(result: TraceResult) -> str:
    """Return how the losses compare with what conntrack counted; empty, if nobody read that."""
    if not result.counted or not result.counted.conntrack:
        return "Conntrack's counters could not be read here, so nothing is compared with them."
    clashes = _clashes(result)
    said = f"Proven {result.lost:,}, insert_failed +{clashes:,}"
    said += f", drop +{sum(result.counted.conntrack.drop):,}"
    if result.spec.get("to"):
        return f"{said}: the counters are of all destinations."
    if clashes == result.lost:
        return f"{said}: they agree."
    if clashes < result.lost:
        return (
            f"{said}: more than this namespace counted, so some were not lost to the race. A firewall may "
            "have dropped them, or another namespace's NAT lost them."
        )
    return (
        f"{said}: the other {clashes - result.lost:,} are of SYNs without a winner, as where the NAT draws "
        "ports or has none left, of this host's own, or of UDP."
    )


def unsure(result: TraceResult) -> str:
    """Return what only looks like the race; empty, if nothing does."""
    if not result.unsure:
        return ""
    return (
        f"{plural(result.unsure, 'SYN')} of those without a winner looked like the race: another left from "
        "the same port meanwhile. But conntrack counted fewer clashes than that, so nobody is blamed. A "
        "firewall may have dropped them, or the NAT of another namespace lost them: trace there, with "
        "--netns."
    )


def _clashes(result: TraceResult) -> int:
    """Return how many entries conntrack could not insert; 0 if nobody read that."""
    known = result.counted and result.counted.conntrack
    return sum(known.insert_failed) if known else 0


def _local(instant: str) -> str:
    """Return a time as local time of day, to the us."""
    return datetime.fromisoformat(instant).astimezone().strftime("%H:%M:%S.%f")
