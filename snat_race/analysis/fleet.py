"""Results of ``doctor`` of many hosts, put side by side: which hosts there are, and which is the worst."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from hashlib import sha256

from snat_race.results.findings import Check, DoctorResult, Finding, Level, Unreadable, UnreadableReason
from snat_race.results.fleet import FleetHost, FleetResult

_RUN_ID_DIGITS = 32


def fleet(readings: Sequence[tuple[str, DoctorResult]], silent: Sequence[str] = ()) -> FleetResult:
    """Make one result of those of many hosts; at least one.

    Of several results of a host and a namespace the latest counts. It is the same host if it has the same
    name and was not started anew in between (``boot_id``): else it may be another host of that name, and
    both are kept.

    Args:
        readings: each result with the name of its host, in case that the result does not say it.
        silent: the hosts that left no result.

    """
    latest: dict[tuple[str, str, str], FleetHost] = {}
    for name, result in sorted(readings, key=lambda reading: _begin_s(reading[1].started_at)):
        host = _host(name, result)
        latest[host.host, _boot_id(host), host.netns] = host
    results = [result for _, result in readings]
    first = min(results, key=lambda result: _begin_s(result.started_at))
    end_s = max(_begin_s(result.started_at) + result.elapsed_s for result in results)
    run_ids = "+".join(sorted(result.run_id for result in results))
    return FleetResult(
        run_id=sha256(run_ids.encode(errors="surrogatepass")).hexdigest()[:_RUN_ID_DIGITS],
        tool=first.tool,
        started_at=first.started_at,
        elapsed_s=end_s - _begin_s(first.started_at),
        environment=first.environment,
        spec={"results": len(results), "without_result": len(silent)},
        hosts=sorted([*latest.values(), *map(_silent, silent)], key=_badness),
        older_readings=len(results) - len(latest),
    )


def namesakes(hosts: Iterable[FleetHost]) -> list[str]:
    """Return the names that are there more than once for one namespace, in order."""
    names = Counter((host.host, host.netns) for host in hosts)
    return sorted({name for (name, _), count in names.items() if count > 1})


def _host(name: str, result: DoctorResult) -> FleetHost:
    return FleetHost(
        host=result.host or name,
        run_id=result.run_id,
        started_at=result.started_at,
        environment=result.environment,
        spec=result.spec,
        findings=[finding for finding in result.findings if finding.level != Level.ok],
    )


def _silent(name: str) -> FleetHost:
    unreadable = Unreadable(reason=UnreadableReason.no_result)
    finding = Finding(level=Level.unknown, check=Check.rules, unreadable=(unreadable,))
    return FleetHost(host=name, findings=[finding])


def _badness(host: FleetHost) -> tuple[int, int, str, str]:
    """Return what sorts the worst host first: exposed rules, then what could not be read, then its name."""
    return -len(host.of_level(Level.exposed)), -len(host.of_level(Level.unknown)), host.host, host.netns


def _boot_id(host: FleetHost) -> str:
    return str(host.environment.get("boot_id", ""))


def _begin_s(instant: str) -> float:
    return datetime.fromisoformat(instant).timestamp()
