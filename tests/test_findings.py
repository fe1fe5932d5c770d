"""What doctor finds is data, which report/wording makes sentences of: no member of an enum lacks one."""

import json
import platform
from pathlib import Path

import pytest

from snat_race.analysis.host_checks import Host, checkup
from snat_race.cli.program import this_program
from snat_race.kernel import host
from snat_race.report.builders.doctor import document as document_of
from snat_race.report.renderers.text import text
from snat_race.report.wording import findings as wording
from snat_race.report.wording import owners as owner_wording
from snat_race.report.wording import snat_rules as rule_wording
from snat_race.report.wording.program import Program
from snat_race.results.findings import (
    ChainAddress,
    Check,
    DoctorResult,
    ExaminedRule,
    Finding,
    Level,
    NotExposed,
    RuleOwner,
    Unchangeable,
    Unreadable,
    UnreadableReason,
)
from snat_race.results.model import Tool
from snat_race.results.schema_v1 import upgraded
from snat_race.rules.owner_marks import MARKS
from snat_race.runs import doctor
from tests.conftest import NFT, PRIVATE, ROOT, fork_cli, in_sandbox
from tests.stage import FIRST, Stage

GOOD = Host(
    kernel=(6, 18, 44),
    sysctls={
        "net.ipv4.ip_local_port_range": "32768\t60999",
        "net.ipv4.tcp_syn_linear_timeouts": "4",
        "net.core.somaxconn": "4096",
        "net.netfilter.nf_conntrack_max": "262144",
        "net.netfilter.nf_conntrack_count": "12",
        "net.netfilter.nf_conntrack_buckets": "262144",
        "net.netfilter.nf_conntrack_tcp_timeout_close": "10",
        "net.netfilter.nf_conntrack_tcp_timeout_time_wait": "120",
        "net.netfilter.nf_conntrack_tcp_timeout_established": "432000",
    },
    usable_cpus=2,
    workers=0,
    open_files=(1024, -1),
    clock_source="tsc",
    checksumming_vxlans=("flannel.1",),
    clashes=(0, 0),
)
BAD = Host(
    kernel=(4, 19, 122),
    sysctls={
        "net.ipv4.ip_local_port_range": "32768\t32799",
        "net.core.somaxconn": "128",
        "net.netfilter.nf_conntrack_max": "1000",
        "net.netfilter.nf_conntrack_count": "801",
        "net.netfilter.nf_conntrack_buckets": "100",
    },
    usable_cpus=2,
    workers=3,
    open_files=(256, 1023),
    clock_source="hpet",
    checksumming_vxlans=("flannel.1", "vxlan.calico"),
    of_vendor=True,
    dns_servers=2,
    clashes=(12, 15),
)
RULE = ExaminedRule(
    address=ChainAddress(tool="nft", family="inet", table="t", chain="post"),
    text="masquerade to :1024-2000",
    owner=RuleOwner.unknown,
    ports=(1024, 2000),
    client_ports=(32768, 60999),
)


def result_of(*findings: Finding, root: bool = True, netns: str = "web") -> DoctorResult:
    return DoctorResult(
        run_id="1",
        tool=Tool(version="0"),
        started_at="2026-01-01T00:00:00Z",
        elapsed_s=0.1,
        environment={"root": root},
        spec={"netns": netns, "workers": 0},
        sysctls={},
        findings=list(findings),
    )


def words_of(finding: Finding, *, root: bool = True, netns: str = "web") -> wording.FindingWords:
    return wording.worded(result_of(finding, root=root, netns=netns), finding, Program())


def test_a_good_host_has_nothing_to_do_and_a_bad_one_has_an_advice_for_each() -> None:
    good = list(checkup(GOOD))
    assert {finding.level for finding in good} == {Level.ok}
    assert not any(words_of(finding).advice for finding in good)
    bad = {finding.check: finding for finding in checkup(BAD)}
    neutral = {Check.syn_retransmission, Check.conntrack_timeouts}
    assert {check for check, finding in bad.items() if finding.level == Level.ok} == neutral
    for check, finding in bad.items():
        words = words_of(finding)
        assert words.title
        assert words.evidence
        assert bool(words.advice) == (check not in neutral)
        assert "{" not in words.evidence + words.advice
    assert bad[Check.conntrack_table].values == {"entries": 801, "max": 1000, "advised_max": 2000}
    assert words_of(bad[Check.conntrack_table]).advice.endswith("nf_conntrack_max=2000")
    assert "ethtool -K flannel.1 " in words_of(bad[Check.vxlan_checksum_offload]).advice


def test_an_advice_can_be_pasted_whatever_a_device_is_called() -> None:
    finding = Finding(
        level=Level.warning,
        check=Check.vxlan_checksum_offload,
        values={"devices": ["a;reboot"], "of_vendor": 0},
    )
    assert words_of(finding).advice == "sudo ethtool -K 'a;reboot' tx-checksum-ip-generic off"


