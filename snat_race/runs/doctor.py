"""One run of ``doctor``: a host's rules and settings -> findings."""

import os
from collections.abc import Iterator

from snat_race.analysis.host_checks import Host, checkup
from snat_race.kernel import host, netns_lookup
from snat_race.kernel.netns import Namespace
from snat_race.report.wording.findings import of_container
from snat_race.results.findings import DoctorResult, Finding
from snat_race.rules import reader
from snat_race.rules.exposure import RANDOM
from snat_race.rules.owners import owner_of
from snat_race.rules.reader import Rulesets
from snat_race.runs.program import as_root, command
from snat_race.runs.run_metadata import RunMetadata


def examine(namespace: Namespace, workers: int) -> DoctorResult:
    """Look at everything; nothing is changed. ``workers`` 0: one for each CPU."""
    record = RunMetadata()
    facts = Host(
        kernel=host.kernel_version(),
        sysctls=host.sysctls(namespace),
        usable_cpus=len(host.usable_cpus()),
        workers=workers,
        open_files=host.open_file_limits(),
        clock_source=host.clock_source(),
        checksumming_vxlans=tuple(host.checksumming_vxlans(namespace)),
    )
    findings = [*_rules(reader.read(namespace), namespace), *checkup(facts)]
    return DoctorResult(
        **record.fields(),
        spec={"netns": namespace.name, "workers": workers},
        sysctls=facts.sysctls,
        findings=findings,
    )


def _rules(found: Rulesets, namespace: Namespace) -> Iterator[Finding]:
    where = [] if namespace.name == netns_lookup.HERE else ["--netns", namespace.name]
    for rule in found.exposed:
        writer = owner_of(rule)
        now = rule.fixed or f"{command('mitigate', *where, '--apply')}; for good"
        yield Finding(
            level="exposed",
            check=str(rule.place),
            evidence=f"{rule.text} (by {writer.name}) keeps the clients' ports: its SYNs can race",
            advice=f"{now}: {writer.setting}",
        )
    if found.unreadable:
        yield Finding(
            level="unknown",
            check="rules",
            evidence="; ".join(found.unreadable),
            advice=as_root("doctor", *where) if os.geteuid() else "mend that, and look again",
        )
    if elsewhere := _elsewhere(found, namespace):
        yield elsewhere
    for rule in found.rules:
        if rule.harmless:
            yield Finding(level="ok", check=str(rule.place), evidence=f"{rule.text}: {rule.harmless}")
    if not found.rules and not found.unreadable:
        yield Finding(level="ok", check="rules", evidence="no rule here translates sources")


def _elsewhere(found: Rulesets, namespace: Namespace) -> Finding | None:
    """Say that a container's own namespace tells nothing of the rules that its SYNs pass."""
    device = netns_lookup.container_device(namespace)
    if not device or any(not rule.harmless or rule.flags & RANDOM for rule in found.rules):
        return None
    hint = of_container(namespace.name, device)
    return Finding(
        level="unknown",
        check="namespace",
        evidence=f"{hint}; the rules that translate its clients are those of the host",
        advice=f"run {command('doctor')} on the host, or with --netns 1 in a container with --pid host",
    )
