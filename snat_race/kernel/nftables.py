"""The kernel's own list of nftables' rules, by netlink: read, and changed only if nobody else changed it.

Every transaction of nftables raises its generation. A transaction may name the generation that it was
made for; the kernel then refuses it if there is a newer one (nfnetlink_rcv_batch() in
net/netfilter/nfnetlink.c). No tool offers that: what iptables-nft-restore loads may be planned for rules
that are no longer there, and numbers of rules then mean others. So rules that iptables-nft has written
are replaced here, byte for byte but for the flags of their translation.

A message is a header, then attributes: include/uapi/linux/netfilter/nf_tables.h names their numbers.
"""

import errno
import os
import socket
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import ClassVar

from snat_race.errors import EnvironmentLacks
from snat_race.kernel import netlink
from snat_race.kernel.netlink import (
    DUMP,
    INTERRUPTED,
    NESTED,
    REQUEST,
    aligned,
    attribute,
    attributes,
    text_of,
)
from snat_race.kernel.netns import Namespace

_FAMILIES = {"ip": socket.AF_INET, "ip6": socket.AF_INET6, "inet": 1}
_FAMILY_NAMES = {number: name for name, number in _FAMILIES.items()}
_NFTABLES = 10 << 8  # NFNL_SUBSYS_NFTABLES, the upper byte of a message's type
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NEW_TABLE, _GET_TABLE, _NEW_CHAIN, _GET_CHAIN = (_NFTABLES | kind for kind in (0, 1, 3, 4))
_NEW_RULE, _GET_RULE, _DELETE_RULE = (_NFTABLES | kind for kind in (6, 7, 8))
_NEW_GENERATION, _GET_GENERATION = (_NFTABLES | kind for kind in (15, 16))
_REPLACE, _CREATE = 0x100, 0x400
_FIELDS = 4  # bytes of struct nfgenmsg, before the attributes; the first is the family
_TABLE, _CHAIN, _HANDLE, EXPRESSIONS, _COMPAT, _POSITION, _USERDATA = 1, 2, 3, 4, 5, 6, 7  # of a rule
_CHAIN_NAME, _HOOK, _TYPE = 3, 4, 7  # of a chain
_TRANSLATING_HOOKS = (1, 4)  # NF_INET_LOCAL_IN, NF_INET_POST_ROUTING: where sources are translated
_NAME, _DATA = 1, 2  # of an expression
_INFO, _REVISION = 3, 2  # of an expression "target"
_MAP_FLAGS = {"random": 4, "persistent": 8, "fully-random": 16}  # NF_NAT_RANGE_*, nf_nat.h
_ALL_FLAGS = sum(_MAP_FLAGS.values())
# Where the flags are in what a target of iptables says, by family, name and revision: of IPv4's first
# revisions (nf_nat_ipv4_multi_range_compat) behind the number of ranges, which is always one.
_FLAGS_AT = {
    ("ip", "MASQUERADE", 0): 4,
    ("ip6", "MASQUERADE", 0): 0,
    ("ip", "SNAT", 0): 4,
    ("ip", "SNAT", 1): 0,
    ("ip6", "SNAT", 1): 0,
    ("ip", "SNAT", 2): 0,
    ("ip6", "SNAT", 2): 0,
}
_NATIVE_FLAGS = {"masq": 1, "nat": 7}  # the attribute that holds them, of nftables' own expressions


class GenerationPassed(Exception):
    """The rules have changed since the generation that a change was made for; nothing was changed."""


@dataclass(frozen=True)
class KernelRule:
    """One rule, as the kernel holds it."""

    family: str  # ip, ip6 or inet
    table: str
    chain: str
    body: bytes  # all of its attributes

    @cached_property
    def attributes(self) -> dict[int, bytes]:
        """Its attributes, by number."""
        return dict(attributes(self.body))

    @property
    def handle(self) -> int:
        """The kernel's number for the rule, unique in its table."""
        return int.from_bytes(self.attributes[_HANDLE], "big")


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelChain:
    """One chain, as the kernel holds it."""

    family: str  # ip, ip6 or inet
    table: str
    name: str
    translates: bool  # whether the kernel calls it where sources are translated
    table_has_flags: bool  # dormant, owner


