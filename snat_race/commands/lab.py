"""``lab``: experiments on this machine's kernel."""

import random
import sys
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from snat_race.commands import arguments, first, save
from snat_race.commands.thresholds import gathered, require
from snat_race.errors import Inconclusive, ThresholdExceeded, UsageError
from snat_race.kernel import host, nat
from snat_race.kernel.choices import Backend, Caches, Expect, Wiring
from snat_race.options import LabOptions, parse_cpus, parse_duration_s
from snat_race.output import require_writable

if TYPE_CHECKING:
    from snat_race.analysis.result import LabResult
    from snat_race.analysis.thresholds import Thresholds
    from snat_race.kernel.nat import Variant
    from snat_race.lab.scenario import Scenario

_SWEEPS, _SWEEPS_OF_ALL = 5, 2  # how much longer than a variant's own share the window takes


def _list_them(context: typer.Context, wanted: bool) -> None:
    from snat_race.lab.scenario import SCENARIOS
    from snat_race.report.lab import listing

    if wanted and not context.resilient_parsing:  # a shell that completes what follows wants no list
        print(listing(nat.VARIANTS.values(), SCENARIOS.values()))
        raise typer.Exit


ListThem = Annotated[
    bool,
    typer.Option(
        "--list", callback=_list_them, is_eager=True, help="Explain the variants and scenarios, and stop."
    ),
]


def lab(
    scenario: arguments.ScenarioName = "tcp-snat",
    variant: arguments.Variants = None,
    rule: arguments.Rules = None,
    nft: arguments.NftFiles = None,
    backend: arguments.LoadedBy = Backend.netlink,
    containers: arguments.Containers = None,
    workers: arguments.DialersEach = None,
    topology: arguments.WiredAs = Wiring.bridge,
    cpus: arguments.Cpus = None,
    duration: arguments.MeasureFor = "2s",
    interval_us: arguments.IntervalUs = None,
    timeout_ms: arguments.LabTimeoutMs = None,
    window: arguments.MeasureWindow = False,
    caches: arguments.HowWarm = Caches.warm,
    seed: arguments.Seed = None,
    expect: arguments.Expected = None,
    max_error_rate: arguments.MaxErrorRate = None,
    max_p99: arguments.MaxP99 = None,
    max_race_losses: arguments.MaxRaceLosses = None,
    ktap: arguments.Ktap = False,
    output: arguments.Output = None,
    json: arguments.Json = False,
    _list: ListThem = False,
) -> None:
    """Race the kernel on this machine, in private network namespaces, and show what cures it."""
    limits = gathered(max_error_rate, max_p99, max_race_losses)
    duration_s = parse_duration_s(duration, "--duration")
    staged, expected = _staged(scenario, expect, ktap=ktap)
    variants = nat.chosen(variant, rule, nft, staged.variants[: 1 if expected or window else None])
    clients, dialers, pinned, crowded = _hosts(staged, containers, workers, cpus)
    options = LabOptions(
        scenario, tuple(each.name for each in variants), clients, dialers, topology, backend, pinned,
        duration_s=duration_s, caches=caches, seed=first(seed, _any_seed()),
        window_s=duration_s * _sweeps(staged, variant, window, caches, clients, crowded),
        interval_us=first(interval_us, staged.interval_us), timeout_ms=first(timeout_ms, staged.timeout_ms),
    )  # fmt: skip
    result = _measured(options, staged, variants, output)
    _deliver(result, output, expected, limits, ktap=ktap, as_json=json)


def _staged(name: str, expect: Expect | None, *, ktap: bool) -> "tuple[Scenario, Expect | None]":
    """Return the scenario, and what is expected of its rules: with KTAP no race, unless told."""
    from snat_race.lab.scenario import scenario_named

    return scenario_named(name), Expect.no_race if ktap and not expect else expect


