"""A scenario set up: hosts, rules, a server and a fleet of dialers, waiting for rounds."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Self

from snat_race.errors import EnvironmentLacks, Unavailable
from snat_race.interrupt import Interrupt
from snat_race.kernel import counters, host
from snat_race.kernel.choices import Caches
from snat_race.kernel.firewall import Firewall
from snat_race.kernel.namespaces import enter_sandbox
from snat_race.kernel.nat import Variant
from snat_race.kernel.topology import IPV4, IPV6, Topology, build
from snat_race.lab.scenario import Scenario, Serving
from snat_race.load.endpoint import Endpoint
from snat_race.load.exchange import DialPlan, Shared, share
from snat_race.load.fleet import Berth, Fleet
from snat_race.load.listener import DeafServer, Server
from snat_race.load.pace import Readiness
from snat_race.load.responder import Responder
from snat_race.load.schedule import Schedule
from snat_race.options import LabOptions

_PORT, _DNS_PORT = 8080, 53
_BATCH_MS = 20
_DITHER_NS = 400
_REHEARSALS = 4
_COLD = Readiness(200_000, 0)  # awake by the slot, but the last SYN was an interval ago
_SEED_SHIFT = 16
_HOT_REHEARSALS, _REHEARSAL_US = 10, 100  # if there is time for so many
_REHEARSAL_PORTS = range(1024, 20000)


class Rig:
    """Everything of one experiment that is not a result. A context manager."""

    def __init__(self, options: LabOptions, scenario: Scenario, interrupt: Interrupt) -> None:
        self._options, self.scenario, self._interrupt = options, scenario, interrupt
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            enter_sandbox()
            self.topology = self._build()
            self.firewall = Firewall(
                self.topology.source, self.topology.network, self.scenario.protocol, self._options.backend
            )
            with self.topology.destination.entered():
                self.server = self._server()
                stack.enter_context(self.server)
            self.berths = self._berths()
            self.fleet = stack.enter_context(Fleet(self.berths, self._interrupt))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def read(self) -> dict[str, counters.Snapshot]:
        """Read the counters of all hosts; conntrack's only where the NAT is."""
        hosts = self.topology
        containers = counters.total(counters.read_tcp(each) for each in hosts.containers)
        return {
            "source": counters.read(hosts.source),
            "destination": counters.tcp_only(counters.read_tcp(hosts.destination)),
            "containers": counters.tcp_only(containers),
        }

    @property
    def source_ports(self) -> tuple[int, int]:
        """The range of the dialers' source ports."""
        return self.scenario.source_ports if self.scenario.meets else host.local_port_range()

    def require_trackable(self, variant: Variant) -> None:
        """Check that the scenario can do with this variant.

        Raises:
            Unavailable: it cannot.

        """
        if self.scenario.resolver and not variant.tracked:
            raise Unavailable("a service address needs connection tracking")

    def forget(self) -> None:
        """Forget what connections and answers of the last round are still about."""
        if self.scenario.forgets:
            counters.flush_conntrack(self.topology.source)
        for berth in self.berths:
            for sock in berth.plan.shared:
                sock.forget()

    def _build(self) -> Topology:
        options, scenario = self._options, self.scenario
        try:
            topology = build(options.containers, options.topology, IPV6 if scenario.ipv6 else IPV4)
        except OSError as failed:
            raise EnvironmentLacks(
                f"cannot make the lab's namespaces ({failed.strerror}); use fewer --containers, "
                "or raise ulimit -n and user.max_net_namespaces"
            ) from failed
        return topology

    def set_up_source(self) -> None:
        """Set what the scenario wants of the source, once conntrack is at work there."""
        for key, value in self.scenario.sysctls.items():
            self.topology.source.sysctl(key, value)
        if self.scenario.resolver:
            self.firewall.install_service()

    def _server(self) -> Server | DeafServer | Responder:
        net, serving = self.topology.network, self.scenario.serving
        endpoint = Endpoint(net.destination_ip, _PORT, _PORT)
        if serving is Serving.answering:
            addresses = net.backends if self.scenario.resolver else (net.destination_ip,)
            return Responder(net.family, addresses, self._port)
        if serving is Serving.never:
            return DeafServer(endpoint)
        return Server(endpoint, [None], batch_ms=_BATCH_MS if serving is Serving.in_batches else 0)

    @property
    def _port(self) -> int:
        return _DNS_PORT if self.scenario.resolver else _PORT

    def _berths(self) -> list[Berth]:
        """Spread the workers over the CPUs, those of one lane on neighbouring ones."""
        options, cpus = self._options, self._options.cpus or tuple(host.usable_cpus())
        shared = (
            [self._share(index) for index in range(options.containers)] if self.scenario.resolver else []
        )
        # The two workers of a resolver ask on one socket, so they are of one lane.
        lanes, together = (1, options.workers) if shared else (options.workers, 1)
        berths = []
        for lane in range(lanes):
            for place in range(options.containers * together):
                container, worker = place // together, lane * options.containers * together + place
                plan = self._plan(container, worker, lane, lanes, shared[container] if shared else ())
                enter = self.topology.containers[container].enter
                berths.append(Berth(plan, (cpus[worker % len(cpus)],), enter))
        return berths

    def _plan(
        self, container: int, worker: int, lane: int, lanes: int, shared: Sequence[Shared]
    ) -> DialPlan:
        options, scenario, net = self._options, self.scenario, self.topology.network
        interval_ns = options.interval_us * 1000
        schedule = None
        if scenario.meets:
            schedule = Schedule(
                interval_ns,
                *scenario.source_ports,
                lanes,
                lane,
                (options.seed << _SEED_SHIFT) + worker,
                _DITHER_NS,
                by_round=True,
                sweeps=worker % 2 == 1,
            )
        return DialPlan(
            family=net.family,
            remote=(net.service_ip if shared else net.destination_ip, self._port),
            local_ip=net.container_ip(container),
            timeout_ms=options.timeout_ms,
            exchange=scenario.exchange,
            interval_us=options.interval_us,
            schedule=schedule,
            readiness=self._readiness(),
            shared=shared,
            rehearsal_ports=_rehearsal_ports(worker) if options.caches is Caches.hot else (),
        )

    def _readiness(self) -> Readiness:
        """Return how dialers get ready: for a crowd, less, so as not to hinder each other."""
        options = self._options
        if options.workers * options.containers > len(options.cpus or host.usable_cpus()):
            return Readiness(0, 1)
        if options.caches is Caches.cold:
            return _COLD
        rehearsals = _REHEARSALS
        if options.caches is Caches.hot:
            rehearsals = max(1, min(_HOT_REHEARSALS, options.interval_us // _REHEARSAL_US))
        return Readiness(options.interval_us * 1000, rehearsals, options.timeout_ms * 1_000_000)

    def _share(self, container: int) -> list[Shared]:
        net, (low, high) = self.topology.network, self.scenario.source_ports
        host.raise_open_file_limit()
        with self.topology.containers[container].entered():
            return share(
                net.family,
                net.container_ip(container),
                (net.service_ip, self._port),
                range(low, high + 1),
                self._options.timeout_ms,
            )


def _rehearsal_ports(worker: int) -> range:
    """Return source ports that no other worker uses, as long as there are less than a thousand."""
    each = len(_REHEARSAL_PORTS) // 1000
    return _REHEARSAL_PORTS[worker % 1000 * each :][:each]
