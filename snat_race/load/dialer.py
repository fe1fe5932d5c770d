"""THE HOT PATH: one worker's loop. Clock, connect, clock, store, close.

Errors are data here: whatever connect() or bind() returns goes into the ring as an errno.
Nothing in this module, or below it, may import numpy or start a thread.
"""

import time
from itertools import islice

from snat_race.load.pacers import FlatOutPacer, Pacer, RendezvousPacer, TickerPacer
from snat_race.load.ring import ATTEMPTED, QUOTA, RESENT, Ring
from snat_race.load.round_control import RoundControl
from snat_race.load.sockets import DialerConfig, maker, times_resent
from snat_race.load.warmup import rehearser
from snat_race.results.sample import LATENCY_SHIFT, PORT_SHIFT, pack

_SYN_RESENT_NS = 900_000_000  # tcp_timeout_init() is 1 s; timers count in ticks


def dial(config: DialerConfig, rounds: RoundControl, ring: Ring) -> None:
    """Dial round after round until the parent stops us."""
    pace = _pace(config, rounds, ring)
    words, make, wait, store = ring.words, maker(config), pace.wait, ring.writer()
    clock, remote = time.monotonic_ns, config.remote
    for begin_ns in rounds.attend(ring):
        for port in islice(pace.slots(begin_ns), words[QUOTA]):
            words[ATTEMPTED] += 1
            try:
                sock = make(port)
            except OSError as refused:
                store(clock(), pack(refused.errno or 0, port, 0))
                continue
            wait()
            start_ns = clock()
            error = sock.connect_ex(remote)
            latency_ns = clock() - start_ns
            if error and not port:
                port = sock.getsockname()[1]  # noqa: PLW2901
            store(start_ns, latency_ns << LATENCY_SHIFT | port << PORT_SHIFT | error)
            if latency_ns > _SYN_RESENT_NS and not error:
                ring.count(RESENT[min(times_resent(sock), len(RESENT) - 1)])
            sock.close()


def _pace(config: DialerConfig, rounds: RoundControl, ring: Ring) -> Pacer:
    if config.schedule:
        return RendezvousPacer(rounds, ring, config.schedule, config.readiness, rehearser(config))
    if config.interval_us:
        return TickerPacer(rounds, ring, config.interval_us * 1000)
    return FlatOutPacer(rounds)
