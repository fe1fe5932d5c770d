"""One run of ``doctor``: a host's rules and settings -> findings."""

import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from snat_race import __version__
from snat_race.analysis.checkup import Host, checkup
from snat_race.analysis.findings import DoctorResult, Finding
from snat_race.analysis.model import Tool
from snat_race.kernel import host, places, rulesets
from snat_race.kernel.namespaces import Namespace
from snat_race.kernel.rulesets import Rulesets
from snat_race.kernel.writers import writer_of


def examine(namespace: Namespace, workers: int) -> DoctorResult:
    """Look at everything; nothing is changed. ``workers`` 0: one for each CPU."""
    started_at, began_s = datetime.now(UTC), time.monotonic()
    facts = Host(
        kernel=host.kernel_version(),
        sysctls=host.sysctls(namespace),
        usable_cpus=len(host.usable_cpus()),
        workers=workers,
        open_files=host.open_file_limits(),
        clock_source=host.clock_source(),
        checksumming_vxlans=tuple(host.checksumming_vxlans(namespace)),
    )
    where = "" if namespace.name == places.HERE else f" --netns {namespace.name}"
    findings = [*_rules(rulesets.read(namespace), where), *checkup(facts)]
    return DoctorResult(
        tool=Tool(version=__version__),
        started_at=started_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        elapsed_s=round(time.monotonic() - began_s, 3),
        environment=host.environment() | {"sysctls": facts.sysctls, "clock_source": facts.clock_source},
        spec={"netns": namespace.name, "workers": workers},
        findings=findings,
    )


def _rules(found: Rulesets, where: str) -> Iterator[Finding]:
    for rule in found.exposed:
        writer = writer_of(rule)
        yield Finding(
            level="exposed",
            check=str(rule.place),
            evidence=f"{rule.text} (by {writer.name}) keeps the clients' ports: its SYNs can race",
            advice=f"python -m snat_race mitigate{where} --apply; for good: {writer.setting}",
        )
    for why in found.unreadable:
        yield Finding(
            level="unknown",
            check="rules",
            evidence=why,
            advice=f"sudo {sys.executable} -m snat_race doctor{where}",
        )
    for rule in found.rules:
        if rule.harmless:
            yield Finding(level="ok", check=str(rule.place), evidence=f"{rule.text}: {rule.harmless}")
    if not found.rules and not found.unreadable:
        yield Finding(level="ok", check="rules", evidence="no rule here translates sources")
