"""The sentences of a lab run's verdict, and what it means."""

from collections.abc import Callable

from snat_race.analysis.verdict import FEWEST_PAIRS, all_losses, race_losses
from snat_race.report.wording.causes import in_short
from snat_race.report.wording.formats import percent, percent_interval, plural
from snat_race.results.conclusions import CauseName, Mitigation, Outcome, VerdictReason
from snat_race.results.schema import LabResult, VariantResult

ADVERSARIAL = "These rates are adversarial: every dial was timed to collide; production sees far fewer."

_MEANING = {
    Outcome.reproduced: (
        "Two connections behind this NAT were given the same port at the same moment, and the kernel "
        "dropped the first packet of one; its application waits a second or times out."
    ),
    Outcome.not_seen: "Either this kernel and rule do not race, or two dials never met closely enough.",
    Outcome.inconclusive: "This run proves nothing either way.",
}
_UNEXPLAINED = (
    "What no counter explains is not the race, which always raises insert_failed: look at firewalls, "
    "routes and load."
)
_RESOLVED = (
    "Packets of one flow clashed, as clash_resolve shows, and this kernel let both pass: what a resolver "
    "asks at once is answered."
)
_NOT_THE_RACE = (
    "A rule that draws ports at random would not have helped here: mend the cause that is named above."
)
_WORDS = {Outcome.reproduced: "race", Outcome.not_seen: "no race", Outcome.inconclusive: "cannot tell"}
_WHERE = "in the lab the uplink is eth0, and the containers are 172.17.0.0/16 on docker0"


def verdict(base: VariantResult) -> str:
    """Return the verdict on the first variant of a lab run, without a full stop."""
    return _VERDICTS[base.reason](base)


def word(variant: VariantResult) -> str:
    """Return the outcome of a variant in two words."""
    return "not the race" if variant.reason == VerdictReason.other_causes else _WORDS[variant.outcome]


def meaning(result: LabResult) -> str:
    """Say what the verdict means to people."""
    base = result.variants[0]
    if result.verdict.reason == VerdictReason.other_causes:
        unexplained = any(cause.cause == CauseName.unexplained for cause in base.diagnosis)
        return _UNEXPLAINED if unexplained else _NOT_THE_RACE
    if result.verdict.outcome == Outcome.not_seen and any(base.kernel.conntrack.clash_resolve):
        return _RESOLVED
    return f"{_MEANING[result.verdict.outcome]} {ADVERSARIAL}"


def mitigation(compared: Mitigation, base: str) -> str:
    """Say what a rule does to the collisions of the rule ``base``, the first of the run."""
    if compared.loss_reduction is None or compared.ci95 is None:
        return f"'{compared.name}': nothing to compare, because there are no losses, or no pairs."
    low, high = compared.ci95
    ratio = 1 - compared.loss_reduction
    rate = (
        f"its collision rate is {ratio:.2f} times that of '{base}' "
        f"(95 % interval {1 - high:.2f} to {1 - low:.2f})"
    )
    if low <= 0 <= high:
        return f"'{compared.name}': no difference detected; {rate}."
    if compared.loss_reduction < 0:
        return f"'{compared.name}' is no cure: {rate}."
    return (
        f"'{compared.name}' removes {percent(compared.loss_reduction)} of the collisions "
        f"(95 % interval {percent_interval(compared.ci95)})."
    )


def _lost_to_race(base: VariantResult) -> str:
    collisions, paired = base.summary.collisions or 0, base.summary.paired or 0
    low, high = base.collision_rate_ci95 or (0.0, 1.0)
    return (
        f"race reproduced: '{base.name}' lost {plural(race_losses(base.diagnosis), 'dial')} to it; "
        f"{collisions / max(paired, 1):.1%} of {plural(paired, 'paired dial')} collided "
        f"(95 % interval {low:.1%} to {high:.1%})"
    )


def _none_lost(base: VariantResult) -> str:
    high = (base.collision_rate_ci95 or (0.0, 1.0))[1]
    return (
        f"no race seen under '{base.name}' in {_paired(base)}: at most "
        f"{high:.2%} of them collide (upper end of the 95 % interval)"
    )


def _by_chance(base: VariantResult) -> str:
    return (
        f"no race seen under '{base.name}' beyond chance: {race_losses(base.diagnosis)} of "
        f"{_paired(base)} drew the same one of {plural(base.drawn_ports or 0, 'port')} at the same moment"
    )


def _nothing_translated(base: VariantResult) -> str:
    return f"inconclusive: '{base.name}' translated no connection; {_WHERE}"


def _other_causes(base: VariantResult) -> str:
    lost, others, named = _other_losses(base)
    return f"not the race: of {plural(lost, 'loss')}, other causes explain {others:,} ({named})"


def _mixed_causes(base: VariantResult) -> str:
    lost, others, named = _other_losses(base)
    return (
        f"inconclusive: of {plural(lost, 'loss')} under '{base.name}', {others:,} have other causes than "
        f"the race, or may have ({named}); mend them, and measure again"
    )


def _other_losses(base: VariantResult) -> tuple[int, int, str]:
    """Return all losses, those that are not to the race, and what they are due to."""
    lost = all_losses(base.diagnosis)
    named = ", ".join(in_short(cause) for cause in base.diagnosis if cause.cause != CauseName.snat_race)
    return lost, lost - race_losses(base.diagnosis), named


def _paired(base: VariantResult) -> str:
    return plural(base.summary.paired or 0, "paired dial")


def _dials_do_not_meet(_base: VariantResult) -> str:
    return "inconclusive: in this scenario dials do not meet, so it says nothing about the race"


def _one_cpu(_base: VariantResult) -> str:
    return "inconclusive: the race needs two CPUs, and this process may use only one"


def _too_few_pairs(base: VariantResult) -> str:
    return (
        f"inconclusive: only {_paired(base)} under '{base.name}'; raise "
        f"--duration until there are {FEWEST_PAIRS:,}"
    )


def _too_few_ports(base: VariantResult) -> str:
    return (
        f"inconclusive: '{base.name}' draws from so few ports ({base.drawn_ports or 0:,}) that chance "
        "alone makes dials collide; give it more"
    )


_VERDICTS: dict[VerdictReason, Callable[[VariantResult], str]] = {
    VerdictReason.lost_to_race: _lost_to_race,
    VerdictReason.none_lost: _none_lost,
    VerdictReason.by_chance: _by_chance,
    VerdictReason.nothing_translated: _nothing_translated,
    VerdictReason.other_causes: _other_causes,
    VerdictReason.mixed_causes: _mixed_causes,
    VerdictReason.dials_do_not_meet: _dials_do_not_meet,
    VerdictReason.one_cpu: _one_cpu,
    VerdictReason.too_few_pairs: _too_few_pairs,
    VerdictReason.too_few_ports: _too_few_ports,
}
