"""What ``doctor`` found on many hosts, as JSON has it: their results, put side by side."""

from typing import Literal

from snat_race.results.findings import OWN_NAMESPACE, Finding, Level
from snat_race.results.model import Count, Facts, Instant, Model, Result


class FleetHost(Model):
    """One network namespace of one host, as it was read last."""

    host: str
    """Name of the host; of a result that does not say, the name of its file."""
    run_id: str = ""
    """The run of ``doctor`` that read it; "": its file is empty."""
    started_at: Instant | None = None
    """When that began: UTC, ISO 8601; null: its file is empty."""
    environment: Facts = {}
    """Machine and kernel that it ran on."""
    spec: Facts = {}
    """Settings of that run."""
    findings: list[Finding]
    """What was found and is not ok."""

    @property
    def netns(self) -> str:
        """The network namespace that was looked into, as its run was given it."""
        return str(self.spec.get("netns", OWN_NAMESPACE))

    @property
    def kernel(self) -> str:
        """Release of the kernel; "": not known."""
        return str(self.environment.get("kernel", ""))

    def of_level(self, level: Level) -> list[Finding]:
        """Return the findings of this level."""
        return [finding for finding in self.findings if finding.level == level]


class FleetResult(Result):
    """Results of ``doctor`` of many hosts, as one."""

    kind: Literal["fleet"] = "fleet"
    """The kind of this result."""
    hosts: list[FleetHost]
    """Each host, the one with the most exposed rules first."""
    older_readings: Count
    """How many results were left out, because a later one is of the same host and namespace."""
