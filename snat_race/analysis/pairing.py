"""Whether clients that share nothing but the clock could meet, slot by slot. Pure."""

import ipaddress
from collections.abc import Iterator, Sequence
from typing import Any

from snat_race.analysis.merge import seconds
from snat_race.results.conclusions import MeasurementWarning, WarningKind
from snat_race.results.schema import MergedPart

_AGREED = ("dial_interval_us", "source_ports", "lanes")
"""Settings that must be the same for two clients to use the same ports in the same slots."""

_NEAREST_FIRST = (
    WarningKind.met_nobody_setting,
    WarningKind.met_nobody_time,
    WarningKind.met_nobody_destination,
    WarningKind.met_nobody_host,
)
"""What keeps two clients apart, the easiest to mend first: of several others, that one is told."""


def unmet(clients: Sequence[MergedPart]) -> Iterator[MeasurementWarning]:
    """Yield a warning for each client that no other could meet: what kept the nearest of them away."""
    meeting = [client for client in clients if client.spec.get("mode") == "rendezvous"]
    for client in meeting:
        if meets_itself(client.spec):
            continue
        reasons = [_apart(client, other) for other in meeting if other is not client]
        obstacles = [reason for reason in reasons if reason]
        if reasons and len(obstacles) == len(reasons):
            yield min(obstacles, key=lambda obstacle: _NEAREST_FIRST.index(obstacle.kind))
        elif not reasons and not client.failed and not client.late_by_retransmit:
            yield _warning(WarningKind.met_nobody, client)


def meets_itself(spec: dict[str, Any]) -> bool:
    """Whether a client dials from several addresses, whose workers share lanes."""
    addresses = spec.get("local_ips")
    return isinstance(addresses, list | tuple) and len(addresses) > 1


def _apart(client: MergedPart, other: MergedPart) -> MeasurementWarning | None:
    """Return why two clients never meet; None if they may."""
    if client.boot_id and other.boot_id and client.boot_id != other.boot_id:
        return _warning(WarningKind.met_nobody_host, client)
    for setting in _AGREED:
        own = client.spec.get(setting)
        others = other.spec.get(setting)
        if own != others:
            return _warning(
                WarningKind.met_nobody_setting,
                client,
                setting=setting,
                own=_as_text(own),
                other=_as_text(others),
            )
    if not _same_destination(str(client.spec.get("remote_addr")), str(other.spec.get("remote_addr"))):
        return _warning(WarningKind.met_nobody_destination, client)
    if not _overlap(client, other):
        return _warning(WarningKind.met_nobody_time, client)
    return None


def _warning(kind: WarningKind, client: MergedPart, **values: str) -> MeasurementWarning:
    return MeasurementWarning(kind=kind, values={"run_id": client.run_id, **values})


def _as_text(value: Any) -> str:  # noqa: ANN401 - JSON
    return "-".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _same_destination(one: str, other: str) -> bool:
    """Whether two destinations may be the same: a name may stand for any address."""
    host, _, port = one.rpartition(":")
    other_host, _, other_port = other.rpartition(":")
    both_known = _is_address(host) and _is_address(other_host)
    return port == other_port and (host == other_host or not both_known)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _overlap(one: MergedPart, other: MergedPart) -> bool:
    began_s = max(seconds(one.started_at), seconds(other.started_at))
    ended_s = min(seconds(part.started_at) + part.elapsed_s for part in (one, other))
    return began_s < ended_s
