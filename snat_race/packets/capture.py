"""Every SYN on every device of a namespace, read from a ring that the kernel writes into.

One packet socket sees each packet when a device receives it and when a device sends it: the taps of
``__netif_receive_skb_core()`` and ``dev_queue_xmit_nit()`` in net/core/dev.c. The kernel writes those that
pass the filter into shared memory (TPACKET_V2, packet_mmap.rst), so a sighting costs no system call.
"""

import ctypes
import errno
import mmap
import os
import socket
import struct
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import psutil

from snat_race.errors import EnvironmentLacks
from snat_race.packets.syn import FRAME, FRAME_BYTES, Frames, syn_filter

DEFAULT_RING_MIB = 32
"""Room for 131,072 sightings: nearly a second of 50,000 SYNs a second, each seen three times."""
MOST_RING_MIB = 1024

_MIB = 1 << 20
_BLOCK_BYTES = 1 << 16  # that the kernel allocates at a time; a multiple of the page size everywhere
_BATCH_FRAMES = 8192  # that are handed out at a time, so that the copy stays small
_SO_ATTACH_FILTER = 26  # asm-generic/socket.h
_SOL_PACKET, _PACKET_RX_RING, _PACKET_STATISTICS, _PACKET_VERSION = 263, 5, 6, 10  # linux/if_packet.h
_TPACKET_V2 = 1
_TP_STATUS_KERNEL, _TP_STATUS_USER = 0, 1
_ETH_P_ALL = 3  # linux/if_ether.h
_SOCKADDR_LL = struct.Struct("=HHiHBB8s")
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Statistics:
    """What became of the packets that passed the filter, since the last time that somebody asked."""

    # All of them.
    seen: int
    # Those that the kernel could not write, because the ring was full.
    dropped: int


class Capture:
    """A packet socket with its ring, in the namespace that this thread is in when it is made.

    No packet comes in before the filter is there: the socket begins without a protocol, and gets one by
    ``bind()``. A context manager; a process that is forked meanwhile does not inherit it.

    Args:
        ring_mib: size of the ring in MiB, 1 to ``MOST_RING_MIB``. The kernel keeps it in memory.

    Raises:
        EnvironmentLacks: CAP_NET_RAW is missing, packet sockets are, or there is no memory for the ring.

    """

    def __init__(self, ring_mib: int = DEFAULT_RING_MIB) -> None:
        self._next = 0
        self._socket = _packet_socket()
        try:
            self._memory = self._make_ring(ring_mib)
        except BaseException:
            self._socket.close()
            raise
        self._frames: Frames = np.frombuffer(self._memory, FRAME)
        _close_in_children(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def frames(self) -> int:
        """How many frames the ring has."""
        return len(self._frames)

    def drain(self) -> Iterator[Frames]:
        """Yield the frames that are full, in the order in which the kernel took them, copied.

        They are given back to the kernel before they are handed out. At most one ring's length comes, so
        it ends even if the kernel is faster.
        """
        left = self.frames
        while left:
            upcoming = self._frames[self._next : self._next + min(_BATCH_FRAMES, left)]
            full = (upcoming["status"] & _TP_STATUS_USER).astype(bool)
            # Two CPUs may fill two frames at once, the second one sooner: only those in a row are taken.
            count = len(full) if full.all() else int(full.argmin())
            if not count:
                return
            taken = upcoming[:count].copy()
            upcoming["status"][:count] = _TP_STATUS_KERNEL
            self._next = (self._next + count) % self.frames
            left = left - count if count == len(full) else 0
            del upcoming  # whoever closes while this waits must not meet a view of the ring
            yield taken

    def statistics(self) -> Statistics:
        """Return what was seen, and dropped, since the last call."""
        packed = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        seen, dropped = struct.unpack("=II", packed)
        return Statistics(seen=seen, dropped=dropped)

    def close(self) -> None:
        """Let the kernel stop, and free the ring."""
        self._frames = np.zeros(0, FRAME)
        self._memory.close()
        self._socket.close()

    def _make_ring(self, ring_mib: int) -> mmap.mmap:
        """Set filter, ring and devices, in this order; return the ring's memory."""
        size = ring_mib * _MIB
        available = psutil.virtual_memory().available
        if size > available // 2:  # the kernel would take it from others: it charges no control group
            raise EnvironmentLacks(
                f"a ring of {ring_mib} MiB is more than half of the {available // _MIB} MiB of memory that "
                "are left here; take a smaller one"
            )
        instructions, code = syn_filter()
        buffer = ctypes.create_string_buffer(code, len(code))
        program = struct.pack("HP", instructions, ctypes.addressof(buffer))
        ring = struct.pack("=IIII", _BLOCK_BYTES, size // _BLOCK_BYTES, FRAME_BYTES, size // FRAME_BYTES)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
            self._socket.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V2)
            self._socket.setsockopt(_SOL_PACKET, _PACKET_RX_RING, ring)
            memory = mmap.mmap(self._socket.fileno(), size)
        except OSError as failed:
            if failed.errno not in (errno.ENOMEM, errno.EAGAIN):
                raise EnvironmentLacks(
                    f"this kernel gives packet sockets no ring of TPACKET_V2 ({failed.strerror}); "
                    "it needs Linux 2.6.27 or newer with CONFIG_PACKET"
                ) from failed
            raise EnvironmentLacks(
                f"the kernel has no memory for a ring of {ring_mib} MiB ({failed.strerror}); "
                "take a smaller one"
            ) from failed
        _bind_to_all_devices(self._socket)
        return memory


def _packet_socket() -> socket.socket:
    try:
        return socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
    except PermissionError as refused:
        raise EnvironmentLacks(
            "reading packets takes CAP_NET_RAW here; use sudo, in Docker 'docker run --user 0 "
            "--cap-add NET_RAW', in Kubernetes 'kubectl debug --profile=netadmin'"
        ) from refused
    except OSError as failed:
        raise EnvironmentLacks(
            f"this kernel has no packet sockets ({failed.strerror}); try 'sudo modprobe af_packet'"
        ) from failed


def _bind_to_all_devices(sock: socket.socket) -> None:
    """Bind to device 0, which stands for all, of now and later; Python's bind() wants one by its name."""
    address = _SOCKADDR_LL.pack(socket.AF_PACKET, socket.htons(_ETH_P_ALL), 0, 0, 0, 0, b"")
    if _libc.bind(sock.fileno(), address, len(address)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _close_in_children(capture: Capture) -> None:
    """Have a forked process close what it inherits, which would keep the kernel writing for nobody."""
    known = weakref.ref(capture)

    def close() -> None:
        inherited = known()
        if inherited is not None:
            inherited.close()

    os.register_at_fork(after_in_child=close)
