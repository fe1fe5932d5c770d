"""A scenario set up: hosts, rules, a server and a pool of dialers, waiting for rounds."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Self

from snat_race.errors import EnvironmentLacks, Unavailable
from snat_race.kernel import counters, host
from snat_race.kernel.netns import enter_sandbox
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
from snat_race.load.sockets import SharedUdpSocket, shared_sockets

_PORT, _DNS_PORT = 8080, 53
_BATCH_MS = 20
_DITHER_NS = 400
_PROBES = 4
_COLD = Preparation(spin_ns=200_000)  # awake by the slot, but the last SYN was an interval ago
_CROWDED = Preparation(probes=1)
_SEED_SHIFT = 16
_HOT_PROBES, _HOT_PROBE_US = 10, 100  # if there is time for that many
_PROBE_PORTS = range(1024, 20000)


class Testbed:
    """Everything of one experiment that is not a result. A context manager."""

    def __init__(self, settings: LabSettings, scenario: Scenario, cancelled: Callable[[], bool]) -> None:
        self._settings, self.scenario, self._cancelled = settings, scenario, cancelled
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
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def read(self) -> dict[str, counters.Snapshot]:
        """Read the counters of all hosts; conntrack's only where the NAT is."""
        hosts = self.topology
        containers = counters.added(counters.read_tcp(each) for each in hosts.containers)
        return {
            "source": counters.read(hosts.source),
            "destination": counters.tcp_only(counters.read_tcp(hosts.destination)),
            "containers": counters.tcp_only(containers),
        }

    @property
    def source_ports(self) -> tuple[int, int]:
        """The range of the dialers' source ports."""
        return self.scenario.source_ports if self.scenario.rendezvous else host.local_port_range()

    def require_trackable(self, variant: Variant) -> None:
        """Check that the scenario can do with this variant.

        Raises:
            Unavailable: it cannot.

        """
        if self.scenario.shared_sockets and not variant.tracked:
            raise Unavailable("a service address needs connection tracking")

    def forget(self) -> None:
        """Forget what connections and answers of the last round are still about."""
        if self.scenario.flush_before_round:
            counters.flush_conntrack(self.topology.source)
        for placement in self.placements:
            for sock in placement.config.shared_sockets:
                sock.forget()

    def _build(self) -> Topology:
        settings, scenario = self._settings, self.scenario
        try:
            topology = build(settings.containers, settings.topology, IPV6 if scenario.ipv6 else IPV4)
        except OSError as failed:
            raise EnvironmentLacks(
                f"cannot make the lab's namespaces ({failed.strerror}); use fewer containers, "
                "or raise ulimit -n and user.max_net_namespaces"
            ) from failed
        return topology

    def set_up_source(self) -> None:
        """Set what the scenario wants of the source, once conntrack is at work there."""
        for key, value in self.scenario.sysctls.items():
            self.topology.source.sysctl(key, value)
        if self.scenario.shared_sockets:
            self.variant_loader.load_service()

    def _server(self) -> Server:
        net, serving = self.topology.network, self.scenario.serving
        endpoint = Endpoint(net.destination_ip, _PORT, _PORT)
        if serving is Serving.answer_datagrams:
            addresses = net.backends if self.scenario.shared_sockets else (net.destination_ip,)
            return UdpServer(net.family, addresses, self._port)
        if serving is Serving.never_accept:
            return NonAcceptingServer(endpoint)
        return TcpServer(
            endpoint, [None], batch_ms=_BATCH_MS if serving is Serving.accept_in_batches else 0
        )

    @property
    def _port(self) -> int:
        return _DNS_PORT if self.scenario.shared_sockets else _PORT

    def _placements(self) -> list[Placement]:
        """Spread the workers over the CPUs, those of one lane on neighbouring ones."""
        settings, cpus = self._settings, self._settings.cpus or tuple(host.usable_cpus())
        shared = (
            [self._shared_sockets(index) for index in range(settings.containers)]
            if self.scenario.shared_sockets
            else []
        )
        # The two workers of a resolver ask on one socket, so they are of one lane.
        lanes, together = (1, settings.workers) if shared else (settings.workers, 1)
        placements = []
        for lane in range(lanes):
            for place in range(settings.containers * together):
                container, worker = place // together, lane * settings.containers * together + place
                config = self._config(container, worker, lane, lanes, shared[container] if shared else ())
                enter = self.topology.containers[container].enter
                placements.append(Placement(config=config, cpus=(cpus[worker % len(cpus)],), prepare=enter))
        return placements

    def _config(
        self, container: int, worker: int, lane: int, lanes: int, shared: Sequence[SharedUdpSocket]
    ) -> DialerConfig:
        settings, scenario, net = self._settings, self.scenario, self.topology.network
        schedule = None
        if scenario.rendezvous:
            low, high = scenario.source_ports
            schedule = Schedule(
                interval_ns=settings.interval_us * 1000,
                low=low,
                high=high,
                lanes=lanes,
                lane=lane,
                seed=(settings.seed << _SEED_SHIFT) + worker,
                dither_ns=_DITHER_NS,
                by_round=True,
                sweeps=worker % 2 == 1,
            )
        return DialerConfig(
            family=net.family,
            remote=(net.service_ip if shared else net.destination_ip, self._port),
            local_ip=net.container_ip(container),
            timeout_ms=settings.timeout_ms,
            exchange=scenario.exchange,
            interval_us=settings.interval_us,
            schedule=schedule,
            preparation=self._preparation(),
            shared_sockets=shared,
            probe_ports=_probe_ports(worker) if settings.caches is Caches.hot else (),
        )

    def _preparation(self) -> Preparation:
        """Return how dialers get ready: for a crowd, less, so as not to hinder each other."""
        settings = self._settings
        if settings.workers * settings.containers > len(settings.cpus or host.usable_cpus()):
            return _CROWDED
        if settings.caches is Caches.cold:
            return _COLD
        probes = _PROBES
        if settings.caches is Caches.hot:
            probes = max(1, min(_HOT_PROBES, settings.interval_us // _HOT_PROBE_US))
        return Preparation(spin_ns=settings.interval_us * 1000, probes=probes, balances=True)

    def _shared_sockets(self, container: int) -> list[SharedUdpSocket]:
        net, (low, high) = self.topology.network, self.scenario.source_ports
        host.raise_open_file_limit()
        with self.topology.containers[container].entered():
            return shared_sockets(
                net.family,
                net.container_ip(container),
                (net.service_ip, self._port),
                range(low, high + 1),
                self._settings.timeout_ms,
            )


def _probe_ports(worker: int) -> range:
    """Return source ports that no other worker uses, as long as there are less than a thousand."""
    ports_each = len(_PROBE_PORTS) // 1000
    return _PROBE_PORTS[worker % 1000 * ports_each :][:ports_each]
