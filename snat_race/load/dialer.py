"""THE HOT PATH: one worker's loop. Clock, connect, clock, store, close.

Errors are data here: whatever connect() or bind() returns goes into the ring as an errno.
Nothing in this module, or below it, may import numpy or start a thread.
"""

import time
from errno import EINTR
from itertools import islice

from snat_race.load.dialer_config import DialerConfig
from snat_race.load.outcome import retransmits, settled, wait_for_answer
from snat_race.load.pacers import FlatOutPacer, Pacer, RendezvousPacer, TickerPacer
from snat_race.load.ring import Ring
from snat_race.load.round_control import RoundControl
from snat_race.load.sockets import socket_factory
from snat_race.load.warmup import warmup_probe
from snat_race.load.worker_state import WorkerState
from snat_race.results.sample import TIMED_OUT, UNKNOWN_ERROR, pack

_SYN_RETRANSMITTED_NS = 900_000_000  # the first time after 1 s (TCP_TIMEOUT_INIT); timers count in ticks
# What connect() returns before it is known what becomes of the dial.
_UNSETTLED = (TIMED_OUT, EINTR)


def dial(config: DialerConfig, rounds: RoundControl, state: WorkerState, ring: Ring) -> None:
    """Dial round after round until the parent stops us."""
    pacer = _pacer(config, rounds, state)
    wait, done = pacer.wait, pacer.done
    make_socket, remote = socket_factory(config), config.remote
    store, clock, timeout_ns = ring.writer(), time.monotonic_ns, config.timeout_ms * 1_000_000
    for _ in rounds.attend(state):
        for port in islice(pacer.slots(), state.quota):
            state.attempted += 1
            try:
                sock = make_socket(port)
            except OSError as refused:
                error = refused.errno or UNKNOWN_ERROR
                store(clock(), pack(error, port, latency_ns=0))
                done(error)
                continue
            wait()
            start_ns = clock()
            error = sock.connect_ex(remote)
            latency_ns = clock() - start_ns
            if error:
                port = port or sock.getsockname()[1]  # noqa: PLW2901
                if error == EINTR:
                    wait_for_answer(sock, start_ns + timeout_ns)
                    latency_ns = clock() - start_ns
                if error in _UNSETTLED:
                    error = settled(sock)
            store(start_ns, pack(error, port, latency_ns))
            if latency_ns > _SYN_RETRANSMITTED_NS and not error:
                state.count_slow_connect(retransmits(sock))
            sock.close()
            done(error)


def _pacer(config: DialerConfig, rounds: RoundControl, state: WorkerState) -> Pacer:
    if config.schedule:
        return RendezvousPacer(rounds, state, config.schedule, config.preparation, warmup_probe(config))
    if config.interval_us:
        return TickerPacer(rounds, state, config.interval_us * 1000)
    return FlatOutPacer(rounds)