@dataclass(frozen=True, kw_only=True)
class RuleChange(ABC):
    """What is to be done about one rule: its message's kind and flags, and the attributes in it."""

    rule: KernelRule
    kind: ClassVar[int]
    message_flags: ClassVar[int]

    @property
    @abstractmethod
    def body(self) -> bytes:
        """The attributes.

        Raises:
            EnvironmentLacks: the rule does not end with a translation, or with one that is not known here.

        """

    def _of_rule(self, *numbers: int) -> bytes:
        """Return some of the rule's own attributes, those that it has."""
        own = self.rule.attributes
        return b"".join(attribute(number, own[number]) for number in numbers if number in own)


@dataclass(frozen=True, kw_only=True)
class Replacement(RuleChange):
    """One rule is to have other flags of translation, and to stay the same otherwise."""

    kind = _NEW_RULE
    message_flags = _REPLACE
    flags: frozenset[str]  # random, fully-random, persistent: those that it shall have
    # The protocol that the rule asks for, 0 for any; whether it asks for every other. iptables' own
    # matches want it told again, because the kernel does not list it (NFTA_RULE_COMPAT).
    protocol: int = 0
    protocol_negated: bool = False

    @cached_property
    def body(self) -> bytes:
        """The attributes of the rule that is to come in place of the other."""
        new = self._of_rule(_TABLE, _CHAIN, _HANDLE, _USERDATA)
        new += attribute(EXPRESSIONS | NESTED, b"".join(_with_flags(self.rule, self.flags)))
        return new + (_compat(self.protocol, inverted=self.protocol_negated) if self.protocol else b"")


@dataclass(frozen=True, kw_only=True)
class AdditionForTcp(RuleChange):
    """One rule, which asks for no protocol, is to get one in front of it, for TCP only.

    That has ``flags`` of translation, and is the same otherwise.
    """

    kind = _NEW_RULE
    message_flags = _CREATE
    flags: frozenset[str]

    @cached_property
    def body(self) -> bytes:
        """The attributes of the rule that is to come in front of the other."""
        new = self._of_rule(_TABLE, _CHAIN, _USERDATA)
        new += attribute(_POSITION, self.rule.attributes[_HANDLE])
        expressions = [*_IS_TCP, *map(_counting_from_0, _with_flags(self.rule, self.flags))]
        return new + attribute(EXPRESSIONS | NESTED, b"".join(expressions)) + _compat(socket.IPPROTO_TCP)


@dataclass(frozen=True, kw_only=True)
class Removal(RuleChange):
    """One rule is to be removed."""

    kind = _DELETE_RULE
    message_flags = 0

    @cached_property
    def body(self) -> bytes:
        """The attributes that name it."""
        return self._of_rule(_TABLE, _CHAIN, _HANDLE)


def generation(namespace: Namespace) -> int:
    """Return the number of changes that a namespace's nftables have seen.

    Raises:
        EnvironmentLacks: the kernel has no nftables, or does not let us read them.

    """
    with netlink.opened(namespace, netlink.NETFILTER) as asked:
        asked.send(_message(_GET_GENERATION, REQUEST, 1))
        for kind, _, _, body in netlink.answers(asked):
            if kind == _NEW_GENERATION:
                return int.from_bytes(dict(attributes(body, _FIELDS))[1], "big")
    raise EnvironmentLacks("the kernel does not say which generation its nftables are of")


def rules(namespace: Namespace, family: str = "", table: str = "") -> list[KernelRule]:
    """Return the rules of a table of family ``ip``, ``ip6`` or ``inet``, in order; or those of all such
    tables.

    Raises:
        EnvironmentLacks: as for :func:`generation`.
        GenerationPassed: they changed meanwhile.

    """
    wanted = attribute(_TABLE, _text(table)) if table else b""
    present = []
    for named, body in _listed(namespace, _GET_RULE, _NEW_RULE, family, wanted):
        (_, of_table), (_, of_chain) = _first_two(body)
        present.append(KernelRule(named, text_of(of_table), text_of(of_chain), body[_FIELDS:]))
    return [rule for rule in present if rule.table == table] if table else present