@pytest.mark.parametrize(
    ("kernel", "mended"),
    [
        ((4, 14, 180), False),
        ((4, 14, 181), True),
        ((4, 19, 122), False),
        ((4, 19, 123), True),
        ((5, 4, 40), False),
        ((5, 4, 41), True),
        ((5, 5, 99), False),
        ((5, 6, 13), True),
        ((6, 1, 0), True),
    ],
)
def test_which_kernels_send_wrong_checksums(kernel: tuple[int, ...], mended: bool) -> None:
    fields = {name: getattr(BAD, name) for name in Host.__dataclass_fields__} | {"kernel": kernel}
    (finding,) = [
        finding for finding in checkup(Host(**fields)) if finding.check == Check.vxlan_checksum_offload
    ]
    assert (finding.level == Level.ok) == mended
    assert ("may have the fix" in words_of(finding).evidence) != mended


@pytest.mark.parametrize(
    ("kernel", "says", "says_not"),
    [
        ((6, 18, 44), ["is as good as"], ["before"]),
        ((5, 4, 280), ["is as good as", "before 5.10"], ["before 5.0", "before 4.7"]),
        ((4, 19, 316), ["before 5.0", "before 5.10"], ["before 4.7"]),
        ((3, 10, 0), ["before 5.0", "before 4.7", "'watch' cannot tell"], []),
    ],
)
def test_what_is_different_on_a_kernel(
    kernel: tuple[int, ...], says: list[str], says_not: list[str]
) -> None:
    fields = {name: getattr(GOOD, name) for name in Host.__dataclass_fields__} | {"kernel": kernel}
    (finding,) = [finding for finding in checkup(Host(**fields)) if finding.check == Check.kernel]
    evidence = words_of(finding).evidence
    assert all(words in evidence for words in says)
    assert not any(words in evidence for words in says_not)


@pytest.mark.parametrize(
    ("release", "built", "signature", "version"),
    [
        ("6.18.44-fc-v782", "#1 SMP PREEMPT_DYNAMIC @0", "", (6, 18, 44)),
        ("6.1.0-50-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.176-1 (2026-01-01)", "", (6, 1, 176)),
        ("4.19.0-27-amd64", "#1 SMP Debian 4.19.316-1 (2024-06-25)", "", (4, 19, 316)),
        ("5.15.0-105-generic", "#115-Ubuntu SMP", "Ubuntu 5.15.0-105.115-generic 5.15.148\n", (5, 15, 148)),
        # A container's /proc may be of another kernel's files; the release decides.
        ("3.10.0-1160.el7.x86_64", "#1 SMP", "Ubuntu 5.15.0-105.115-generic 5.15.148\n", (3, 10, 0)),
        ("6.6", "", "", (6, 6)),
        ("unknown", "", "", ()),
    ],
)
def test_a_vendors_release_is_not_its_version(
    release: str, built: str, signature: str, version: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "release", lambda: release)
    monkeypatch.setattr(platform, "version", lambda: built)
    monkeypatch.setattr(host, "proc_text", lambda _: signature)
    assert host.kernel_version() == version


def test_every_check_is_made_and_worded() -> None:
    without_conntrack = Host(
        **{name: getattr(GOOD, name) for name in Host.__dataclass_fields__}
        | {"sysctls": {"net.ipv4.ip_local_port_range": "1 2"}}
    )
    made = {finding.check for facts in (GOOD, BAD, without_conntrack) for finding in checkup(facts)}
    of_rules = {Check.snat_rule, Check.rules, Check.namespace, Check.ipsets}
    assert made | of_rules | {Check.other} == set(Check)
    values = {"name": "web", "device": "eth0"}
    words = words_of(Finding(level=Level.unknown, check=Check.namespace, values=values))
    assert "web has one device, eth0, so it is a container's" in words.evidence
    assert "'snat-race doctor'" in words.advice


@pytest.mark.parametrize("reason", NotExposed)
def test_every_reason_why_a_rule_is_not_exposed_has_a_sentence(reason: NotExposed) -> None:
    rule = RULE.model_copy(update={"not_exposed": reason})
    words = words_of(Finding(level=Level.ok, check=Check.snat_rule, rule=rule))
    assert words.title == "nft inet t post"
    assert words.evidence.startswith("masquerade to :1024-2000: ")
    assert rule_wording.why_not_exposed(rule) in words.evidence
    assert words.advice == ""


@pytest.mark.parametrize("reason", Unchangeable)
def test_every_reason_why_a_rule_is_left_has_a_sentence(reason: Unchangeable) -> None:
    rule = RULE.model_copy(update={"unchangeable": reason})
    words = words_of(Finding(level=Level.exposed, check=Check.snat_rule, rule=rule))
    assert words.advice.startswith(f"{rule_wording.why_unchangeable(reason)}: ")
    assert rule_wording.why_unchangeable(reason) in rule_wording.unchanged(rule)


