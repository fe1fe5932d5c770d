"""``lab``: experiments on this machine's kernel."""

import random
import sys
from collections.abc import Sequence
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from snat_race.cli import parameters
from snat_race.cli.limits import gathered, require
from snat_race.cli.parsing import first, naming, parse_cpus, parse_duration_s
from snat_race.cli.result_writer import require_writable, save
from snat_race.errors import Inconclusive, ThresholdExceeded, UsageError
from snat_race.kernel import host
from snat_race.lab import variants
from snat_race.lab.settings import Backend, Caches, Expect, LabSettings, Wiring

if TYPE_CHECKING:
    from snat_race.analysis.thresholds import Thresholds
    from snat_race.lab.scenarios import Scenario
    from snat_race.lab.variants import Variant
    from snat_race.results.schema import LabResult

_SWEEPS, _SWEEPS_OF_ALL = 5, 2  # how much longer than a variant's own share the window takes


def _list_them(context: typer.Context, wanted: bool) -> None:
    from snat_race.lab.scenarios import SCENARIOS
    from snat_race.report.builders.lab import listing

    if wanted and not context.resilient_parsing:  # a shell that completes what follows wants no list
        print(listing(variants.VARIANTS.values(), SCENARIOS.values()))
        raise typer.Exit


ListThem = Annotated[
    bool,
    typer.Option(
        "--list", callback=_list_them, is_eager=True, help="Explain the variants and scenarios, and stop."
    ),
]


def lab(
    scenario: parameters.ScenarioName = "tcp-snat",
    variant: parameters.Variants = None,
    rule: parameters.Rules = None,
    nft: parameters.NftFiles = None,
    backend: parameters.LoadedBy = Backend.netlink,
    containers: parameters.Containers = None,
    workers: parameters.DialersEach = None,
    topology: parameters.WiredAs = Wiring.bridge,
    cpus: parameters.Cpus = None,
    duration: parameters.MeasureFor = "2s",
    interval_us: parameters.IntervalUs = None,
    timeout_ms: parameters.LabTimeoutMs = None,
    window: parameters.MeasureWindow = False,
    caches: parameters.HowWarm = Caches.warm,
    seed: parameters.Seed = None,
    expect: parameters.Expected = None,
    max_error_rate: parameters.MaxErrorRate = None,
    max_p99: parameters.MaxP99 = None,
    max_race_losses: parameters.MaxRaceLosses = None,
    ktap: parameters.Ktap = False,
    output: parameters.Output = None,
    json: parameters.Json = False,
    _list: ListThem = False,
) -> None:
    """Race the kernel on this machine, in private network namespaces, and show what cures it."""
    limits = gathered(max_error_rate, max_p99, max_race_losses)
    duration_s = parse_duration_s(duration, "--duration")
    staged, expected = _staged(scenario, expect, ktap=ktap)
    chosen = _chosen(variant, rule, nft, staged.variants[: 1 if expected or window else None])
    clients, dialers, pinned, crowded = _hosts(staged, containers, workers, cpus)
    options = LabSettings(
        scenario, tuple(each.name for each in chosen), clients, dialers, topology, backend, pinned,
        duration_s=duration_s, caches=caches, seed=first(seed, _any_seed()),
        window_s=duration_s * _sweeps(staged, variant, window, caches, clients, crowded),
        interval_us=first(interval_us, staged.interval_us), timeout_ms=first(timeout_ms, staged.timeout_ms),
    )  # fmt: skip
    result = _measured(options, staged, chosen, output)
    _deliver(result, output, expected, limits, ktap=ktap, as_json=json)


def _staged(name: str, expect: Expect | None, *, ktap: bool) -> "tuple[Scenario, Expect | None]":
    """Return the scenario, and what is expected of its rules: with KTAP no race, unless told."""
    from snat_race.lab.scenarios import scenario_named

    with naming("--scenario"):
        staged = scenario_named(name)
    return staged, Expect.no_race if ktap and not expect else expect


def _chosen(
    names: list[str] | None, commands: list[str] | None, files: list[Path] | None, default: Sequence[str]
) -> "list[Variant]":
    """Return the variants asked for by name, then the user's own rules, then files for nft.

    Raises:
        UsageError: one cannot be read, or is there twice.

    """
    if not (names or commands or files):
        names = list(default)
    with naming("--variant"):
        chosen = variants.variants_named(names or ())
    with naming("--rule"):
        chosen += [variants.variant_of_command(command) for command in commands or ()]
    with naming("--nft"):
        chosen += [variants.variant_of_file(path) for path in files or ()]
    with naming("--variant"):
        variants.require_distinct(chosen)
    return chosen


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
    if variants.ALL in (variant or ()) and staged.sweepable and clients == 2 and not crowded:
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
    options: LabSettings, staged: "Scenario", variants: "Sequence[Variant]", output: Path | None
) -> "LabResult":
    from snat_race.lab.variant_loader import require_binaries
    from snat_race.report.live.panel import drawable
    from snat_race.report.live.views import LabView
    from snat_race.runs import lab as runner

    require_binaries(variants, options.backend)
    if output:
        require_writable(output)
    with LabView(drawable(sys.stderr), options.scenario) as view:
        return runner.run(options, staged, variants, view)


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
    from snat_race.report.builders.lab import lab_report
    from snat_race.report.renderers.ktap import ktap_report

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
