"""One run of ``server``: acceptors until a signal comes."""

from collections.abc import Callable

from snat_race.errors import SnatRaceError
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


def run(server: TcpServer, listening: Callable[[], None]) -> tuple[int, SnatRaceError | None]:
    """Accept until interrupted, or until an acceptor dies.

    ``listening`` is called once, when the server listens. Returns how many connections were accepted
    and, if an acceptor died, what killed it.
    """
    fault = None
    with StopSignals() as interrupt, server:
        listening()
        try:
            while not interrupt.wait(_CHECK_S):
                server.require_alive()
        except SnatRaceError as died:
            fault = died
        return server.stop(), fault
