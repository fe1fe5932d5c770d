"""What ``doctor`` and ``mitigate`` say of a host: a title, the evidence and an advice per finding.

A check is one member of ``Check`` and one entry in the table below.
"""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from snat_race.report.wording import snat_rules
from snat_race.report.wording.causes import RESOLVED_BY
from snat_race.report.wording.formats import filled, namespace, plural
from snat_race.report.wording.program import Program
from snat_race.results.findings import (
    OWN_NAMESPACE,
    Check,
    DoctorResult,
    Finding,
    Level,
    Value,
)

_NOT_AS_EXPECTED = (AttributeError, IndexError, KeyError, TypeError, ValueError)
"""What a sentence raises whose values are missing, or of another kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Words:
    """What is said of one check. The advice is given only with findings that are not ok."""

    title: str
    evidence: Callable[[Finding], str]
    advice: str = ""  # with the names of values in braces


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingWords:
    """A finding in words."""

    title: str
    evidence: str
    advice: str  # what to do; "" if nothing


class Examined(Protocol):
    """A host that was looked at."""

    @property
    def environment(self) -> dict[str, Any]:
        """Machine and kernel that ``doctor`` ran on."""

    @property
    def spec(self) -> dict[str, Any]:
        """Settings of that run."""


def verdict(result: DoctorResult) -> str:
    """Return the verdict in one sentence."""
    rules = sum(finding.level == Level.exposed for finding in result.findings)
    if rules:
        return f"Exposed: {plural(rules, 'rule')} here can lose SYNs to the race."
    if result.has(Level.unknown):
        return "Cannot tell: not everything could be read."
    return "Not exposed: no rule here can lose SYNs to the race."


def worded(result: Examined, finding: Finding, program: Program) -> FindingWords:
    """Return one finding of a result in words; its advice may be a command of ``program``."""
    if recorded := finding.recorded:
        return FindingWords(title=recorded.check, evidence=recorded.evidence, advice=recorded.advice)
    advice = "" if finding.level == Level.ok else _advice(result, finding, program)
    if finding.rule:
        title = str(finding.rule.address)
        return FindingWords(title=title, evidence=snat_rules.evidence(finding.rule), advice=advice)
    words = _WORDS.get(finding.check, _Words(title=finding.check, evidence=_listed))
    try:
        evidence = words.evidence(finding)
    except _NOT_AS_EXPECTED:
        evidence = _listed(finding)
    return FindingWords(title=words.title, evidence=evidence, advice=advice)


def _advice(result: Examined, finding: Finding, program: Program) -> str:
    if finding.rule:
        return snat_rules.advice(finding.rule, _namespace_option(result), program)
    if finding.check == Check.rules:
        return _unreadable_advice(result, program)
    if finding.check == Check.namespace:
        command = program.command("doctor")
        return f"run '{command}' on the host, or with --netns 1 in a container with --pid host"
    try:
        return _WORDS[finding.check].advice.format(
            **{name: _quoted(value) for name, value in finding.values.items()}
        )
    except _NOT_AS_EXPECTED:
        return ""


def _quoted(value: Value) -> Value:
    """Return a value for a command that people paste: a device may be named 'a;reboot'."""
    if isinstance(value, list):
        return [shlex.quote(str(part)) for part in value]
    return shlex.quote(value) if isinstance(value, str) else value


def _listed(finding: Finding) -> str:
    """Return the values that a finding has: those of a file may be edited, or of another version."""
    return ", ".join(f"{name} {value}" for name, value in finding.values.items())


def of_container(netns: str, device: str) -> str:
    """Say that a namespace is a container's, because it has no other device than ``device``."""
    return f"{namespace(netns)} has one device, {device}, so it is a container's"


def _unreadable_advice(result: Examined, program: Program) -> str:
    if result.environment.get("root"):
        return "mend that, and look again"
    return program.try_as_root("doctor", *_namespace_option(result))


def _namespace_option(result: Examined) -> list[str]:
    name = result.spec.get("netns", OWN_NAMESPACE)
    return [] if name == OWN_NAMESPACE else ["--netns", name]


def _sentence(template: str) -> Callable[[Finding], str]:
    """Return what puts a finding's values in the braces of a template."""
    return lambda finding: filled(template, finding.values)


def _rules(finding: Finding) -> str:
    if finding.unreadable:
        return "; ".join(snat_rules.why_unreadable(unreadable) for unreadable in finding.unreadable)
    return "no rule here translates sources"


def _namespace(finding: Finding) -> str:
    container = of_container(str(finding.values["name"]), str(finding.values["device"]))
    return f"{container}; the rules that translate its clients are those of the host"


def _ipsets(finding: Finding) -> str:
    return snat_rules.of_unread_sets(_joined(finding, "sets"), str(finding.values["said"]))


def _kernel(finding: Finding) -> str:
    differs = finding.values.get("differs", ())
    named = differs if isinstance(differs, list) else []
    first = _BEFORE_5_0 if finding.level != Level.ok else _SINCE_5_0
    others = [sentence for name, sentence in _DIFFERS.items() if name in named]
    return f"{finding.values['version']}: {'; '.join([first, *others])}"


