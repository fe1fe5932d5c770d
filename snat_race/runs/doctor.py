"""One run of ``doctor``: a host's rules and settings -> findings."""

from collections.abc import Iterator

from snat_race.analysis.host_checks import Host, checkup
from snat_race.errors import EnvironmentLacks
from snat_race.kernel import host, netns_lookup
from snat_race.kernel.counters import CounterReader
from snat_race.kernel.netns import Namespace
from snat_race.results import kernels
from snat_race.results.findings import Check, DoctorResult, Finding, Level, NotExposed
from snat_race.rules import reader
from snat_race.rules.exposure import RANDOM
from snat_race.rules.reader import HostRules
from snat_race.runs.run_metadata import RunMetadata


def examine(namespace: Namespace, workers: int) -> DoctorResult:
    """Look at everything; nothing is changed. ``workers`` 0: one for each CPU."""
    record = RunMetadata()
    rules = reader.read(namespace)
    facts = Host(
        kernel=host.kernel_version(),
        of_vendor=kernels.is_of_vendor(host.release()),
        dns_servers=rules.dns_servers,
        clashes=_clashes(namespace),
        sysctls=host.sysctls(namespace),
        usable_cpus=len(host.usable_cpus()),
        workers=workers,
        open_files=host.open_file_limits(),
        clock_source=host.clock_source(),
        checksumming_vxlans=tuple(host.checksumming_vxlans(namespace)),
    )
    findings = [*_of_rules(rules, namespace), *checkup(facts)]
    return DoctorResult(
        **record.fields(),
        host=host.host_name(),
        spec={"netns": namespace.name, "workers": workers},
        sysctls=facts.sysctls,
        findings=findings,
    )


def _clashes(namespace: Namespace) -> tuple[int, int] | None:
    """Return conntrack's insert_failed and drop; None if it does not say."""
    try:
        counted = CounterReader(namespace).read().conntrack
    except (OSError, EnvironmentLacks):
        return None
    return (sum(counted["insert_failed"]), sum(counted["drop"])) if counted else None


def _of_rules(rules: HostRules, namespace: Namespace) -> Iterator[Finding]:
    for rule in rules.snat_rules:
        level = Level.exposed if rule.exposed else Level.ok
        if rule.not_exposed == NotExposed.tcp_draws_ports:
            level = Level.warning
        yield Finding(level=level, check=Check.snat_rule, rule=rules.examined(rule))
    if rules.unreadable:
        yield Finding(level=Level.unknown, check=Check.rules, unreadable=rules.unreadable)
    elif not rules.snat_rules:
        yield Finding(level=Level.ok, check=Check.rules)
    if sets := rules.unread_sets:
        said = rules.ipsets_failure
        yield Finding(level=Level.warning, check=Check.ipsets, values={"sets": sets, "said": said})
    yield from _of_namespace(rules, namespace)


def _of_namespace(rules: HostRules, namespace: Namespace) -> Iterator[Finding]:
    """Yield that a container's own namespace tells nothing of the rules that its SYNs pass.

    Not if it has rules that race, or that somebody has cured: then these were what was asked about.
    """
    device = netns_lookup.container_device(namespace)
    telling = any(rule.exposed or rule.flags & RANDOM for rule in rules.snat_rules)
    if device and not telling:
        yield Finding(
            level=Level.unknown,
            check=Check.namespace,
            values={"name": namespace.name, "device": device},
        )
