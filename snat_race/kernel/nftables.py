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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

from snat_race.errors import EnvironmentLacks
from snat_race.kernel.netns import Namespace

_NETLINK_NETFILTER = 12
_FAMILIES = {"ip": socket.AF_INET, "ip6": socket.AF_INET6, "inet": 1}
_NFTABLES = 10 << 8  # NFNL_SUBSYS_NFTABLES, the upper byte of a message's type
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NEW_RULE, _GET_RULE, _NEW_GENERATION, _GET_GENERATION = (_NFTABLES | kind for kind in (6, 7, 15, 16))
_ERROR, _DONE = 2, 3
_REQUEST, _REPLACE, _DUMP = 0x1, 0x100, 0x300
_INTERRUPTED = 0x10  # NLM_F_DUMP_INTR: the rules changed while they were read
_TABLE, _CHAIN, _HANDLE, _EXPRESSIONS, _COMPAT, _USERDATA = 1, 2, 3, 4, 5, 7  # of a rule
_NAME, _DATA = 1, 2  # of an expression
_INFO, _REVISION = 3, 2  # of an expression "target"
_NESTED = 0x8000
_BUFFER = 1 << 20  # bytes that one answer may take
_LARGEST_BATCH = 1 << 26  # bytes; 10,000 rules take some 4 MB
_TIMEOUT_S = 10.0
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_SOL_NETLINK, _CAP_ACK = 270, 10
_HEADER = struct.Struct("=IHHII")
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


@dataclass(frozen=True, slots=True)
class KernelRule:
    """One rule, as the kernel holds it."""

    family: str  # ip, ip6 or inet
    attributes: tuple[tuple[int, bytes], ...]  # by number, in order

    @property
    def handle(self) -> int:
        """The kernel's number for the rule, unique in its table."""
        return int.from_bytes(dict(self.attributes)[_HANDLE], "big")


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """One rule is to have other flags of translation, and to stay the same otherwise."""

    rule: KernelRule
    flags: frozenset[str]  # random, fully-random, persistent: those that it shall have
    # The protocol that the rule asks for, 0 for any; whether it asks for every other. iptables' own
    # matches want it told again, because the kernel does not list it (NFTA_RULE_COMPAT).
    protocol: int = 0
    protocol_negated: bool = False


def generation(namespace: Namespace) -> int:
    """Return the number of changes that a namespace's nftables have seen.

    Raises:
        EnvironmentLacks: the kernel has no nftables, or does not let us read them.

    """
    with _opened(namespace) as netlink:
        netlink.send(_message(_GET_GENERATION, _REQUEST, 1))
        for kind, _, _, body in _answers(netlink):
            if kind == _NEW_GENERATION:
                return int.from_bytes(dict(_attributes(body[4:]))[1], "big")
    raise EnvironmentLacks("the kernel does not say which generation its nftables are of")


def rules(namespace: Namespace, family: str, table: str) -> dict[str, list[KernelRule]]:
    """Return the rules of a table of family ``ip``, ``ip6`` or ``inet`` by chain, in order.

    Raises:
        EnvironmentLacks: as for :func:`generation`.
        GenerationPassed: they changed meanwhile.

    """
    by_chain: dict[str, list[KernelRule]] = {}
    wanted = _attribute(_TABLE, _text(table))
    with _opened(namespace) as netlink:
        netlink.send(_message(_GET_RULE, _REQUEST | _DUMP, 1, family, wanted))
        for kind, flags, _, body in _answers(netlink):
            if flags & _INTERRUPTED:
                raise GenerationPassed
            attributes = tuple(_attributes(body[4:])) if kind == _NEW_RULE else ()
            named = dict(attributes)
            if named.get(_TABLE) == _text(table):
                chain = named[_CHAIN].rstrip(b"\0").decode("utf-8", "surrogateescape")
                by_chain.setdefault(chain, []).append(KernelRule(family, attributes))
    return by_chain


def replace(
    namespace: Namespace, made_for: int, wanted: Sequence[Replacement], *, trial: bool
) -> dict[int, str]:
    """Replace rules in one transaction, if the generation is still ``made_for``; or only try it.

    Returns:
        What the kernel says to those that it refuses, by their index; if there are any, nothing is changed.

    Raises:
        EnvironmentLacks: it refuses everything.
        GenerationPassed: the rules have changed; nothing is changed by us.

    """
    first = 2  # the number of the first rule's message; the one before begins the transaction
    refused: dict[int, str] = {}
    messages = [
        _message(_BATCH_BEGIN, _REQUEST, 1, attributes=_attribute(1, made_for.to_bytes(4, "big"))),
    ]
    for index, one in enumerate(wanted):
        try:
            new = _replaced(one)
        except EnvironmentLacks as unknown:
            refused[index] = str(unknown)
        else:
            messages.append(_message(_NEW_RULE, _REQUEST | _REPLACE, first + index, one.rule.family, new))
    # What has no end is looked at and not made, as 'nft --check' has it.
    if not trial and not refused:
        messages.append(_message(_BATCH_END, _REQUEST, first + len(wanted)))
    with _opened(namespace) as netlink:
        netlink.send(b"".join(messages))
        netlink.setblocking(False)  # what the kernel has to say, it has said by now
        for _, _, number, body in _answers(netlink):
            (code,) = struct.unpack_from("=i", body)
            if code == -errno.ERESTART:
                raise GenerationPassed
            if number < first:
                raise EnvironmentLacks(f"the kernel refused the new rules: {os.strerror(-code)}")
            refused[number - first] = os.strerror(-code)
    return refused


