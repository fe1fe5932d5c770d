"""Which kernel does what, as far as conclusions depend on it. ``docs/kernels.md`` has the table for people.

Versions are those of kernel.org. A vendor may have taken a change into an older kernel, and seldom says so:
nothing here is certain of a kernel with a vendor's suffix. The kernel of RHEL 7, 3.10.0-862, counts as
3.10 does (its net/netfilter/nf_conntrack_core.c).
"""

import re

Version = tuple[int, ...]
"""A version as (6, 5, 13); () if it is not known, which counts as new."""

_NUMBERS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9}){0,2}", re.ASCII)
# Since 71d8c47fc653 a clash raises drop too; nf_ct_resolve_clash() in net/netfilter/nf_conntrack_core.c. Up
# to then, found also counted every look-up that found an entry, ____nf_conntrack_find() there.
_CLASHES_RAISE_DROP_SINCE = (4, 7)
# Of two UDP packets of one socket that clash, 71d8c47fc653 lets both pass if no NAT translates them,
# ed07d9a021df if it does so alike, 6a757c07e51f whatever it does; nf_ct_resolve_clash() there.
_TRANSLATED_ALIKE_RESOLVED_SINCE = (4, 19)
_UDP_CLASHES_RESOLVED_SINCE = (5, 6)
# Up to bc92470413f3 a clash that was resolved raised insert_failed all the same.
_RESOLVED_COUNTED_APART_SINCE = (5, 10)
# Since 4589725502871 a search for a port may evict a TCP entry that is closing; nf_nat_core.c.
_EVICTS_SINCE = (6, 5)
# Before, the search for a free port went on from a counter that racing clients shared; since then it
# begins at a random offset, and --random is as good as --random-fully: nf_nat_l4proto_unique_tuple(),
# iptables-extensions(8).
_SEARCHES_FROM_RANDOM_SINCE = (5, 0)
# The stable kernels that first had the fix for checksums of encapsulated packets that a NAT gave a
# random port (kubernetes/kubernetes#88986).
_VXLAN_MENDED_SINCE = (5, 6, 13)
_VXLAN_MENDED_IN = ((5, 4, 41), (4, 19, 123), (4, 14, 181))


def version_of(release: str) -> Version:
    """Return the version that the name of a release begins with: (3, 10, 0) of 3.10.0-1160.el7.x86_64."""
    numbers = _NUMBERS.match(release)
    return tuple(map(int, numbers[0].split("."))) if numbers else ()


def is_of_vendor(release: str) -> bool:
    """Whether a release has more in its name than the numbers of kernel.org."""
    return _NUMBERS.fullmatch(release) is None


def clashes_raise_drop(version: Version) -> bool:
    """Whether a clash raises drop besides insert_failed, and found counts nothing but taken ports."""
    return _since(version, _CLASHES_RAISE_DROP_SINCE)


def udp_clash_loses(version: Version, *, servers: int) -> bool:
    """Whether of two packets of one UDP socket that come at once, one is lost.

    ``servers``: to how many hosts DNAT may send them; 0 if it does not translate them.
    """
    resolved_since = (
        _CLASHES_RAISE_DROP_SINCE,
        _TRANSLATED_ALIKE_RESOLVED_SINCE,
        _UDP_CLASHES_RESOLVED_SINCE,
    )
    return not _since(version, resolved_since[min(servers, 2)])


def counts_resolved_clashes_apart(version: Version) -> bool:
    """Whether a clash of UDP that lost nothing raises clash_resolve, and no insert_failed."""
    return _since(version, _RESOLVED_COUNTED_APART_SINCE)


def evicts(version: Version) -> bool:
    """Whether a search for a port may evict a TCP entry that is closing."""
    return _since(version, _EVICTS_SINCE)


def searches_from_random(version: Version) -> bool:
    """Whether a port that is taken is replaced by a random one, so that --random is like --random-fully."""
    return _since(version, _SEARCHES_FROM_RANDOM_SINCE)


def mends_vxlan_checksums(version: Version) -> bool:
    """Whether VXLAN packets that a NAT gave a random port get right checksums."""
    return _since(version, _VXLAN_MENDED_SINCE) or any(
        version[:2] == mended[:2] and version >= mended for mended in _VXLAN_MENDED_IN
    )


def _since(version: Version, first: Version) -> bool:
    return not version or version >= first