@pytest.mark.parametrize("reason", UnreadableReason)
def test_every_reason_why_rules_cannot_be_read_has_a_sentence(reason: UnreadableReason) -> None:
    unreadable = Unreadable(reason=reason, tool="nft", details=("this", "that"))
    finding = Finding(level=Level.unknown, check=Check.rules, unreadable=(unreadable,))
    words = words_of(finding, root=False)
    assert words.evidence == rule_wording.why_unreadable(unreadable)
    assert "{" not in words.evidence
    assert words.advice == "try 'sudo snat-race doctor --netns web'"
    assert "sudo" not in words_of(finding).advice


@pytest.mark.parametrize("owner", RuleOwner)
def test_every_owner_has_marks_and_a_documented_setting(owner: RuleOwner) -> None:
    assert (owner in MARKS) == (owner != RuleOwner.unknown)
    known = owner != RuleOwner.unknown
    assert owner_wording.writes_again(owner).startswith(f"{owner} writes its rule again: ") == known
    assert owner_wording.writes_again(owner).endswith(owner_wording.setting(owner))


@pytest.mark.parametrize(("netns", "option"), [("this namespace", ""), ("my web", "--netns 'my web' ")])
def test_the_advice_can_be_pasted(netns: str, option: str) -> None:
    finding = Finding(level=Level.exposed, check=Check.snat_rule, rule=RULE)
    program = Program(words=("/opt/a venv/bin/snat-race",))
    words = wording.worded(result_of(finding, netns=netns), finding, program)
    assert words.advice.startswith(f"'/opt/a venv/bin/snat-race' mitigate {option}--apply; for good: ")


def test_this_program_is_named_by_its_full_path() -> None:
    """sudo does not look into the folder of a virtual environment."""
    (program, *_) = this_program().words
    assert Path(program).is_absolute()
    assert Path(program).exists()


def test_findings_go_through_json_and_nothing_is_a_sentence_there() -> None:
    rule = Finding(level=Level.exposed, check=Check.snat_rule, rule=RULE)
    result = result_of(*checkup(BAD), rule)
    document = result.model_dump_json()
    assert DoctorResult.model_validate_json(document) == result
    assert not {"evidence", "advice"} & {key for each in json.loads(document)["findings"] for key in each}


def test_findings_of_schema_version_1_are_shown_in_their_own_words(tmp_path: Path) -> None:
    finding = {
        "level": "exposed",
        "check": "iptables-nft nat POSTROUTING",
        "evidence": "-A POSTROUTING -j MASQUERADE (by Docker) keeps the clients' ports: its SYNs can race",
        "advice": "python -m snat_race mitigate --apply; for good: Docker has no setting",
    }
    document = json.loads(result_of().model_dump_json()) | {"schema_version": 1, "findings": [finding]}
    shown = text(document_of(DoctorResult.model_validate(upgraded(document)), Program()))
    assert "\nEXPOSED  iptables" in shown
    assert "\n    to do: " in shown
    for words in (finding["check"], finding["evidence"], finding["advice"]):
        assert words in " ".join(shown.split())
    file = tmp_path / "doctor.json"
    file.write_text(json.dumps(document))
    reported = fork_cli("report", str(file))
    assert (reported.returncode, finding["evidence"] in " ".join(reported.stdout.split())) == (0, True)


def test_lower_floors_speak_no_options_of_ours() -> None:
    files = [*(ROOT / "snat_race" / "rules").glob("*.py")]
    files += [
        ROOT / "snat_race" / "runs" / f"{name}.py" for name in ("doctor", "mitigate", "nat_properties")
    ]
    files += [ROOT / "snat_race" / "analysis" / "host_checks.py"]
    for file in files:
        text = file.read_text()
        for option in ("--revert", "--netns", "--apply", "--dump", "--workers", "print("):
            assert option not in text, (file, option)


@PRIVATE
@NFT
def test_what_was_lost_so_far_is_said() -> None:
    """One port for two clients: the second clashes."""

    def counted() -> list[Finding]:
        stage = Stage(f"masquerade to-ports {FIRST}-{FIRST}")
        before = doctor.examine(stage.source, 0)
        assert stage.hold([FIRST, FIRST + 1], timeout_ms=100) == 1
        results = (before, doctor.examine(stage.source, 0))
        return [each for result in results for each in result.findings if each.check == Check.clashes]

    before, after = in_sandbox(counted)
    assert (before.level, before.values) == (Level.ok, {"insert_failed": 0, "drop": 0})
    assert after.level == Level.warning
    assert after.values["insert_failed"] == after.values["drop"] >= 1
