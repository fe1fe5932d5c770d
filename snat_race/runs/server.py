"""One run of ``server``: acceptors until a signal comes."""

import time
from collections.abc import Callable

from snat_race.kernel import host
from snat_race.load.endpoint import Endpoint
from snat_race.load.servers import TcpServer
from snat_race.runs.settings import ServerSettings
from snat_race.runs.signals import StopSignals

_CHECK_S = 0.1


def server_of(settings: ServerSettings) -> TcpServer:
    """Return the server, which does not listen yet: each worker on a CPU, if there are enough.

    Raises:
        UsageError: the address does not parse or is not ours.
        EnvironmentLacks: the address is in use, or privileged.

    """
    cpus = host.usable_cpus()
    pins = [cpus[index % len(cpus)] for index in range(settings.workers)]
    return TcpServer(Endpoint.parse(settings.local_addr, "0.0.0.0"), pins)


def run(server: TcpServer, listening: Callable[[], None]) -> int:
    """Accept until interrupted; return how many connections were accepted.

    ``listening`` is called once, when the server listens.

    Raises:
        SnatRaceError: an acceptor died.

    """
    with StopSignals() as interrupt, server:
        listening()
        while not interrupt.requested:
            server.require_alive()
            time.sleep(_CHECK_S)
        return server.stop()