def _hosts(
    staged: "Scenario", containers: int | None, workers: int | None, cpus: str | None
) -> tuple[int, int, tuple[int, ...], bool]:
    """Return the containers, the dialers of each, the CPUs asked for, and whether dialers share one."""
    pinned, clients = _usable(cpus), first(containers, staged.containers)
    available = len(pinned or host.usable_cpus())
    dialers = first(workers, staged.workers, max(1, available // max(1, clients)))
    return clients, dialers, pinned, clients * dialers > available


def _sweeps(
    staged: "Scenario", variant: list[str] | None, window: bool, caches: Caches, clients: int, crowded: bool
) -> int:
    """Return for how many times a variant's share the window is to be swept; 'all' includes it.

    Raises:
        UsageError: it is asked for, or other caches are, where no two dialers can be moved apart.

    """
    if window or caches is not Caches.warm:
        _require_measurable(staged, "--window" if window else "--caches", crowded=crowded)
    if nat.ALL in (variant or ()) and staged.sweepable and clients == 2 and not crowded:
        return _SWEEPS_OF_ALL
    return _SWEEPS if window else 0


def _require_measurable(staged: "Scenario", option: str, *, crowded: bool) -> None:
    """Check that two dialers can be moved apart, each on a CPU of its own.

    Raises:
        UsageError: naming ``option``.

    """
    if not staged.sweepable:
        raise UsageError(f"{option}: {staged.name} has no two dialers to move apart; take tcp-snat")
    if crowded:
        raise UsageError(f"{option}: needs a CPU for each dialer; lower --containers or --workers")


def _measured(
    options: LabOptions, staged: "Scenario", variants: "tuple[Variant, ...]", output: Path | None
) -> "LabResult":
    from snat_race.kernel.firewall import require_binaries
    from snat_race.lab import experiment
    from snat_race.report.live import LabView
    from snat_race.report.panel import drawable

    require_binaries(variants, options.backend)
    if output:
        require_writable(output)
    with LabView(drawable(sys.stderr), options.scenario) as view:
        return experiment.run(options, staged, variants, view)


def _deliver(
    result: "LabResult",
    output: Path | None,
    expected: Expect | None,
    limits: "Thresholds",
    *,
    ktap: bool,
    as_json: bool,
) -> None:
    """Print the result and save it, either if the other cannot be written; then hold it against the
    limits, and against what was expected.
    """
    try:
        _print(result, expected, ktap=ktap, as_json=as_json)
    finally:
        save(result, output)
    require(
        limits, ((each.name, each.summary, each.diagnosis) for each in result.variants), as_json=as_json
    )
    if expected:
        _require(result, expected)


def _print(result: "LabResult", expected: Expect | None, *, ktap: bool, as_json: bool) -> None:
    from snat_race.report.ktap import ktap_report
    from snat_race.report.lab import lab_report

    text = ktap_report(result, expected) if ktap and expected else lab_report(result)
    print(text, file=sys.stderr if as_json else sys.stdout)
    if as_json:
        print(dumps({"event": "result"} | result.model_dump(mode="json")))


def _require(result: "LabResult", expected: Expect) -> None:
    """Compare every variant's outcome with what was expected of all."""
    from snat_race.analysis.verdict import as_expected

    judged = {each.name: as_expected(each.outcome, expected) for each in result.variants}
    contrary = [repr(name) for name, holds in judged.items() if holds is False]
    unknown = [repr(name) for name, holds in judged.items() if holds is None]
    unknown += [repr(each.name) for each in result.unavailable]
    if contrary:
        raise ThresholdExceeded(f"--expect {expected}: not so under {', '.join(contrary)}")
    if unknown:
        raise Inconclusive(f"--expect {expected}: this run cannot tell about {', '.join(unknown)}")


def _usable(text: str | None) -> tuple[int, ...]:
    """Return the CPUs asked for.

    Raises:
        UsageError: this process may not run on one of them.

    """
    asked, usable = parse_cpus(text, "--cpus") if text else (), host.usable_cpus()
    for cpu in asked:
        if cpu not in usable:
            raise UsageError(
                f"--cpus: this process may not run on CPU {cpu}; it may on {','.join(map(str, usable))}"
            )
    return asked


def _any_seed() -> int:
    return random.getrandbits(32)
