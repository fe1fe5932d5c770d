"""``lab``: experiments on this machine's kernel."""

import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from snat_race.cli import help_text, parameters
from snat_race.cli.limits import measured_in, require
from snat_race.cli.parsing import CpuList, Seconds, naming
from snat_race.cli.result_writer import require_writable, save
from snat_race.cli.terminal import print_document
from snat_race.errors import Inconclusive, ThresholdExceeded, UsageError
from snat_race.lab.settings import Backend, Caches, Expect, LabSettings, Wiring
from snat_race.runs.settings import MOST_WORKERS

if TYPE_CHECKING:
    from snat_race.lab.scenarios import Scenario
    from snat_race.lab.variants import Variant
    from snat_race.results.schema import LabResult

_SWEEPS, _SWEEPS_OF_ALL = 5, 2  # how much longer than a variant's own share the window takes

EXAMPLES = help_text.examples(
    ("Plain masquerade and its cure", "snat-race lab"),
    ("Every rule, with the race window, kept as a result", "snat-race lab --variant all -o lab.json"),
    ("A rule of yours, which must not race", "snat-race lab --expect no-race --nft rules.nft"),
)


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
    duration: parameters.MeasureFor = Seconds(2),  # noqa: B008
    interval_us: parameters.IntervalUs = None,
    timeout_ms: parameters.LabTimeoutMs = None,
    window: parameters.MeasureWindow = False,
    caches: parameters.HowWarm = Caches.warm,
    trace: parameters.ByPackets = False,
    seed: parameters.Seed = None,
    expect: parameters.Expected = None,
    max_error_rate: parameters.MaxErrorRate = None,
    max_p99: parameters.MaxP99 = None,
    max_race_losses: parameters.MaxRaceLosses = None,
    ktap: parameters.Ktap = False,
    output: parameters.Output = None,
    json: parameters.Json = False,
    details: parameters.Details = False,
    quiet: parameters.QuietVerdict = False,
    _list: parameters.ListThem = False,
) -> None:
    """Race the kernel on this machine, in private network namespaces, and show what cures it."""
    from snat_race.analysis.thresholds import Thresholds
    from snat_race.lab.scenarios import scenario_named

    with naming("--scenario"):
        staged = scenario_named(scenario)
    expected = expect or (Expect.no_race if ktap else None)
    default = staged.variants[:1] if expected or window else staged.variants
    rules = _chosen(variant, rule, nft, default)
    clients = containers or staged.containers
    available = len(_usable(cpus))
    dialers = workers or staged.workers or max(1, available // clients)
    crowded = clients * dialers > available
    settings = LabSettings(
        scenario=scenario,
        variants=tuple(chosen_rule.name for chosen_rule in rules),
        containers=clients,
        workers=dialers,
        topology=topology,
        backend=backend,
        cpus=cpus or (),
        duration_s=duration,
        interval_us=interval_us or staged.interval_us,
        timeout_ms=timeout_ms or staged.timeout_ms,
        window_s=duration * _sweeps(staged, variant, window, clients, crowded=crowded),
        caches=caches,
        trace=trace,
        seed=random.getrandbits(32) if seed is None else seed,
    )
    _check(settings, staged, window=window, crowded=crowded)
    limits = Thresholds(error_rate=max_error_rate, p99_ns=max_p99, race_losses=max_race_losses)
    result, fault = _measured(settings, staged, rules, output)
    try:  # first what would be lost
        save(result, output)
    finally:
        _print(result, expected if ktap else None, as_json=json, details=details, quiet=quiet)
    if fault:
        raise fault
    require(limits, measured_in(result), as_json=json)
    if expected:
        _require(result, expected)


def _chosen(
    names: list[str] | None, commands: list[str] | None, files: list[Path] | None, default: Sequence[str]
) -> "list[Variant]":
    """Return the variants asked for by name, then the user's own rules, then files for nft.

    Raises:
        UsageError: one cannot be read, or is there twice.

    """
    from snat_race.lab import variants

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


def _usable(asked: CpuList | None) -> tuple[int, ...]:
    """Return the CPUs to pin to.

    Raises:
        UsageError: this process may not run on one of those asked for.

    """
    from snat_race.kernel import host

    usable = host.usable_cpus()
    for cpu in asked or ():
        if cpu not in usable:
            raise UsageError(
                f"--cpus: this process may not run on CPU {cpu}; it may on {','.join(map(str, usable))}"
            )
    return asked or tuple(usable)


def _sweeps(
    staged: "Scenario", variant: list[str] | None, window: bool, clients: int, *, crowded: bool
) -> int:
    """Return for how many times a variant's share the window is to be swept; 'all' includes it."""
    from snat_race.lab.variants import ALL

    if ALL in (variant or ()) and staged.sweepable and clients == 2 and not crowded:
        return _SWEEPS_OF_ALL
    return _SWEEPS if window else 0


def _check(settings: LabSettings, staged: "Scenario", *, window: bool, crowded: bool) -> None:
    """Check what concerns more than one option.

    Raises:
        UsageError: two options do not go together.

    """
    if settings.containers < 2 and not staged.shared_sockets:
        raise UsageError(f"--containers: {staged.name} needs two clients or more that meet; give 2 or more")
    if settings.trace and staged.protocol != "tcp":
        raise UsageError(f"--trace: {staged.name} sends UDP, which has no sequence numbers; drop --trace")
    if settings.containers * settings.workers > MOST_WORKERS:
        raise UsageError(
            f"--workers: {settings.containers} containers can have {MOST_WORKERS // settings.containers} "
            "each at most; lower one of the two"
        )
    if not 0.1 <= settings.duration_s <= 3600:
        raise UsageError(f"--duration: {settings.duration_s} is out of range; give 100ms to 1h")
    if settings.duration_s * 1e6 < 2 * settings.interval_us:
        raise UsageError("--duration: is shorter than two intervals; raise it or lower --interval-us")
    if window or settings.caches is not Caches.warm:
        option = "--window" if window else "--caches"
        if not staged.sweepable:
            raise UsageError(f"{option}: {staged.name} has no two dialers to move apart; take tcp-snat")
        if crowded:
            raise UsageError(f"{option}: needs a CPU for each dialer; lower --containers or --workers")
    if settings.window_s and settings.containers != 2:
        raise UsageError("--window: is measured between two containers; drop --containers")


def _measured(
    settings: LabSettings, staged: "Scenario", rules: "Sequence[Variant]", output: Path | None
) -> "tuple[LabResult, Exception | None]":
    from snat_race.lab.variant_loader import require_binaries
    from snat_race.report.live.lab_view import LabView
    from snat_race.report.live.panel import drawable
    from snat_race.runs import lab as runner

    require_binaries(rules, settings.backend)
    if output:
        require_writable(output)
    with LabView(drawable(sys.stderr), settings.scenario) as view:
        return runner.run(settings, staged, rules, view)


def _print(
    result: "LabResult",
    expected_of_ktap: Expect | None,
    *,
    as_json: bool,
    details: bool,
    quiet: bool,
) -> None:
    """Print the result; as KTAP, if that is given what is expected."""
    from snat_race.cli.events import print_event
    from snat_race.report.builders.checks import checks
    from snat_race.report.builders.lab import document
    from snat_race.report.renderers.ktap import ktap

    stream = sys.stderr if as_json else sys.stdout
    if expected_of_ktap:
        print(ktap(checks(result, race=expected_of_ktap is Expect.race)), file=stream)
    else:
        print_document(document(result), stream, details=details, quiet=quiet)
    if as_json:
        print_event("result", result)


def _require(result: "LabResult", expected: Expect) -> None:
    """Compare every variant's outcome with what was expected of all.

    Raises:
        ThresholdExceeded: one shows the contrary.
        Inconclusive: one cannot tell, or could not be measured here.

    """
    from snat_race.analysis.verdict import as_expected

    race = expected is Expect.race
    judged = {variant.name: as_expected(variant.outcome, race=race) for variant in result.variants}
    contrary = [repr(name) for name, holds in judged.items() if holds is False]
    unknown = [repr(name) for name, holds in judged.items() if holds is None]
    unknown += [repr(variant.name) for variant in result.unavailable]
    if contrary:
        raise ThresholdExceeded(f"--expect {expected}: not so under {', '.join(contrary)}")
    if unknown:
        raise Inconclusive(f"--expect {expected}: this run cannot tell about {', '.join(unknown)}")
