"""Every variant, scenario, topology and backend, for real: its verdict and its counters."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from snat_race.errors import EnvironmentLacks, Unavailable, UsageError
from snat_race.kernel.netns import Namespace
from snat_race.lab import testbed as testbeds
from snat_race.lab import variant_rules, variants
from snat_race.lab.scenarios import SCENARIOS, scenario_named
from snat_race.lab.settings import Backend, Caches, LabSettings, Wiring
from snat_race.lab.topology import IPV4, IPV6, Network, Topology, build
from snat_race.lab.variant_loader import VariantLoader
from snat_race.load.schedule import Schedule
from snat_race.runs.signals import StopSignals
from tests.conftest import (
    IPTABLES,
    NFT,
    PRIVATE,
    TWO_CPUS,
    assert_all_clashed,
    fork_cli,
    in_sandbox,
    lab,
    without_a_trace,
)
from tests.results import verdict_of

OPTIONS = LabSettings(
    scenario="tcp-snat",
    variants=("masquerade",),
    containers=2,
    workers=2,
    topology=Wiring.bridge,
    backend=Backend.netlink,
    cpus=(),
    duration_s=1,
    interval_us=1000,
    timeout_ms=4,
    window_s=0,
    caches=Caches.warm,
    seed=1,
)
RACING = {"masquerade", "masquerade persistent", "snat to-source"}
CAUSES = {
    "exhaustion": "nat_ports_exhausted",
    "backlog": "accept_queue_full",
    "time-wait": "time_wait_reuse",
}
CONTROLS = {"no nat", "notrack"}


PAIRS = 100  # of each rule: without a loss, fewer prove nothing
DIALS = 300  # where they do not meet: more than any queue or range of ports there
MORE_PAIRS = 200  # where losses of the race are counted


def measured(*args: str, first_s: float = 0.5, fewest: int = PAIRS, code: int = 0) -> dict[str, Any]:
    """The result of a lab; see lab()."""
    return lab(*args, first_s=first_s, fewest=fewest, code=code).result


def causes(variant: dict[str, Any]) -> set[str]:
    return {cause["cause"] for cause in variant["diagnosis"]}


def race_lost(variant: dict[str, Any]) -> int:
    return sum(cause["losses"] for cause in variant["diagnosis"] if cause["cause"] == "snat_race")


@TWO_CPUS
def test_every_variant_has_its_verdict(every_variant: Path) -> None:
    result = json.loads(every_variant.read_text())
    by_name = {variant["name"]: variant for variant in result["variants"]}
    assert set(by_name) == set(variants.VARIANTS)
    assert result["unavailable"] == []
    for name, variant in by_name.items():
        summary, source = variant["summary"], variant["kernel"]["source"]
        lost = sum(source["insert_failed"])
        assert lost - summary["cut_short"] <= race_lost(variant) <= lost, name
        assert_all_clashed(summary["failed"], lost, sum(source["drop"]), cut_short=summary["cut_short"])
        assert causes(variant) <= {"snat_race", "unexplained"}, name
        assert 0 <= variant["accepted"] - summary["connected"] <= 2, name
        assert variant["collision_rate_ci95"][0] <= summary["collisions"] / summary["paired"]
        if name in RACING:
            assert variant["outcome"] == "reproduced", name
            assert summary["failed"] >= 5, name
        elif name in CONTROLS:
            assert (variant["outcome"], lost) == ("not_seen", 0), name
        elif name != "snat to-pool":  # there it depends on the addresses that the clients hash to
            assert variant["outcome"] == "not_seen", name
    window = result["window"]
    low, high = window["window_ns_ci95"]
    assert 100 < low < window["window_ns"] < high < 20_000
    assert sum(point["paired"] for point in window["curve"]) == window["paired"]


@PRIVATE
@TWO_CPUS
@pytest.mark.parametrize("scenario", ["udp-snat", "ipv6"])
def test_other_protocols_race_alike(scenario: str) -> None:
    racing, cured = measured("--scenario", scenario, fewest=MORE_PAIRS)["variants"]
    for variant in (racing, cured):
        assert sum(cause["losses"] for cause in variant["diagnosis"]) == variant["summary"]["failed"]
        clashes = sum(variant["kernel"]["source"]["insert_failed"])
        cut_short = variant["summary"]["cut_short"]
        late = sum(each["losses"] for each in variant["diagnosis"] if each["cause"] == "answered_too_late")
        assert_all_clashed(variant["summary"]["failed"] - late, clashes, cut_short=cut_short)
        # Nobody knows whether what a stop cut short was answered, and another was answered too late.
        assert clashes - cut_short <= race_lost(variant) <= clashes
    assert race_lost(racing) >= 5
    assert (racing["outcome"], cured["outcome"]) == ("reproduced", "not_seen")


@PRIVATE
@TWO_CPUS
def test_two_queries_of_one_socket_clash_and_both_arrive() -> None:
    # Nothing is lost, so nothing waits for so long: what is late only, on a busy machine, is no loss.
    result = measured("--scenario", "dns", "--timeout-ms", "100", fewest=MORE_PAIRS)
    assert [variant["name"] for variant in result["variants"]] == list(SCENARIOS["dns"].variants)
    for variant in result["variants"]:
        assert race_lost(variant) == 0
        assert sum(variant["kernel"]["source"]["clash_resolve"]) > 20
        assert variant["summary"]["failed"] <= variant["summary"]["attempted"] / 100
        assert variant["outcome"] == "not_seen"


@PRIVATE
@pytest.mark.parametrize("scenario", CAUSES)
def test_other_causes_are_named_and_never_called_the_race(scenario: str) -> None:
    args = ["--scenario", scenario, "--expect", "race"]
    result = measured(*args, first_s=0.8, fewest=DIALS, code=4)
    (variant,) = result["variants"]
    summary = variant["summary"]
    named = sum(each["losses"] for each in variant["diagnosis"] if each["cause"] == CAUSES[scenario])
    assert summary["failed"] >= 20
    assert named >= 0.95 * summary["failed"]
    assert summary["paired"] is None
    assert result["verdict"]["outcome"] == "inconclusive"
    assert verdict_of(result).startswith("not the race")


@PRIVATE
@TWO_CPUS
@pytest.mark.parametrize("topology", ["routed", "macvlan", "ipvlan"])
def test_every_topology_races(topology: str) -> None:
    try:
        in_sandbox(lambda: build(2, Wiring(topology)) and None)
    except EnvironmentLacks as refused:
        pytest.skip(str(refused))
    racing, cured = measured("--topology", topology)["variants"]
    assert (racing["outcome"], cured["outcome"]) == ("reproduced", "not_seen")
    assert_all_clashed(racing["summary"]["failed"], race_lost(racing))


def test_a_topology_that_the_kernel_lacks_is_an_answer_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from snat_race.lab import topology

    def refused() -> str:
        monkeypatch.setitem(
            topology._WIRINGS, Wiring.ipvlan, topology._wire_sharing("snat_race_no_such_kind")
        )
        with pytest.raises(EnvironmentLacks, match="modprobe -a veth ipvlan"):
            build(2, Wiring.ipvlan)
        return "refused"

    assert in_sandbox(refused) == "refused"


@PRIVATE
@TWO_CPUS
@pytest.mark.parametrize("backend", ["nft", "iptables", "iptables-legacy"])
def test_a_rule_races_whoever_loads_it(backend: str) -> None:
    if not shutil.which(backend, path="/usr/sbin:/sbin:/usr/bin"):
        pytest.skip(f"there is no {backend}")
    racing, cured = measured("--backend", backend)["variants"]
    assert (racing["outcome"], cured["outcome"]) == ("reproduced", "not_seen")


@IPTABLES
@NFT
@PRIVATE
@TWO_CPUS
def test_rules_of_ones_own_are_measured_beside_ours(tmp_path: Path) -> None:
    script = tmp_path / "mine.nft"
    script.write_text(
        "table ip mine {\n chain c {\n type nat hook postrouting priority 100;\n"
        ' oifname "eth0" masquerade fully-random\n }\n}\n'
    )
    mine = "iptables -t nat -A POSTROUTING -s 172.17.0.0/16 -o eth0 -j MASQUERADE"
    racing, cured = measured("--rule", mine, "--nft", str(script))["variants"]
    assert (racing["name"], racing["rule"], racing["outcome"]) == (mine, mine, "reproduced")
    assert (cured["name"], cured["rule"]) == (f"nft -f {script}", script.read_text())
    assert cured["outcome"] == "not_seen"
    assert cured["drawn_ports"] == 64512
    assert racing["translated"] is cured["translated"] is True


@IPTABLES
@PRIVATE
def test_a_rule_that_matches_nothing_is_no_all_clear() -> None:
    elsewhere = "iptables -t nat -A POSTROUTING -s 172.17.0.0/16 -o ens3 -j MASQUERADE"
    result = measured("--rule", elsewhere, "--expect", "no-race", code=4)
    assert result["verdict"]["outcome"] == "inconclusive"
    assert result["verdict"]["reason"] == "nothing_translated"
    assert "translated no connection" in verdict_of(result)
    assert "eth0" in verdict_of(result)


@PRIVATE
@TWO_CPUS
def test_a_range_of_ports_that_holds_the_clients_port_races() -> None:
    args = ["--variant", "masquerade to-ports 20000-59999", "--expect", "race"]
    (variant,) = measured(*args)["variants"]
    assert variant["drawn_ports"] is None
    assert_all_clashed(variant["summary"]["failed"], race_lost(variant))


@IPTABLES
@PRIVATE
def test_a_refused_rule_is_told_in_the_tools_own_words() -> None:
    refused = "iptables -t nat -A POSTROUTING -j NO_SUCH_TARGET"
    done = without_a_trace(lambda: fork_cli("lab", "--rule", refused))
    assert done.returncode == 2
    assert done.stderr.startswith("snat_race: iptables refused the rule: ")
    assert "NO_SUCH_TARGET" in done.stderr
    assert done.stderr.count("\n") == 1


@IPTABLES
@PRIVATE
@TWO_CPUS
def test_a_variant_that_cannot_be_said_is_unavailable_and_the_others_run() -> None:
    chosen = ["--variant", "masquerade", "--variant", "masquerade persistent"]
    result = measured("--backend", "iptables", *chosen, first_s=0.1, fewest=0)
    assert [variant["name"] for variant in result["variants"]] == ["masquerade"]
    (missing,) = result["unavailable"]
    assert missing["name"] == "masquerade persistent"
    assert "no --persistent" in missing["reason"]
    alone = fork_cli("lab", "--backend", "iptables", "--variant", "masquerade persistent")
    assert alone.returncode == 4
    assert "no --persistent" in alone.stderr


@NFT
@pytest.mark.parametrize("network", [IPV4, IPV6], ids=["IPv4", "IPv6"])
def test_netlink_loads_what_nft_says(network: Network) -> None:
    """nft prints the same ruleset, whether netlink or nft itself loaded it."""

    def shown() -> dict[str, list[str]]:
        source = build(1, network=network).source
        listed: dict[str, list[str]] = {name: [] for name in variants.VARIANTS}
        for backend in (Backend.netlink, Backend.nft):
            loader = VariantLoader(source, network, "tcp", backend)
            for variant in variants.VARIANTS.values():
                loader.load(variant)
                listed[variant.name].append(loader._execute(["nft", "list", "ruleset"]).stdout)
        return listed

    for name, (ours, theirs) in in_sandbox(shown).items():
        if name == "no nat":  # one line each, to have conntrack at work
            continue
        # nft writes a single address as a range of one when netlink gave both ends.
        ranges = ours.replace("/128", "").replace("/32", "")
        assert ranges == theirs.replace("meta l4proto tcp ", ""), name
        assert variant_rules.nft_statement(variants.VARIANTS[name], network) in ranges


@PRIVATE
@TWO_CPUS
def test_expectations_are_answered_by_the_exit_code() -> None:
    args = ["--expect", "race", "--variant", "masquerade fully-random"]
    contrary = lab(*args, first_s=0.5, fewest=PAIRS, code=3).done
    assert "not so under 'masquerade fully-random'" in contrary.stderr
    cured = ["--variant", "masquerade fully-random", "--variant", "notrack"]
    measured("--expect", "no-race", *cured)
    few = fork_cli(
        "lab",
        "--duration",
        "100ms",
        "--interval-us",
        "10000",
        "--expect",
        "no-race",
        "--variant",
        "notrack",
    )
    assert few.returncode == 4
    assert "cannot tell" in few.stderr


@PRIVATE
@TWO_CPUS
def test_ktap_has_a_test_point_for_each_rule() -> None:
    chosen = ["--variant", "masquerade", "--variant", "notrack"]
    done = lab("--ktap", *chosen, first_s=0.5, fewest=PAIRS, code=3).done
    lines = [line for line in done.stdout.splitlines() if not line.startswith("#")]
    assert lines == ["KTAP version 1", "1..2", "not ok 1 masquerade", "ok 2 notrack"]


@PRIVATE
@TWO_CPUS
def test_sixteen_containers_on_few_cpus_are_told_to_be_crowded() -> None:
    args = ["--containers", "16", "--workers", "1", "--variant", "masquerade"]
    done, result = lab(*args, first_s=1, fewest=PAIRS)
    (variant,) = result["variants"]
    assert variant["outcome"] == "reproduced"
    assert (
        race_lost(variant)
        == variant["summary"]["failed"]
        == sum(variant["kernel"]["source"]["insert_failed"])
    )
    assert "warning: 16 workers share" in done.stdout


def test_a_seed_repeats_ports_and_offsets() -> None:
    def schedules(seed: int) -> list[Schedule | None]:
        testbed = testbeds.Testbed(replace(OPTIONS, seed=seed), SCENARIOS["tcp-snat"], StopSignals())
        nowhere = Namespace("none", -1)
        testbed.topology = Topology(
            network=IPV4, source=nowhere, destination=nowhere, containers=[nowhere] * 2
        )
        return [placement.config.schedule for placement in testbed._placements()]

    one, again, other = schedules(7), schedules(7), schedules(8)
    assert one == again != other
    assert all(schedule and schedule.by_round for schedule in one)


@PRIVATE
def test_cpus_are_those_asked_for() -> None:
    result = measured("--cpus", "0", "--variant", "notrack", first_s=0.1, fewest=0)
    assert result["spec"]["cpus"] == [0]
    assert result["verdict"]["outcome"] == "inconclusive"
    refused = fork_cli("lab", "--cpus", "0,4095")
    assert refused.returncode == 2
    assert "may not run on CPU 4095" in refused.stderr


@TWO_CPUS
def test_the_forecast_reads_the_window_of_a_lab(every_variant: Path) -> None:
    asked = ["--containers", "40", "--rate-per-container", "500"]
    done = fork_cli("forecast", "--from", str(every_variant), *asked, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    window = json.loads(every_variant.read_text())["window"]
    assert found["spec"]["window_ns"] == window["window_ns"]
    assert found["kept_ports"] > found["drawn_ports"] > 0
    assert "SYNs lost an hour" in fork_cli("forecast", "--window-ns", "1300", *asked).stdout


def test_forecasts_that_cannot_be_made_say_why(tmp_path: Path) -> None:
    asked = ["--containers", "40", "--rate-per-container", "500"]
    foreign = tmp_path / "foreign.json"
    foreign.write_text('{"kind": "other"}')
    for args, said in (
        ([], "--from"),
        (["--from", str(foreign)], "holds no result"),
        (["--from", str(tmp_path)], "cannot be read"),
        (["--from", str(tmp_path / "absent")], "cannot be read"),
        (["--window-ns", "-5"], "--window-ns"),
        (["--window-ns", "5", "--ports", "0"], "--ports"),
    ):
        done = fork_cli("forecast", *args, *asked)
        assert done.returncode == 2, args
        assert said in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("scenario", ["dns", "exhaustion"])
def test_a_window_needs_two_dialers_that_meet(scenario: str) -> None:
    done = fork_cli("lab", "--window", "--scenario", scenario)
    assert done.returncode == 2
    assert "no two dialers" in done.stderr


@PRIVATE
def test_a_service_address_cannot_go_untracked() -> None:
    chosen = ["--variant", "no nat", "--variant", "notrack"]
    result = measured("--scenario", "dns", *chosen, first_s=0.1, fewest=0)
    assert [missing["name"] for missing in result["unavailable"]] == ["notrack"]


def test_unknown_names_get_the_nearest_ones() -> None:
    with pytest.raises(UsageError, match="did you mean 'masquerade'"):
        variants.variants_named(["masqerade"])
    with pytest.raises(UsageError, match="once"):
        variants.require_distinct(variants.variants_named(["masquerade", "masquerade"]))
    with pytest.raises(UsageError, match="did you mean 'udp-snat'"):
        scenario_named("upd-snat")
    with pytest.raises(UsageError, match="rise"):
        variants.variants_named(["masquerade to-ports 2000-1000"])
    with pytest.raises(UsageError, match="no command"):
        variants.variant_of_command("rm -rf /")
    with pytest.raises(UsageError, match="cannot read"):
        variants.variant_of_file(Path("/no/such/file"))


def test_variants_know_what_they_draw_from() -> None:
    ports = variants.variant_named("masquerade to-ports 30000-30999")
    mine = variants.variant_of_command("iptables -t nat -A POSTROUTING -j MASQUERADE --random-fully")
    plain = variants.variant_of_command("iptables -t nat -A POSTROUTING -j MASQUERADE")
    inside = variants.variant_named("masquerade to-ports 20000-59999")
    lab_ports = SCENARIOS["tcp-snat"].source_ports
    drawn = [each.drawn_ports((10_000, 29_999)) for each in (ports, mine, plain)]
    assert drawn == [1000, 64512, None]
    assert inside.drawn_ports(lab_ports) is None
    assert variants.VARIANTS["snat to-source fully-random"].drawn_ports(lab_ports) == 64512
    assert [name for name in RACING if variants.VARIANTS[name].drawn_ports(lab_ports)] == []


def test_iptables_cannot_say_everything() -> None:
    with pytest.raises(Unavailable, match="persistent"):
        variant_rules.iptables_arguments(variants.VARIANTS["masquerade persistent"], IPV4, "tcp")
    said = variant_rules.iptables_arguments(variants.VARIANTS["snat to-source fully-random"], IPV6, "tcp")
    assert said[-4:] == ["SNAT", "--to-source", "fd00:18::136", "--random-fully"]


def test_list_explains_everything() -> None:
    done = fork_cli("lab", "--list")
    assert done.returncode == 0
    for name in (*variants.VARIANTS, *SCENARIOS):
        assert f"\n{name} " in done.stdout