def chains(namespace: Namespace) -> list[KernelChain]:
    """Return the chains of all tables of families ``ip``, ``ip6`` and ``inet``.

    Raises:
        EnvironmentLacks, GenerationPassed: as for :func:`rules`.

    """
    flagged = set()
    for family, body in _listed(namespace, _GET_TABLE, _NEW_TABLE):
        said = dict(attributes(body, _FIELDS))
        if any(said.get(2, b"")):
            flagged.add((family, said.get(1)))
    present = []
    for family, body in _listed(namespace, _GET_CHAIN, _NEW_CHAIN):
        said = dict(attributes(body, _FIELDS))
        hook = dict(attributes(said.get(_HOOK, b"")))
        chain = KernelChain(
            family=family,
            table=text_of(said.get(_TABLE, b"")),
            name=text_of(said.get(_CHAIN_NAME, b"")),
            translates=text_of(said.get(_TYPE, b"")) == "nat"
            and int.from_bytes(hook.get(1, b""), "big") in _TRANSLATING_HOOKS,
            table_has_flags=(family, said.get(_TABLE)) in flagged,
        )
        present.append(chain)
    return present


def _listed(
    namespace: Namespace, ask: int, answer: int, family: str = "", wanted: bytes = b""
) -> Iterator[tuple[str, bytes]]:
    """Yield the family of each thing of a kind, and what the kernel says of it."""
    with netlink.opened(namespace, netlink.NETFILTER) as asked:
        asked.send(_message(ask, REQUEST | DUMP, 1, family, wanted))
        for kind, flags, _, body in netlink.answers(asked):
            if flags & INTERRUPTED:
                raise GenerationPassed
            if kind == answer and body[0] in _FAMILY_NAMES:
                yield _FAMILY_NAMES[body[0]], body


def _first_two(body: bytes) -> tuple[tuple[int, bytes], tuple[int, bytes]]:
    """Return the first attributes of a rule: nf_tables_fill_rule_info() in net/netfilter/nf_tables_api.c
    begins with its table and its chain.
    """
    every = attributes(body, _FIELDS)
    table, chain = next(every, (0, b"")), next(every, (0, b""))
    if (table[0], chain[0]) != (_TABLE, _CHAIN):
        raise EnvironmentLacks("the kernel does not say which chain a rule is in")
    return table, chain


def change(
    namespace: Namespace, made_for: int, wanted: Sequence[RuleChange], *, trial: bool
) -> dict[int, str]:
    """Change rules in one transaction, if the generation is still ``made_for``; or only try it.

    Returns:
        What the kernel says to those that it refuses, by their index; if there are any, nothing is changed.

    Raises:
        EnvironmentLacks: it refuses everything.
        GenerationPassed: the rules have changed; nothing is changed by us.

    """
    first = 2  # the number of the first rule's message; the one before begins the transaction
    refused: dict[int, str] = {}
    messages = [
        _message(_BATCH_BEGIN, REQUEST, 1, attributes=attribute(1, made_for.to_bytes(4, "big"))),
    ]
    # The kernel looks for each rule from the beginning of its chain, and passes those too that are replaced
    # (__nft_rule_lookup() in nf_tables_api.c): from the last to the first is half the way.
    for index, one in reversed(list(enumerate(wanted))):
        try:
            new = one.body
        except EnvironmentLacks as unknown:
            refused[index] = str(unknown)
        else:
            flags = REQUEST | one.message_flags
            messages.append(_message(one.kind, flags, first + index, one.rule.family, new))
    # What has no end is looked at and not made, as 'nft --check' has it.
    if not trial and not refused:
        messages.append(_message(_BATCH_END, REQUEST, first + len(wanted)))
    with netlink.opened(namespace, netlink.NETFILTER) as asked:
        asked.send(b"".join(messages))
        asked.setblocking(False)  # what the kernel has to say, it has said by now
        for _, _, number, body in netlink.answers(asked):
            (code,) = struct.unpack_from("=i", body)
            if code == -errno.ERESTART:
                raise GenerationPassed
            if number < first:
                raise EnvironmentLacks(f"the kernel refused the new rules: {os.strerror(-code)}")
            refused[number - first] = os.strerror(-code)
    return refused


