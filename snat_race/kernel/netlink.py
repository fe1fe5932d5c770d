"""Netlink: messages to the kernel, and its answers, of nftables and of devices.

A message is a header, then the fields that all messages of its kind have, then attributes: netlink(7).
pyroute2 knows many more kinds, and takes ten times as long to import as all rules take to be read.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from snat_race.errors import EnvironmentLacks
from snat_race.kernel.netns import Namespace

NETFILTER, ROUTE = 12, 0  # NETLINK_NETFILTER, NETLINK_ROUTE
REQUEST, DUMP = 0x1, 0x300
INTERRUPTED = 0x10  # NLM_F_DUMP_INTR: what is listed changed while it was read
NESTED = 0x8000
_ERROR, _DONE = 2, 3
_BUFFER = 1 << 20  # bytes that one answer may take
_LARGEST_BATCH = 1 << 26  # bytes; 10,000 rules take some 4 MB
_TIMEOUT_S = 10.0
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_SOL_NETLINK, _CAP_ACK = 270, 10
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_SHORTEST_BODY = 4  # bytes: each message holds a number, or a family, at least


@contextmanager
def opened(namespace: Namespace, protocol: int) -> Iterator[socket.socket]:
    """Open a socket in a namespace.

    Raises:
        EnvironmentLacks: the kernel refuses it, or something that is asked through it.

    """
    try:
        with (
            namespace.entered(),
            socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as netlink,
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


def message(kind: int, flags: int, number: int, fields: bytes, attributes: bytes = b"") -> bytes:
    """Return a message; ``fields`` is what all of its kind begin with."""
    length = _HEADER.size + len(fields) + len(attributes)
    return _HEADER.pack(length, kind, flags, number, 0) + fields + attributes


def answers(netlink: socket.socket) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield what the kernel answers, until it has ended: kind, flags, number, and what follows.

    Raises:
        OSError: it refuses; also, to a socket that waits, if it says nothing.

    """
    while True:
        try:
            answer = netlink.recv(_BUFFER)
        except BlockingIOError:
            return
        at = 0
        while at < len(answer):
            left = len(answer) - at
            if left < _HEADER.size:
                raise _cut_off()
            length, kind, flags, number, _ = _HEADER.unpack_from(answer, at)
            if not _HEADER.size + _SHORTEST_BODY <= length <= left:
                raise _cut_off()
            body = answer[at + _HEADER.size : at + length]
            at += aligned(length)
            if kind == _DONE:
                return
            if kind == _ERROR and netlink.getblocking():
                code = -struct.unpack_from("=i", body)[0]
                raise OSError(code, os.strerror(code))
            yield kind, flags, number, body


def attribute(number: int, value: bytes) -> bytes:
    """Return an attribute, filled up to where the next may begin."""
    return _ATTRIBUTE.pack(4 + len(value), number) + value + bytes(-len(value) % 4)


def attributes(text: bytes, at: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yield the attributes that bytes are made of from there on, by number.

    Raises:
        OSError: one is cut off.

    """
    whole = len(text)
    unpack = _ATTRIBUTE.unpack_from
    while at < whole:
        length, number = unpack(text, at) if at + 4 <= whole else (0, 0)
        if not 4 <= length <= whole - at:
            raise _cut_off()
        yield number & ~NESTED, text[at + 4 : at + length]
        at += (length + 3) & ~3


def aligned(length: int) -> int:
    """Return where what follows so many bytes begins."""
    return (length + 3) & ~3


@lru_cache(maxsize=1 << 10)  # each rule names its table and its chain
def text_of(value: bytes) -> str:
    """Return a name that an attribute holds."""
    return value.rstrip(b"\0").decode("utf-8", "surrogateescape")


def _cut_off() -> OSError:
    return OSError(errno.EBADMSG, "an answer of the kernel is cut off")
