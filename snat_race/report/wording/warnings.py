"""The sentences of warnings: what makes a measurement doubtful, then what to do about it."""

from collections.abc import Sequence

from snat_race.report.wording.formats import filled_or_listed, namespace
from snat_race.results.conclusions import MeasurementWarning, WarningKind

_WATCH_WITH = "run 'snat-race watch --output watch.json' where the NAT is, and give that file too"
_UNMET = "The slots of client {run_id:.8} met no other's: "

_SENTENCES = {
    WarningKind.run_cut_off: (
        "This run was cut off: what followed its last whole period is missing. Run it again."
    ),
    WarningKind.counters_unread: (
        f"Nobody read the NAT's counters, so the causes cannot be told: {_WATCH_WITH}."
    ),
    WarningKind.some_rules_unread: (
        "Not all SNAT rules could be read ({tools}), so some causes cannot be told from the race. "
        "'snat-race doctor' there says why, and what helps."
    ),
    WarningKind.ring_overruns: (
        "The ring was full, so the outcome of {overruns:dial} is not known. Use fewer --workers, or a "
        "longer --dial-interval-us."
    ),
    WarningKind.many_late_slots: (
        "{late:,} of {slots:slot} passed while a dial was in flight or being prepared. "
        "Use a longer --dial-interval-us, or a shorter --timeout-ms."
    ),
    WarningKind.workers_share_cpus: (
        "{workers:worker} share {cpus:CPU}, so fewer dials meet. Only clients with --lanes {lanes} can "
        "meet them at all. Use --workers {cpus}."
    ),
    WarningKind.lab_workers_share_cpus: (
        "{workers:worker} share {cpus:CPU}, so fewer dials meet. Lower --containers or --workers."
    ),
    WarningKind.no_router: (
        "No router lies between this host and {remote}, so its SYNs pass no NAT, and none is lost to the "
        "race. Dial a server beyond the NAT."
    ),
    WarningKind.nothing_lost_alone: (
        "Nothing was lost to the race. That is a finding only if another client met these slots: the same "
        "destination, --dial-interval-us, --source-ports and --lanes, through the same NAT, at the same "
        "time. 'snat-race report' of both results says whether they did."
    ),
    WarningKind.container_namespace: (
        "{namespace} has one device, {device}, so it is a container's; the NAT's counters are those of the "
        "host. Run there, or name the host's namespace as 1, in a container with --pid host."
    ),
    WarningKind.clock_stepped: (
        "The clock was set by {step_s:+,.2f} s during the run: slots before and after do not meet those of "
        "other clients, and time stamps jump. Run it again while the clock is steady."
    ),
    WarningKind.window_sweep_too_narrow: (
        "{tail_rate:.1%} of the pairs still collide at the ends of the sweep, so the window is longer."
    ),
    WarningKind.window_has_other_losses: (
        "The sweep has {unexplained:loss} that cannot be the race's, so the window is shorter."
    ),
    WarningKind.part_cut_off: "The {kind} {run_id:.8} was cut off: the end is missing. Run it again.",
    WarningKind.hosts_unwatched: (
        f"Nobody watched {{hosts}} of the hosts that the clients ran on: {_WATCH_WITH}."
    ),
    WarningKind.watch_missed_some: (
        "A watch began {late_s:.1f} s after the first client and ended {early_s:.1f} s before the last, "
        "and missed some. Start it first, stop it last."
    ),
    WarningKind.clocks_differ: (
        "Watch {run_id:.8} counted about as many clashes as the clients lost SYNs, but {ahead_s:+,.1f} s "
        "away by its host's clock. They are taken for the same, so the clocks differ by that. Set both by "
        "NTP; if they agree, these losses were something else."
    ),
    WarningKind.watch_at_other_time: (
        "Watch {run_id:.8} and the clients ran {apart_s:,.1f} s apart, by the clocks of two hosts, so it "
        "says nothing of them. If they ran side by side, the clocks differ by that at least: set both."
    ),
    WarningKind.met_nobody: (
        f"{_UNMET}there is none among these results. Run two at a time, and give both."
    ),
    WarningKind.met_nobody_setting: (
        f"{_UNMET}its {{setting}} is {{own}}, not {{other}}. Give both the same."
    ),
    WarningKind.met_nobody_time: f"{_UNMET}the other did not run at that time. Run both at once.",
    WarningKind.met_nobody_destination: (
        f"{_UNMET}the other dialled another destination. Give both the same --remote-addr."
    ),
    WarningKind.met_nobody_host: (
        f"{_UNMET}the other ran on another host, with a clock and a NAT of its own. Run both on one host."
    ),
    WarningKind.unequal_work: (
        "{name}: {dials:dial} due, {baseline:,} in the baseline: not the same amount of work. Compare runs "
        "of the same --count, or --duration."
    ),
    WarningKind.unequal_work_of_labs: (
        "{name}: {dials:dial} due, {baseline:,} in the baseline: not the same amount of work. Compare runs "
        "of the same --duration, --interval-us, --containers and --workers."
    ),
    WarningKind.unlike_setting: "{name}: {key} is {value}, of the baseline {baseline}.",
    WarningKind.unlike_environment: "{name}: {key} is {value}, of the baseline {baseline}.",
    WarningKind.rendezvous_runs_differ: (
        "Clients in rendezvous lose more in one run and less in another, because the skew between them "
        "changes. These intervals are of these runs. Repeat both before you trust a small difference."
    ),
    WarningKind.single_period: "{name}: of a single period, so drift of the machine does not show.",
}

_OPTIONS = {
    "dial_interval_us": "--dial-interval-us",
    "source_ports": "--source-ports",
    "lanes": "--lanes",
}
"""The options of settings that two clients must agree on."""


def sentence(warning: MeasurementWarning) -> str:
    """Return what is doubtful and what to do about it: one or more whole sentences."""
    values = dict(warning.values)
    if "setting" in values:
        values["setting"] = _OPTIONS.get(str(values["setting"]), values["setting"])
    if "namespace" in values:
        values["namespace"] = namespace(str(values["namespace"]))
    return filled_or_listed(_SENTENCES[warning.kind], values)


def sentences(warnings: Sequence[MeasurementWarning]) -> tuple[str, ...]:
    """Return the sentences of several warnings."""
    return tuple(map(sentence, warnings))
