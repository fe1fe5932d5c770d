"""A scenario set up: hosts, rules, a server and a pool of dialers, waiting for rounds."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Self

from snat_race.errors import EnvironmentLacks, Unavailable
from snat_race.kernel import counters, host
from snat_race.kernel.netns import enter_sandbox
from snat_race.kernel.routing import Routing
from snat_race.lab.scenarios import Scenario, Serving
from snat_race.lab.settings import Caches, LabSettings
from snat_race.lab.topology import IPV4, IPV6, Topology, build
from snat_race.lab.variant_loader import VariantLoader
from snat_race.lab.variants import Variant
from snat_race.load.dialer_config import DialerConfig, Preparation
from snat_race.load.dialer_pool import DialerPool, Placement
from snat_race.load.endpoint import Endpoint
from snat_race.load.schedule import Schedule
from snat_race.load.servers import NonAcceptingServer, Server, TcpServer, UdpServer
from snat_race.load.udp_sockets import SharedUdpSocket, shared_sockets
from snat_race.packets.tracer import Tracer

_PORT, _DNS_PORT = 8080, 53
_BATCH_MS = 20  # between two batches of accepted connections
# Each dial is moved by up to this much to either side. Without it, a constant skew between two dialers
# would decide the yield of a whole run.
_DITHER_NS = 400
_SEED_SHIFT = 16  # leaves room for the workers' numbers below the seed

# Warm-up probes before each dial, by the state of the caches that is asked for.
_WARM_PROBES = 4
_HOT_PROBES = 10  # as long as there is time for that many:
_HOT_PROBE_US = 100  # of the interval, for each
_COLD = Preparation(spin_ns=200_000)  # awake by the slot, but the last SYN was an interval ago
# Dialers that share a CPU get ready with less, so as not to hinder each other.
_OVERSUBSCRIBED = Preparation(probes=1)
# Source ports of probes that pass the NAT; 1,000 workers have some of their own.
_PROBE_PORTS = range(1024, 20000)
_PROBE_PORTS_EACH = len(_PROBE_PORTS) // 1000


class Testbed:
    """Everything of one experiment that is not a result. A context manager.

    Args:
        settings: sizes, times, the backend and the CPUs.
        scenario: what is set up.
        cancelled: whether to stop waiting for workers.

    Attributes:
        topology: the hosts.
        variant_loader: loads the rule that is measured.
        server: runs at the destination.
        placements: where each worker is, and what it dials; the pool's workers in their order.
        pool: the dialers.
        tracer: sees every SYN at the source; None: not wanted.

    Raises:
        EnvironmentLacks: no privilege, or a kernel feature is missing.
        Interrupted: cancelled while the workers started.
        SnatRaceError: a worker did not start.

    """

    def __init__(self, settings: LabSettings, scenario: Scenario, cancelled: Callable[[], bool]) -> None:
        self._settings = settings
        self.scenario = scenario
        self._cancelled = cancelled
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            enter_sandbox()
            self.topology = self._build()
            self.variant_loader = VariantLoader(
                self.topology.source, self.topology.network, self.scenario.protocol, self._settings.backend
            )
            with self.topology.destination.entered():
                self.server = self._server()
                stack.enter_context(self.server)
            self.placements = self._placements()
            self.pool = stack.enter_context(DialerPool(self.placements, self._cancelled))
            self.tracer = self._tracer(stack) if self._settings.trace else None
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def source_ports(self) -> tuple[int, int]:
        """The range of the dialers' source ports, first and last."""
        return self.scenario.source_ports if self.scenario.rendezvous else host.local_port_range()

    def require_possible(self, variant: Variant) -> None:
        """Check that the scenario can be set up with this variant.

        Raises:
            Unavailable: it cannot.

        """
        if self.scenario.shared_sockets and not variant.tracked:
            raise Unavailable("a service address needs connection tracking")

    def set_up_source(self) -> None:
        """Set what the scenario wants of the source. Call it once a rule has conntrack at work there."""
        for key, value in self.scenario.sysctls.items():
            self.topology.source.sysctl(key, value)
        if self.scenario.shared_sockets:
            self.variant_loader.load_service()

    def clear_last_round(self) -> None:
        """Remove what the last round left: conntrack's entries, and answers that came too late."""
        if self.scenario.flush_before_round:
            counters.flush_conntrack(self.topology.source)
        for placement in self.placements:
            for sock in placement.config.shared_sockets:
                sock.forget()

    def read_counters(self) -> dict[str, counters.Snapshot]:
        """Read the counters of all hosts; conntrack's only where the NAT is.

        The keys are "source", "destination" and "containers"; the containers' are added up.
        """
        containers = counters.added(counters.read_tcp(container) for container in self.topology.containers)
        return {
            "source": counters.read(self.topology.source),
            "destination": counters.tcp_only(counters.read_tcp(self.topology.destination)),
            "containers": counters.tcp_only(containers),
        }

    def _tracer(self, stack: ExitStack) -> Tracer:
        """See every SYN at the source, from now on."""
        routing = Routing(self.topology.source)
        stack.callback(routing.close)
        with self.topology.source.entered():
            return stack.enter_context(Tracer(routing.keeps))

    def _build(self) -> Topology:
        network = IPV6 if self.scenario.ipv6 else IPV4
        try:
            return build(self._settings.containers, self._settings.topology, network)
        except OSError as failed:
            raise EnvironmentLacks(
                f"cannot make the lab's namespaces ({failed.strerror}); use fewer containers, "
                "or raise ulimit -n and user.max_net_namespaces"
            ) from failed

    def _server(self) -> Server:
        network = self.topology.network
        serving = self.scenario.serving
        endpoint = Endpoint(network.destination_ip, _PORT, _PORT)
        if serving is Serving.answer_datagrams:
            addresses = network.backends if self.scenario.shared_sockets else (network.destination_ip,)
            return UdpServer(network.family, addresses, self._port)
        if serving is Serving.never_accept:
            return NonAcceptingServer(endpoint)
        batch_ms = _BATCH_MS if serving is Serving.accept_in_batches else 0
        return TcpServer(endpoint, [None], batch_ms=batch_ms)

    @property
    def _port(self) -> int:
        return _DNS_PORT if self.scenario.shared_sockets else _PORT

    def _cpus(self) -> tuple[int, ...]:
        return self._settings.cpus or tuple(host.usable_cpus())

    def _placements(self) -> list[Placement]:
        """Say of each worker where it dials from. Workers of one lane are numbered in a row.

        Worker *i* is pinned to the *i*-th CPU, so that those of one lane dial at the same instant.
        """
        containers, workers, cpus = self._settings.containers, self._settings.workers, self._cpus()
        if self.scenario.shared_sockets:
            # The workers of a container ask on the same sockets, so they are of one lane.
            lanes = 1
            positions = [(0, container) for container in range(containers) for _ in range(workers)]
            sockets = [self._shared_sockets(container) for container in range(containers)]
        else:
            lanes = workers
            positions = [(lane, container) for lane in range(workers) for container in range(containers)]
            sockets = [[] for _ in range(containers)]
        placements = []
        for worker, (lane, container) in enumerate(positions):
            config = self._dialer_config(
                worker=worker, container=container, lane=lane, lanes=lanes, sockets=sockets[container]
            )
            placements.append(
                Placement(
                    config=config,
                    cpus=(cpus[worker % len(cpus)],),
                    prepare=self.topology.containers[container].enter,
                )
            )
        return placements

    def _dialer_config(
        self, *, worker: int, container: int, lane: int, lanes: int, sockets: Sequence[SharedUdpSocket]
    ) -> DialerConfig:
        settings, scenario, network = self._settings, self.scenario, self.topology.network
        return DialerConfig(
            family=network.family,
            remote=(network.service_ip if scenario.shared_sockets else network.destination_ip, self._port),
            local_ip=network.container_ip(container),
            timeout_ms=settings.timeout_ms,
            exchange=scenario.exchange,
            interval_us=settings.interval_us,
            schedule=self._schedule(worker, lane, lanes) if scenario.rendezvous else None,
            preparation=self._preparation(),
            shared_sockets=sockets,
            probe_ports=_probe_ports(worker) if settings.caches is Caches.hot else (),
        )

    def _schedule(self, worker: int, lane: int, lanes: int) -> Schedule:
        low, high = self.scenario.source_ports
        return Schedule(
            interval_ns=self._settings.interval_us * 1000,
            low=low,
            high=high,
            lanes=lanes,
            lane=lane,
            seed=(self._settings.seed << _SEED_SHIFT) + worker,
            dither_ns=_DITHER_NS,
            by_round=True,
            # A sweep moves the second worker of each lane away from the first.
            sweeps=worker % 2 == 1,
        )

    def _preparation(self) -> Preparation:
        """Return how dialers get ready for a slot; it decides how warm the way through the NAT is."""
        settings = self._settings
        if settings.workers * settings.containers > len(self._cpus()):
            return _OVERSUBSCRIBED
        if settings.caches is Caches.cold:
            return _COLD
        probes = _WARM_PROBES
        if settings.caches is Caches.hot:
            probes = max(1, min(_HOT_PROBES, settings.interval_us // _HOT_PROBE_US))
        # Awake all the time: a dialer that slept reaches the NAT late, and spread over some microseconds.
        return Preparation(spin_ns=settings.interval_us * 1000, probes=probes, balances=True)

    def _shared_sockets(self, container: int) -> list[SharedUdpSocket]:
        """Make the sockets of a container's resolver, one for each source port."""
        network = self.topology.network
        low, high = self.scenario.source_ports
        host.raise_open_file_limit()
        with self.topology.containers[container].entered():
            return shared_sockets(
                network.family,
                network.container_ip(container),
                (network.service_ip, self._port),
                range(low, high + 1),
                self._settings.timeout_ms,
            )


def _probe_ports(worker: int) -> range:
    """Return source ports that no other worker uses, as long as there are less than a thousand."""
    first = worker % 1000 * _PROBE_PORTS_EACH
    return _PROBE_PORTS[first : first + _PROBE_PORTS_EACH]
