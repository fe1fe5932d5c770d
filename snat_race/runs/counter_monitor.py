"""Reads the counters of namespaces at short intervals during a run, and adds up how far they rose."""

import time
from collections.abc import Sequence

from snat_race.analysis.candidate_causes import exhausted_at_most
from snat_race.errors import EnvironmentLacks
from snat_race.kernel import counters, netns_lookup
from snat_race.kernel.counters import CounterReader
from snat_race.results.conclusions import MeasurementWarning, WarningKind
from snat_race.results.counters import CounterDelta, KernelCounters, kernel_counters, total_of
from snat_race.results.nat import Nat

READING_INTERVAL_S = 0.5
"""How long a reading stands before the next one is due. Shorter intervals tell causes apart better."""


class CounterMonitor:
    """Reads several namespaces, and TCP's counters of our own if that is none of them.

    Call :meth:`read_if_due` often during the run, :meth:`end_period` at the end of each period.

    Args:
        readers: the namespaces to read, the NAT's among them.
        nat: what is known of the NAT; it tells how many clashes may be for want of free ports.
        reads_own_tcp: also read TCP's counters of this process's own namespace, where a client dials.

    Attributes:
        exhausted_at_most: how many clashes may be of a NAT without free ports, added up over all readings.
        failure: why nothing can be read any more; None as long as everything can.

    """

    def __init__(self, readers: Sequence[CounterReader], nat: Nat, *, reads_own_tcp: bool = True) -> None:
        self._readers = readers
        self._nat = nat
        self.exhausted_at_most = 0
        self.failure: OSError | EnvironmentLacks | None = None

        own = netns_lookup.here()
        is_among_them = any(netns_lookup.same(own, reader.namespace) for reader in readers)
        self._own = own if reads_own_tcp and not is_among_them else None
        self._own_tcp_before = self._read_own_tcp()
        self._own_tcp_counted: counters.Reading = {}

        self._snapshots = [reader.read() for reader in readers]
        self._last_reading_s = time.monotonic()
        self._period: list[CounterDelta] = []
        self._total: list[CounterDelta] = []

    @property
    def total(self) -> list[CounterDelta]:
        """How far the counters rose up to the last reading, one delta a namespace."""
        return self._total

    def read_if_due(self) -> None:
        """Read the counters, unless that was done less than ``READING_INTERVAL_S`` ago."""
        if time.monotonic() - self._last_reading_s >= READING_INTERVAL_S:
            self._read()

    def end_period(self) -> list[CounterDelta]:
        """Read the counters; return how far they rose since the last period ended, a namespace each."""
        self._read()
        period, self._period = self._period, []
        return period

    def kernel_counters(self) -> KernelCounters:
        """Return all that was counted up to the last reading."""
        own_tcp = self._own_tcp_counted
        return kernel_counters(
            self._total,
            exhausted=self.exhausted_at_most,
            containers={name: values[0] for name, values in own_tcp.items() if values[0] > 0},
        )

    def _read(self) -> None:
        self._last_reading_s = time.monotonic()
        if self.failure:
            return
        try:
            snapshots = [reader.read() for reader in self._readers]
            own_tcp = counters.difference(self._read_own_tcp(), self._own_tcp_before)
            deltas = [
                now.since(before, netns=reader.namespace.name, inode=reader.namespace.inode)
                for reader, before, now in zip(self._readers, self._snapshots, snapshots, strict=True)
            ]
        except (OSError, EnvironmentLacks) as failed:
            self.failure = failed
            return
        earlier, self._snapshots, self._own_tcp_counted = self._snapshots, snapshots, own_tcp
        for before, now, delta in zip(earlier, snapshots, deltas, strict=True):
            if delta.conntrack:
                # What exhausted a search may have left the table by now.
                entries = max(before.count, now.count)
                self.exhausted_at_most += exhausted_at_most(delta.conntrack, self._nat, entries=entries)
        self._period = _added(self._period, deltas)
        self._total = _added(self._total, deltas)

    def _read_own_tcp(self) -> counters.Reading:
        return counters.read_tcp(self._own) if self._own else {}


def warnings_about(readers: Sequence[CounterReader]) -> list[MeasurementWarning]:
    """Return a warning for each namespace that is a container's own, because its NAT is elsewhere."""
    warnings: list[MeasurementWarning] = []
    for reader in readers:
        device = netns_lookup.container_device(reader.namespace)
        if device:
            warnings.append(
                MeasurementWarning(
                    kind=WarningKind.container_namespace,
                    values={"namespace": reader.namespace.name, "device": device},
                )
            )
    return warnings


def _added(sums: list[CounterDelta], deltas: list[CounterDelta]) -> list[CounterDelta]:
    """Add one delta of each namespace to its sum so far."""
    if not sums:
        return deltas
    return [total_of(pair) or pair[1] for pair in zip(sums, deltas, strict=True)]
