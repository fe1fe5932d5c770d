"""One run of ``server``: acceptors until a signal comes."""

import time
from collections.abc import Callable

from snat_race.interrupt import Interrupt
from snat_race.kernel import host
from snat_race.load.endpoint import Endpoint
from snat_race.load.listener import Server
from snat_race.options import ServerOptions

_CHECK_S = 0.1


def run(options: ServerOptions, listening: Callable[[Endpoint], None]) -> int:
    """Accept until interrupted; return how many connections were accepted.

    Raises:
        UsageError: the address does not parse or is not ours.
        EnvironmentLacks: the address is in use, or privileged.
        SnatRaceError: an acceptor died.

    """
    endpoint, cpus = Endpoint.parse(options.local_addr, "--local-addr", "0.0.0.0"), host.usable_cpus()
    pins = [cpus[index % len(cpus)] for index in range(options.workers)]
    with Interrupt() as interrupt, Server(endpoint, pins) as server:
        listening(endpoint)
        while not interrupt.requested:
            server.require_alive()
            time.sleep(_CHECK_S)
        return server.stop()
