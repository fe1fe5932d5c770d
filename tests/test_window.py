"""The window on synthetic data with a known answer, and the forecast against a simulation."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snat_race.analysis.forecast import Traffic, forecast, lost_per_s
from snat_race.analysis.race_window import Sweep, exceeds_sweep, window_for_forecast
from snat_race.analysis.verdict import verdict_on
from snat_race.errors import UsageError
from snat_race.results.model import Tool
from snat_race.results.nat import EVERY_PORT
from snat_race.results.schema import LabResult, Window
from tests.conftest import fork_cli
from tests.results import BEGAN, HOST
from tests.test_analysis import variant

SWEEP_NS = 10_000


def swept(
    random: np.random.Generator,
    window_ns: float,
    *,
    skew_ns: float = 0,
    jitter_ns: float = 0,
    rounds: int = 20,
) -> Sweep:
    """Pairs of a NAT whose window is known: they collide if they arrive less than half of it apart."""
    sweep = Sweep(SWEEP_NS)
    for _ in range(rounds):
        offsets = random.integers(-SWEEP_NS, SWEEP_NS + 1, 400)
        arrivals = offsets + skew_ns + random.normal(0, jitter_ns, 400)
        sweep.add(offsets, np.abs(arrivals) < window_ns / 2)
    return sweep


@pytest.mark.parametrize(("skew_ns", "jitter_ns"), [(0, 0), (2500, 0), (0, 1500), (-2000, 1000)])
def test_neither_skew_nor_jitter_changes_the_window(skew_ns: float, jitter_ns: float) -> None:
    random, covered = np.random.default_rng(11), 0
    for _ in range(200):
        found = swept(random, 1300, skew_ns=skew_ns, jitter_ns=jitter_ns).window("masquerade", "warm", 0)
        assert found
        assert found.window_ns == pytest.approx(1300, rel=0.3)
        covered += found.window_ns_ci95[0] <= 1300 <= found.window_ns_ci95[1]
    assert covered >= 184  # 95 % of 200 are 190


def test_a_drifting_machine_widens_the_interval() -> None:
    random = np.random.default_rng(5)
    sweep = Sweep(SWEEP_NS)
    for window_ns in random.uniform(500, 4000, 20):
        offsets = random.integers(-SWEEP_NS, SWEEP_NS + 1, 400)
        sweep.add(offsets, np.abs(offsets) < window_ns / 2)
    drifting = sweep.window("masquerade", "warm", 0)
    steady = swept(random, 2250).window("masquerade", "warm", 0)
    assert drifting
    assert steady
    assert drifting.dispersion > 2
    low, high = drifting.window_ns_ci95
    assert high - low > 1.4 * (steady.window_ns_ci95[1] - steady.window_ns_ci95[0])


def test_the_curve_holds_every_pair_once() -> None:
    found = swept(np.random.default_rng(1), 3000, skew_ns=1000).window("masquerade", "cold", 0)
    assert found
    assert found.caches == "cold"
    assert sum(point.paired for point in found.curve) == found.paired == 8000
    assert sum(point.collisions for point in found.curve) == found.collisions
    assert found.curve[0].low_ns == -SWEEP_NS
    assert found.curve[-1].high_ns == SWEEP_NS
    inside = [point for point in found.curve if point.low_ns >= -2500 and point.high_ns <= 500]
    assert all(point.collisions == point.paired for point in inside)
    assert found.tail_rate == 0.0


def test_a_sweep_that_is_too_narrow_says_so() -> None:
    found = swept(np.random.default_rng(1), 3 * SWEEP_NS).window("masquerade", "warm", 0)
    assert found
    assert found.tail_rate == 1.0
    assert exceeds_sweep(found)
    wide_enough = swept(np.random.default_rng(1), 1300).window("masquerade", "warm", 0)
    assert wide_enough
    assert not exceeds_sweep(wide_enough)


def test_no_pairs_give_no_window() -> None:
    assert Sweep(SWEEP_NS).window("masquerade", "warm", 0) is None


def simulated_losses(
    random: np.random.Generator, window_ns: float, traffic: Traffic, ports: int, seconds: float
) -> int:
    """Draw every connect of every container, and count those that collide."""
    arrivals = [
        np.sort(random.uniform(0, seconds, random.poisson(traffic.rate_per_s * seconds)))
        for _ in range(traffic.containers)
    ]
    at = np.concatenate(arrivals)
    who = np.repeat(np.arange(traffic.containers), [len(each) for each in arrivals])
    order = np.argsort(at)
    at, who = at[order], who[order]
    port, to = random.integers(0, ports, len(at)), random.integers(0, traffic.destinations, len(at))
    cpu = random.integers(0, traffic.cpus, len(at)) if traffic.cpus else np.arange(len(at))
    lost = 0
    for ahead in range(1, 6):
        close = np.flatnonzero(at[ahead:] - at[:-ahead] < window_ns * 1e-9 / 2)
        other = close + ahead
        same = (port[close] == port[other]) & (to[close] == to[other])
        lost += int((same & (who[close] != who[other]) & (cpu[close] != cpu[other])).sum())
    return lost


@pytest.mark.parametrize(
    "traffic",
    [
        Traffic(containers=2, rate_per_s=20_000, ports=64),
        Traffic(containers=8, rate_per_s=3_000, ports=128),
        Traffic(containers=5, rate_per_s=8_000, destinations=3, ports=32),
        Traffic(containers=4, rate_per_s=8_000, ports=64, cpus=2),
    ],
)
def test_the_forecast_is_what_a_simulation_loses(traffic: Traffic) -> None:
    seconds, window_ns = 30.0, 20_000.0
    expected = seconds * lost_per_s(window_ns, traffic, traffic.same_ephemeral_port)
    observed = simulated_losses(np.random.default_rng(2), window_ns, traffic, traffic.ports // 2, seconds)
    assert expected > 200
    assert abs(observed - expected) < 5 * expected**0.5 + 0.05 * expected


@given(st.floats(1, 1e4), st.integers(2, 20), st.floats(0.1, 1e2), st.integers(20_000, 65535))
def test_forecasts_scale_as_the_formula_says(
    window_ns: float, containers: int, rate: float, ports: int
) -> None:
    """Where few are lost; where many are, see the next test."""
    one = forecast(
        window_ns,
        (window_ns / 2, window_ns * 2),
        Traffic(containers=containers, rate_per_s=rate, ports=ports),
    )
    twice = forecast(
        window_ns, (window_ns, window_ns), Traffic(containers=containers, rate_per_s=2 * rate, ports=ports)
    )
    assert twice.kept_ports == pytest.approx(4 * one.kept_ports, rel=1e-4)
    assert one.kept_ports_ci95 == pytest.approx((one.kept_ports / 2, one.kept_ports * 2), rel=1e-4)
    assert one.drawn_ports == pytest.approx(one.kept_ports * (ports // 2) / EVERY_PORT, rel=1e-4)


TRAFFIC = st.builds(
    Traffic,
    containers=st.integers(2, 1_000_000),
    rate_per_s=st.floats(1e-9, 1e9),
    ports=st.integers(1, 65535),
    destinations=st.integers(1, 1_000_000_000),
    cpus=st.integers(0, 1_000_000),
)


@given(st.floats(1e-3, 1e9), TRAFFIC)
def test_no_forecast_loses_more_than_is_sent(window_ns: float, traffic: Traffic) -> None:
    sent = 3600 * traffic.containers * traffic.rate_per_s * (1 + 1e-12)  # which is rounded otherwise
    expected = forecast(window_ns, (window_ns / 2, window_ns * 2), traffic)
    assert expected.kept_ports_ci95
    low, high = expected.kept_ports_ci95
    assert 0 <= low <= expected.kept_ports <= high <= sent
    assert 0 <= expected.drawn_ports <= sent
    crowd = replace(traffic, containers=traffic.containers + 1)
    assert forecast(window_ns, None, crowd).kept_ports >= expected.kept_ports


def test_a_window_that_was_given_has_no_interval() -> None:
    """Nobody measured one, so none is shown, in any form."""
    options = ("forecast", "--window-ns", "1300", "--containers", "2", "--rate-per-container", "50")
    event = json.loads(fork_cli(*options, "--json").stdout)
    assert event["spec"]["window_ns_ci95"] is None
    assert event["kept_ports_ci95"] is event["drawn_ports_ci95"] is None
    text = fork_cli(*options).stdout
    assert "interval" not in text
    assert "may be off is not known" in text


def lab(window: Window | None, drawn: int | None = None) -> LabResult:
    measured = variant("masquerade", lost=500, others=0, paired=1000, collisions=500, drawn=drawn)
    return LabResult(
        run_id="lab",
        tool=Tool(version="0"),
        started_at=BEGAN,
        elapsed_s=10.0,
        environment=HOST,
        spec={},
        interrupted=False,
        variants=[measured],
        verdict=verdict_on([measured]),
        window=window,
    )


def a_window(window_ns: float = 1300) -> Window | None:
    return swept(np.random.default_rng(1), window_ns).window("masquerade", "warm", 0)


def test_a_forecast_takes_the_window_of_a_rule_that_keeps_ports() -> None:
    assert window_for_forecast(lab(a_window())) == a_window()
    with pytest.raises(UsageError, match="no race window"):
        window_for_forecast(lab(None))
    with pytest.raises(UsageError, match="does not keep"):
        window_for_forecast(lab(a_window(), drawn=64512))
    with pytest.raises(UsageError, match="never collided"):
        window_for_forecast(lab(a_window(window_ns=0)))


def test_the_forecast_event_says_of_which_schema_it_is(tmp_path: Path) -> None:
    result = lab(a_window(3 * SWEEP_NS))
    assert result.window
    kept = tmp_path / "lab.json"
    kept.write_text(result.model_dump_json())
    asked = ("forecast", "--from", str(kept), "--containers", "40", "--rate-per-container", "500", "--json")
    done = fork_cli(*asked)
    assert "longer than was measured" in done.stderr
    event = json.loads(done.stdout)
    assert (event["event"], event["schema_version"]) == ("forecast", result.schema_version)
    assert event["spec"]["window_ns"] == result.window.window_ns
    assert event["kept_ports"] > event["drawn_ports"] > 0


def test_a_file_without_a_window_is_one_line_that_says_how_to_get_one(tmp_path: Path) -> None:
    kept = tmp_path / "lab.json"
    kept.write_text(lab(None).model_dump_json())
    done = fork_cli("forecast", "--from", str(kept), "--containers", "40", "--rate-per-container", "500")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "--from: " in done.stderr
    assert "lab --window --output" in done.stderr
