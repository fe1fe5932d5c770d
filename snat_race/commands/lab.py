"""``lab``: experiments on this machine's kernel."""

import random
import sys
from json import dumps
from typing import TYPE_CHECKING

from snat_race.commands import arguments, first, save
from snat_race.errors import Inconclusive, ThresholdExceeded, UsageError
from snat_race.kernel import host
from snat_race.kernel.choices import Backend, Caches, Expect, Wiring
from snat_race.options import LabOptions, parse_cpus, parse_duration_s
from snat_race.output import require_writable

if TYPE_CHECKING:
    from snat_race.analysis.result import LabResult
    from snat_race.kernel.nat import Variant
    from snat_race.lab.scenario import Scenario

_SWEEPS, _SWEEPS_OF_ALL = 5, 2  # how much longer than a variant's own share the window takes


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
    ktap: arguments.Ktap = False,
    output: arguments.Output = None,
    json: arguments.Json = False,
    list_them: arguments.ListThem = False,
) -> None:
    """Race the kernel on this machine, in private network namespaces, and show what cures it."""
    from snat_race.kernel import nat
    from snat_race.lab.scenario import scenario_named

    if list_them:
        _list()
        return
    staged, expected = scenario_named(scenario), Expect.no_race if ktap and not expect else expect
    if window and not staged.sweepable:
        raise UsageError(f"--window: {scenario} has no two dialers to move apart; take tcp-snat")
    default = staged.variants[:1] if expected or window else staged.variants
    variants = nat.chosen(variant or (), rule or (), nft or (), default)
    duration_s, clients = parse_duration_s(duration, "--duration"), first(containers, staged.containers)
    pinned, every = _usable(cpus), nat.ALL in (variant or ()) and staged.sweepable and clients == 2
    share = len(pinned or host.usable_cpus()) // max(1, clients)
    dialers = clients * (first(workers, staged.workers or max(1, share)))
    if dialers > len(pinned or host.usable_cpus()):
        _refuse_crowd(caches, window=window)
        every = False
    options = LabOptions(
        scenario=scenario, variants=tuple(each.name for each in variants), backend=backend,
        containers=clients, workers=first(workers, staged.workers or max(1, share)), cpus=pinned,
        topology=topology, interval_us=first(interval_us, staged.interval_us), duration_s=duration_s,
        timeout_ms=first(timeout_ms, staged.timeout_ms), caches=caches, seed=first(seed, _any_seed()),
        window_s=duration_s * (_SWEEPS_OF_ALL if every else _SWEEPS if window else 0),
    )  # fmt: skip
    if output:
        require_writable(output)
    result = _measure(options, staged, variants)
    save(result, output)
    _show(result, expected if ktap else None, as_json=json)
    if expected:
        _require(result, expected)


def _refuse_crowd(caches: Caches, *, window: bool) -> None:
    """Dialers that share a CPU delay each other by more than what is to be measured."""
    for option, given in (("--window", window), ("--caches", caches is not Caches.warm)):
        if given:
            raise UsageError(f"{option}: needs a CPU for each dialer; lower --containers or --workers")


def _list() -> None:
    from snat_race.kernel.nat import VARIANTS
    from snat_race.lab.scenario import SCENARIOS
    from snat_race.report.lab import listing

    print(listing(VARIANTS.values(), SCENARIOS.values()))


def _measure(options: LabOptions, staged: "Scenario", variants: "tuple[Variant, ...]") -> "LabResult":
    from snat_race.kernel.firewall import require_binaries
    from snat_race.lab import experiment
    from snat_race.report.live import ProgressLine

    require_binaries(variants, options.backend)
    with ProgressLine() as progress:
        return experiment.run(options, staged, variants, progress)


def _show(result: "LabResult", ktap: Expect | None, *, as_json: bool) -> None:
    from snat_race.report.ktap import ktap_report
    from snat_race.report.lab import lab_report

    text = ktap_report(result, ktap) if ktap else lab_report(result)
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
