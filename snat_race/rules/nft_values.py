"""What values of nft's JSON stand for: addresses, ports, protocols, devices. Pure.

Each raises ValueError, TypeError or KeyError if a value is none of these.
"""

from typing import Any

from snat_race.rules.traffic import (
    ANY_PROTOCOL,
    V4,
    V6,
    Devices,
    Intervals,
    addresses,
    device,
    ports,
    protocol,
)

VERSIONS = {"ip": V4, "ip6": V6, "ipv4": V4, "ipv6": V6}


def ends(said: Any) -> tuple[Any, Any]:  # noqa: ANN401
    """Return both ends of a range; of one value, that twice."""
    if isinstance(said, dict):
        low, high = said["range"]
        return low, high
    return said, said


def addresses_of(said: Any) -> Intervals:  # noqa: ANN401
    """Return an address, a network, a range of them, or all of an IP version."""
    if isinstance(said, str) and said in VERSIONS:
        return VERSIONS[said]
    if isinstance(said, dict) and "prefix" in said:
        return addresses(f"{said['prefix']['addr']}/{said['prefix']['len']}")
    low, high = ends(said)
    return addresses(f"{low}-{high}")


def _port_ranges(said: Any) -> Intervals:  # noqa: ANN401
    low, high = ends(said)
    return ports(f"{low}-{high}")


def _protocols(said: Any) -> Intervals:  # noqa: ANN401
    low, high = ends(said)
    if low == high:
        return protocol(str(low))
    if not (isinstance(low, int) and isinstance(high, int) and 0 <= low <= high <= ANY_PROTOCOL[0][1]):
        raise ValueError(said)
    return ((low, high),)


def _device(said: Any) -> Devices:  # noqa: ANN401
    if not isinstance(said, str) or not said:
        raise ValueError(said)
    return Devices(frozenset({device(said, "*")}), excluded=False)


READERS: dict[str, Any] = {
    "sources": addresses_of,
    "destinations": addresses_of,
    "protocols": _protocols,
    "source_ports": _port_ranges,
    "destination_ports": _port_ranges,
    "devices": _device,
}
