"""One run of ``server``: acceptors until a signal comes."""

import time
from collections.abc import Callable

from snat_race.kernel import host
from snat_race.load.endpoint import Endpoint
from snat_race.load.servers import Server
from snat_race.runs.settings import ServerSettings
from snat_race.runs.signals import StopSignals

_CHECK_S = 0.1


def run(settings: ServerSettings, listening: Callable[[Endpoint], None]) -> int:
    """Accept until interrupted; return how many connections were accepted.

    Raises:
        UsageError: the address does not parse or is not ours.
        EnvironmentLacks: the address is in use, or privileged.
        SnatRaceError: an acceptor died.

    """
    endpoint, cpus = Endpoint.parse(settings.local_addr, "--local-addr", "0.0.0.0"), host.usable_cpus()
    pins = [cpus[index % len(cpus)] for index in range(settings.workers)]
    with StopSignals() as interrupt, Server(endpoint, pins) as server:
        listening(endpoint)
        while not interrupt.requested:
            server.require_alive()
            time.sleep(_CHECK_S)
        return server.stop()