_VENDOR = "; this is a vendor's kernel, which may have the fix"
_SINCE_5_0 = "a port that is taken is replaced by a random one; --random is as good as --random-fully"
_BEFORE_5_0 = (
    "before 5.0, racing clients easily get the same port, and --random is not as good as --random-fully"
)
_DIFFERS = {
    "resolved_counted": "before 5.10, insert_failed also counts clashes of UDP that lost nothing",
    "drop_uncounted": (
        "before 4.7, a SYN lost to the race raises insert_failed and no drop, as a clash of UDP does, so "
        "'watch' cannot tell the two apart"
    ),
}


def _retransmission(finding: Finding) -> str:
    waits = _joined(finding, "waits_s")
    return f"it is sent again after {waits}, ... s (tcp_syn_linear_timeouts)"


def _open_files(finding: Finding) -> str:
    soft, hard = finding.values["soft"], finding.values["hard"]
    raised = "may be raised" if hard == -1 else f"may be raised to {hard:,}"
    return f"limit {soft:,}, {raised}"


def _clock_source(finding: Finding) -> str:
    name = finding.values["name"] or "unknown"
    slow = "" if finding.level == Level.ok else ": slow to read, so dials meet less often"
    return f"{name}{slow}"


def _vxlan(finding: Finding) -> str:
    devices = _joined(finding, "devices")
    perhaps = finding.level != Level.ok and finding.values.get("of_vendor")
    return (
        f"{devices}: with random ports, kernels before 5.6.13, 5.4.41, 4.19.123 and 4.14.181 send wrong "
        f"checksums{_VENDOR if perhaps else ''}"
    )


def _joined(finding: Finding, name: str) -> str:
    values = finding.values[name]
    return ", ".join(map(str, values)) if isinstance(values, list) else str(values)


_WORDS = {
    Check.rules: _Words(title="rules", evidence=_rules),
    Check.namespace: _Words(title="namespace", evidence=_namespace),
    Check.ipsets: _Words(
        title="ipsets",
        evidence=_ipsets,
        advice="install ipset, or do what it says, so that 'ipset save' prints them",
    ),
    Check.kernel: _Words(title="kernel", evidence=_kernel, advice="use --random-fully, or a newer kernel"),
    Check.syn_retransmission: _Words(title="cost of a lost SYN", evidence=_retransmission),
    Check.clashes: _Words(
        title="lost since boot",
        evidence=_sentence(
            "insert_failed {insert_failed:,}, drop {drop:,}: at most {insert_failed:SYN} lost the race "
            "since the host booted, or its namespace began"
        ),
        advice="'snat-race trace' names whose SYNs are lost, 'snat-race watch' shows when",
    ),
    Check.conntrack: _Words(
        title="conntrack",
        evidence=_sentence("it is not loaded: nothing here is tracked or translated"),
    ),
    Check.conntrack_table: _Words(
        title="conntrack table",
        evidence=_sentence("{entries:,} of {max:,} entries; a full table drops SYNs too"),
        advice="sudo sysctl -w net.netfilter.nf_conntrack_max={advised_max}",
    ),
    Check.conntrack_buckets: _Words(
        title="conntrack buckets",
        evidence=_sentence(
            "{buckets:,} for {max:,} entries; long chains are slow, and since 5.15 they drop SYNs"
        ),
        advice="sudo sysctl -w net.netfilter.nf_conntrack_buckets={max}",
    ),
    Check.conntrack_timeouts: _Words(
        title="conntrack timeouts",
        evidence=_sentence(
            "close {close_s:,} s, time_wait {time_wait_s:,} s, established {established_s:,} s: a port of "
            "the NAT stays in use that long"
        ),
    ),
    Check.client_ports: _Words(
        title="client ports",
        evidence=_sentence(
            "{low}-{high}, of which connect() uses every other: fewer ports, more clients with the same one"
        ),
        advice="sudo sysctl -w net.ipv4.ip_local_port_range='32768 60999'",
    ),
    Check.accept_queue: _Words(
        title="accept queue",
        evidence=_sentence("somaxconn {somaxconn:,}; a server with a full one drops SYNs too"),
        advice="sudo sysctl -w net.core.somaxconn=4096",
    ),
    Check.open_files: _Words(title="open files", evidence=_open_files, advice="ulimit -n 65536"),
    Check.cpus: _Words(
        title="CPUs",
        evidence=_sentence(
            "{usable} usable here, {workers:worker}; the race needs two, and workers one each"
        ),
        advice="use fewer --workers, or a host or cpuset with more CPUs",
    ),
    Check.clock_source: _Words(
        title="clock source",
        evidence=_clock_source,
        advice="choose another of /sys/devices/system/clocksource/clocksource0/available_clocksource",
    ),
    Check.dns_clashes: _Words(
        title="DNS behind DNAT",
        evidence=_sentence(
            "rules send UDP port 53 to {servers:server}; before 5.6, one of two queries that a socket "
            "sends at once may be lost, and counts as the race does"
        ),
        advice=f"--random-fully does not help; {RESOLVED_BY}",
    ),
    Check.vxlan_checksum_offload: _Words(
        title="VXLAN checksum offload",
        evidence=_vxlan,
        advice="sudo ethtool -K {devices[0]} tx-checksum-ip-generic off",
    ),
}
