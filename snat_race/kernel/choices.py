"""What users choose from; apart from what it stands for, so that ``--help`` imports no netlink."""

from enum import StrEnum


class Wiring(StrEnum):
    """How the containers reach the source."""

    bridge = "bridge"
    routed = "routed"
    ipvlan = "ipvlan"
    macvlan = "macvlan"


class Backend(StrEnum):
    """What loads a variant's rule."""

    netlink = "netlink"
    nft = "nft"
    iptables = "iptables"
    iptables_legacy = "iptables-legacy"


class Caches(StrEnum):
    """How recently the way through the NAT was used when a dial takes it."""

    hot = "hot"
    warm = "warm"
    cold = "cold"


class Expect(StrEnum):
    """What every variant measured must show, or the lab exits with 3."""

    race = "race"
    no_race = "no-race"
