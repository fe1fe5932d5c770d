"""Whether clients that share nothing but the clock could meet, slot by slot. Pure."""

import ipaddress
from collections.abc import Iterator, Sequence
from typing import Any

from snat_race.analysis.merge import seconds
from snat_race.results.schema import ClientResult, Source

_AGREED = {
    "dial_interval_us": "--dial-interval-us",
    "source_ports": "--source-ports",
    "lanes": "--lanes",
}
_SILENT_ZERO = (
    "Nothing was lost to the race. That is a finding only if another client met these slots: the same "
    "destination, --dial-interval-us, --source-ports and --lanes, through the same NAT, at the same time. "
    "'snat-race report' of both results says whether they did"
)


def silent_zero(result: ClientResult) -> str:
    """Say what a run without a loss is worth, "" if it had losses that the race may account for."""
    lost = "TIMEOUT" in result.summary.errors or result.summary.syn_resent
    risen = result.kernel.source and sum(result.kernel.source.insert_failed)
    known = lost or risen or _meets_itself(result.spec) or not result.summary.connected
    return "" if known or result.spec.get("mode") != "rendezvous" else _SILENT_ZERO


def unmet(clients: Sequence[Source]) -> Iterator[str]:
    """Say of each client that no other could meet why not, and what to do about it."""
    clients = [each for each in clients if each.spec.get("mode") == "rendezvous"]
    for each in clients:
        reasons = [_apart(each, other) for other in clients if other is not each]
        if _meets_itself(each.spec):
            continue
        if not reasons and not each.failed:
            reasons = ["there is none among these results. Run two at a time, and give both"]
        if reasons and all(reasons):
            yield f"The slots of client {each.run_id[:8]} met no other's: {min(reasons, key=len)}."


def _meets_itself(spec: dict[str, Any]) -> bool:
    """Whether a client dials from several addresses, whose workers share lanes."""
    return len(spec.get("local_ips") or ()) > 1


def _apart(one: Source, other: Source) -> str:
    """Return why two never meet, and what to do; "" if they may."""
    if one.boot_id and other.boot_id and one.boot_id != other.boot_id:
        return "the other ran on another host, with a clock and a NAT of its own. Run both on one host"
    for key, option in _AGREED.items():
        mine, others = one.spec.get(key), other.spec.get(key)
        if mine != others:
            return f"its {option} is {_shown(mine)}, not {_shown(others)}. Give both the same"
    if not _same_destination(str(one.spec.get("remote_addr")), str(other.spec.get("remote_addr"))):
        return "the other dialled another destination. Give both the same --remote-addr"
    if not _overlap(one, other):
        return "the other did not run at that time. Run both at once"
    return ""


def _shown(value: Any) -> str:  # noqa: ANN401 - JSON
    return "-".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _same_destination(one: str, other: str) -> bool:
    (host, _, port), (other_host, _, other_port) = one.rpartition(":"), other.rpartition(":")
    both_known = _is_address(host) and _is_address(other_host)
    return port == other_port and (host == other_host or not both_known)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _overlap(one: Source, other: Source) -> bool:
    began_s = max(seconds(one.started_at), seconds(other.started_at))
    return began_s < min(seconds(each.started_at) + each.elapsed_s for each in (one, other))