def _with_flags(rule: KernelRule, flags: frozenset[str]) -> list[bytes]:
    """Return the expressions of a rule, of which the last translates, with the flags that it shall have.

    Raises:
        EnvironmentLacks: the last does not translate, or in a way that is not known here.

    """
    *before, last = _each(rule.attributes[EXPRESSIONS])
    name, data = _name_and_data(last)
    bits = sum(_MAP_FLAGS[flag] for flag in flags)
    if name in _NATIVE_FLAGS:
        number = _NATIVE_FLAGS[name]
        present = int.from_bytes(data.get(number, b""), "big")
        data[number] = (present & ~_ALL_FLAGS | bits).to_bytes(4, "big")
    elif name == "target" and (at := _offset_of_flags(rule.family, data)) is not None:
        info = bytearray(data[_INFO])
        (present,) = struct.unpack_from("=I", info, at)
        struct.pack_into("=I", info, at, present & ~_ALL_FLAGS | bits)
        data[_INFO] = bytes(info)
    else:
        raise EnvironmentLacks(f"the kernel has it end with '{name}', in a form that is not known here")
    return [*before, _expression(name, data)]


def _each(expressions: bytes) -> list[bytes]:
    """Return the expressions of a rule, each as it is."""
    starts = [0]
    while (end := starts[-1] + aligned(*struct.unpack_from("=H", expressions, starts[-1]))) < len(
        expressions
    ):
        starts.append(end)
    return [expressions[start:end] for start, end in pairwise([*starts, len(expressions)])]


def _name_and_data(expression: bytes) -> tuple[str, dict[int, bytes]]:
    said = dict(attributes(expression[4:]))
    return text_of(said[_NAME]), dict(attributes(said.get(_DATA, b"")))


def _expression(name: str, data: dict[int, bytes]) -> bytes:
    said = b"".join(attribute(number, value) for number, value in data.items())
    return attribute(1 | NESTED, attribute(_NAME, _text(name)) + attribute(_DATA | NESTED, said))


def _counting_from_0(expression: bytes) -> bytes:
    """Return an expression; a counter without what it has counted."""
    name, _ = _name_and_data(expression)
    return _expression(name, {}) if name == "counter" else expression


def _compat(protocol: int, *, inverted: bool = False) -> bytes:
    flags = 2 if inverted else 0  # NFT_RULE_COMPAT_F_INV
    return attribute(
        _COMPAT | NESTED, attribute(1, protocol.to_bytes(4, "big")) + attribute(2, flags.to_bytes(4, "big"))
    )


def _offset_of_flags(family: str, target: dict[int, bytes]) -> int | None:
    """Return where the flags are in what a target of iptables says; None if that is not known."""
    name = text_of(target[_NAME])
    return _FLAGS_AT.get((family, name, int.from_bytes(target[_REVISION], "big")))


def _message(kind: int, flags: int, number: int, family: str = "", attributes: bytes = b"") -> bytes:
    """Return a message; those that begin and end a transaction have no family."""
    subsystem = 0 if family or kind & _NFTABLES else _NFTABLES >> 8
    fields = struct.pack("=BBH", _FAMILIES.get(family, 0), 0, socket.htons(subsystem))
    return netlink.message(kind, flags, number, fields, attributes)


def _text(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape") + b"\0"


# "meta load l4proto => reg 1", "cmp eq reg 1 0x06": as nft and iptables-nft ask for TCP.
_IS_TCP = (
    _expression("meta", {1: (1).to_bytes(4, "big"), 2: (16).to_bytes(4, "big")}),
    _expression(
        "cmp",
        {
            1: (1).to_bytes(4, "big"),
            2: (0).to_bytes(4, "big"),
            3: attribute(1, bytes([socket.IPPROTO_TCP])),
        },
    ),
)
