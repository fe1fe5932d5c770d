"""Sets of addresses and ports as nft lists them: what the kernel makes of neighbours. Pure.

The kernel keeps a set of intervals as their ends. Two that touch read back as one, so a rule that nft has
printed may read otherwise when it was loaded again, and mean the same.
"""

import ipaddress
from collections.abc import Iterable

Interval = tuple[int, int, int]
"""The bits of an address, 0 for a number; the first and the last that are in it."""


def merged(elements: str) -> str:
    """Return the elements of a set, parted by commas, in the fewest words; as they are if they are no
    addresses, networks, numbers or ranges of these.
    """
    try:
        intervals = _joined(map(_interval, elements.split(", ")))
    except ValueError:
        return f"{{ {elements} }}"
    words = [word for interval in intervals for word in _words(*interval)]
    return words[0] if len(words) == 1 else f"{{ {', '.join(words)} }}"


def _interval(element: str) -> Interval:
    """Raise ValueError if it is none."""
    if "/" in element:
        network = ipaddress.ip_network(element)
        return network.max_prefixlen, int(network[0]), int(network[-1])
    first, _, last = element.partition("-")
    if first.isdecimal():
        return 0, int(first), int(last or first)
    low, high = ipaddress.ip_address(first), ipaddress.ip_address(last or first)
    return low.max_prefixlen, int(low), int(high)


def _joined(intervals: Iterable[Interval]) -> list[Interval]:
    joined: list[Interval] = []
    for bits, low, high in sorted(intervals):
        if joined and joined[-1][0] == bits and low <= joined[-1][2] + 1:
            joined[-1] = (bits, joined[-1][1], max(joined[-1][2], high))
        else:
            joined.append((bits, low, high))
    return joined


def _words(bits: int, low: int, high: int) -> list[str]:
    if not bits:
        return [str(low) if low == high else f"{low}-{high}"]
    kind = ipaddress.IPv4Address if bits == 32 else ipaddress.IPv6Address
    first, last = kind(low), kind(high)
    if low == high:
        return [str(first)]
    networks = list(ipaddress.summarize_address_range(first, last))
    return [str(networks[0])] if len(networks) == 1 else [f"{first}-{last}"]
