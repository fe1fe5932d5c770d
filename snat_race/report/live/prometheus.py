"""A node's counters as Prometheus metrics: those that node_exporter has by its names."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from snat_race.errors import PrometheusExtraMissing, UsageError
from snat_race.results.counters import TCP_COUNTERS

# What node_exporter's conntrack collector exports: sums over CPUs, as gauges.
_NODE_EXPORTER = ("found", "invalid", "insert_failed", "drop", "early_drop", "search_restart")


class Totals(Protocol):
    """One reading: totals since boot, which is what Prometheus wants."""

    @property
    def conntrack(self) -> dict[str, list[int]]: ...  # noqa: D102
    @property
    def tcp(self) -> dict[str, list[int]]: ...  # noqa: D102
    @property
    def count(self) -> int: ...  # noqa: D102
    @property
    def max(self) -> int: ...  # noqa: D102


class Exporter:
    """A collector of prometheus_client; reads at each scrape."""

    def __init__(self, read: Callable[[], Totals]) -> None:
        self._read = read

    def serve(self, address: str, port: int) -> None:
        """Listen, in a thread.

        Raises:
            PrometheusExtraMissing: prometheus-client is not installed.
            UsageError: the address cannot be listened on.

        """
        try:
            from prometheus_client import CollectorRegistry, start_http_server
        except ImportError as missing:
            raise PrometheusExtraMissing("needs prometheus-client") from missing
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        try:
            start_http_server(port, address, registry)
        except OSError as failed:
            raise UsageError(
                f"cannot listen on {address}:{port} ({failed.strerror}); choose another"
            ) from failed

    def collect(self) -> Iterator[Any]:
        """Yield the metrics."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, UnknownMetricFamily

        now = self._read()
        yield GaugeMetricFamily("node_nf_conntrack_entries", "Entries in the table.", now.count)
        yield GaugeMetricFamily("node_nf_conntrack_entries_limit", "The most there may be.", now.max)
        for name in _NODE_EXPORTER:
            yield GaugeMetricFamily(
                f"node_nf_conntrack_stat_{name}", f"Sum of {name} over CPUs.", sum(now.conntrack[name])
            )
        for name, per_cpu in now.conntrack.items():
            family = CounterMetricFamily(
                f"snat_race_conntrack_{name}", f"What 'conntrack -S' calls {name}.", labels=["cpu"]
            )
            for cpu, count in enumerate(per_cpu):
                family.add_metric([str(cpu)], count)
            yield family
        for name in TCP_COUNTERS:
            if name in now.tcp:
                yield UnknownMetricFamily(
                    f"node_netstat_TcpExt_{name}", f"TcpExt {name}.", now.tcp[name][0]
                )