@contextmanager
def _opened(namespace: Namespace) -> Iterator[socket.socket]:
    """Open a netlink socket in a namespace; what it refuses is an EnvironmentLacks."""
    try:
        with (
            namespace.entered(),
            socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink,
        ):
            netlink.settimeout(_TIMEOUT_S)
            netlink.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)  # errors without the message that they are of
            for forced, plain in ((_SO_SNDBUFFORCE, socket.SO_SNDBUF), (_SO_RCVBUFFORCE, socket.SO_RCVBUF)):
                try:
                    netlink.setsockopt(socket.SOL_SOCKET, forced, _LARGEST_BATCH)
                except PermissionError:
                    netlink.setsockopt(socket.SOL_SOCKET, plain, _LARGEST_BATCH)
            yield netlink
    except OSError as failed:
        raise EnvironmentLacks(f"netlink: {failed.strerror or failed}") from failed


def _answers(netlink: socket.socket) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield what the kernel answers, until it has ended: kind, flags, number, and what follows.

    Raises:
        OSError: it refuses; also, to a socket that waits, if it says nothing.

    """
    while True:
        try:
            answer = netlink.recv(_BUFFER)
        except BlockingIOError:
            return
        while answer:
            if len(answer) < _HEADER.size:
                raise _cut_off()
            length, kind, flags, number, _ = _HEADER.unpack_from(answer)
            if not _HEADER.size + 4 <= length <= len(answer):  # each holds a number or a family at least
                raise _cut_off()
            body, answer = answer[_HEADER.size : length], answer[_aligned(length) :]
            if kind == _DONE:
                return
            if kind == _ERROR and netlink.getblocking():
                code = -struct.unpack_from("=i", body)[0]
                raise OSError(code, os.strerror(code))
            yield kind, flags, number, body


@lru_cache(maxsize=1 << 14)  # each is asked for twice: for a trial, and to be made
def _replaced(wanted: Replacement) -> bytes:
    """Return the attributes of the rule that is to come in place of another."""
    old = dict(wanted.rule.attributes)
    kept = [(number, old[number]) for number in (_TABLE, _CHAIN, _HANDLE, _USERDATA) if number in old]
    new = b"".join(_attribute(number, value) for number, value in kept)
    new += _attribute(_EXPRESSIONS | _NESTED, _with_flags(wanted))
    if wanted.protocol:
        inverted = 2 if wanted.protocol_negated else 0  # NFT_RULE_COMPAT_F_INV
        compat = _attribute(1, wanted.protocol.to_bytes(4, "big")) + _attribute(
            2, inverted.to_bytes(4, "big")
        )
        new += _attribute(_COMPAT | _NESTED, compat)
    return new


def _with_flags(wanted: Replacement) -> bytes:
    """Return the expressions of a rule, of which the last translates, with the flags that it shall have.

    Raises:
        EnvironmentLacks: the last does not translate, or in a way that is not known here.

    """
    expressions = dict(wanted.rule.attributes)[_EXPRESSIONS]
    starts = [0]
    while (end := starts[-1] + _aligned(*struct.unpack_from("=H", expressions, starts[-1]))) < len(
        expressions
    ):
        starts.append(end)
    before, last = expressions[: starts[-1]], expressions[starts[-1] + 4 :]
    expression = dict(_attributes(last))
    name = expression[_NAME].rstrip(b"\0").decode()
    bits = sum(_MAP_FLAGS[flag] for flag in wanted.flags)
    data = dict(_attributes(expression.get(_DATA, b"")))
    if name in _NATIVE_FLAGS:
        attribute = _NATIVE_FLAGS[name]
        present = int.from_bytes(data.get(attribute, b""), "big")
        data[attribute] = (present & ~_ALL_FLAGS | bits).to_bytes(4, "big")
    elif name == "target" and (at := _offset_of_flags(wanted.rule.family, data)) is not None:
        info = bytearray(data[_INFO])
        (present,) = struct.unpack_from("=I", info, at)
        struct.pack_into("=I", info, at, present & ~_ALL_FLAGS | bits)
        data[_INFO] = bytes(info)
    else:
        raise EnvironmentLacks(f"the kernel has it end with '{name}', in a form that is not known here")
    said = b"".join(_attribute(number, value) for number, value in data.items())
    new = _attribute(_NAME, expression[_NAME]) + _attribute(_DATA | _NESTED, said)
    return before + _attribute(1 | _NESTED, new)


def _offset_of_flags(family: str, target: dict[int, bytes]) -> int | None:
    """Return where the flags are in what a target of iptables says; None if that is not known."""
    name = target[_NAME].rstrip(b"\0").decode()
    return _FLAGS_AT.get((family, name, int.from_bytes(target[_REVISION], "big")))


def _message(kind: int, flags: int, number: int, family: str = "", attributes: bytes = b"") -> bytes:
    """Return a message; those that begin and end a transaction have no family."""
    subsystem = 0 if family or kind & _NFTABLES else _NFTABLES >> 8
    body = struct.pack("=BBH", _FAMILIES.get(family, 0), 0, socket.htons(subsystem)) + attributes
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, number, 0) + body


def _attribute(number: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), number) + value + bytes(-len(value) % 4)


def _attributes(text: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the attributes that bytes are made of, by number."""
    at = 0
    while at < len(text):
        length, number = struct.unpack_from("=HH", text, at) if at + 4 <= len(text) else (0, 0)
        if not 4 <= length <= len(text) - at:
            raise _cut_off()
        yield number & ~_NESTED, text[at + 4 : at + length]
        at += _aligned(length)


def _cut_off() -> OSError:
    return OSError(errno.EBADMSG, "an answer of the kernel is cut off")


def _aligned(length: int) -> int:
    return (length + 3) & ~3


def _text(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape") + b"\0"
