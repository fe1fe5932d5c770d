"""What is said of many hosts that ``doctor`` has looked at."""

from collections.abc import Sequence

from snat_race.report.wording.formats import plural
from snat_race.results.findings import Level
from snat_race.results.fleet import FleetResult

_MOST_NAMED = 10  # hosts of one name, in a warning


def hosts(count: int) -> str:
    """Say how many hosts."""
    return plural(count, "host")


def verdict(result: FleetResult) -> str:
    """Return the verdict in one sentence."""
    every = len(result.hosts)
    rules = sum(len(host.of_level(Level.exposed)) for host in result.hosts)
    exposed = sum(bool(host.of_level(Level.exposed)) for host in result.hosts)
    unread = sum(bool(host.of_level(Level.unknown)) for host in result.hosts)
    if exposed:
        also = f"; on {hosts(unread)} not everything could be read" if unread else ""
        where = f"{exposed:,} of {hosts(every)}"
        return f"Exposed: {plural(rules, 'rule')} on {where} can lose SYNs to the race{also}."
    if unread:
        return f"Cannot tell: on {unread:,} of {hosts(every)} not everything could be read."
    return f"Not exposed: no rule on {hosts(every)} can lose SYNs to the race."


def meaning(result: FleetResult) -> str:
    """Say what to do at once; "" if nothing."""
    exposed = [finding for host in result.hosts for finding in host.of_level(Level.exposed)]
    left = sum(bool(finding.rule and finding.rule.unchangeable) for finding in exposed)
    if not exposed:
        return ""
    if left == len(exposed):
        return (
            "'mitigate' cannot change these rules, the table says why; a setting of the program that wrote "
            "them helps."
        )
    but = f", but for {plural(left, 'rule')} that it has to leave" if left else ""
    return (
        f"'mitigate --apply' on a host changes its rules until their programs write them again{but}; for "
        "good, a setting of each program helps."
    )


def warnings(older_readings: int, namesakes: Sequence[str]) -> tuple[str, ...]:
    """Say what is there more than once."""
    said = []
    if older_readings:
        said.append(f"{plural(older_readings, 'result')} left out: there is a later one of the same host.")
    if namesakes:
        names = ", ".join(map(repr, namesakes[:_MOST_NAMED])) + (" ..." if namesakes[_MOST_NAMED:] else "")
        said.append(
            f"more than once, because the host was started anew in between, or because two hosts have one "
            f"name: {names}."
        )
    return tuple(said)


def others(count: int) -> tuple[str, ...]:
    """Say how many hosts have no rule that races."""
    return (f"No rule races on {hosts(count)}, and everything there could be read.",) if count else ()
