"""Shares with their 95 % intervals as a figure: collisions under each rule, losses of each client."""

from snat_race.analysis.intervals import Interval, wilson
from snat_race.analysis.loss_rates import LossCounts, loss_counts
from snat_race.report.document import Tone
from snat_race.report.figures.data import ShareBar, ShareBars
from snat_race.results.conclusions import Outcome
from snat_race.results.schema import ClientResult, LabResult, MergedPart, MergedResult, VariantResult

TONES = {Outcome.reproduced: Tone.bad, Outcome.not_seen: Tone.good, Outcome.inconclusive: Tone.unsure}
_TONE_NAMES = {Tone.bad: "race", Tone.good: "no race", Tone.unsure: "cannot tell"}
_MOST_BARS = 40


def figure_of_variants(result: LabResult) -> ShareBars | None:
    """Return the collision rate under each rule; where nothing pairs, the loss rate."""
    bars = [bar for variant in result.variants if (bar := _collisions(variant))]
    axis = "share of paired dials that collided"
    title = "Collisions under each rule"
    if not bars:
        bars = [_losses(variant) for variant in result.variants]
        axis = "share of dials that were lost"
        title = "Losses under each rule"
    return ShareBars(
        title=title,
        caption=f"The {axis} under each rule; the line across the end of a bar is its 95 % interval.",
        axis=axis,
        bars=tuple(bars),
        tone_names=_TONE_NAMES,
    )


def _collisions(variant: VariantResult) -> ShareBar | None:
    paired = variant.summary.paired
    interval = variant.collision_rate_ci95
    if not paired or not interval:
        return None
    return ShareBar(
        name=variant.name,
        share=(variant.summary.collisions or 0) / paired,
        interval=interval,
        tone=TONES[variant.outcome],
    )


def _losses(variant: VariantResult) -> ShareBar:
    counts = loss_counts(variant.name, variant.summary, variant.periods)
    return ShareBar(
        name=variant.name,
        share=counts.loss_rate,
        interval=counts.interval,
        tone=TONES[variant.outcome],
    )


def figure_of_client(result: ClientResult) -> ShareBars | None:
    """Return the loss rate of a client; None if it dialled nothing."""
    if not result.summary.attempted:
        return None
    return _failures([_lost(loss_counts("this client", result.summary, result.periods))])


def figure_of_clients(result: MergedResult) -> ShareBars | None:
    """Return the loss rate of all clients and, if they are several, of each."""
    if not result.summary.attempted:
        return None
    of_each = [_client(part) for part in result.merged_from if part.kind == "client"]
    name = "all clients" if len(of_each) > 1 else "this client"
    bars = [_lost(loss_counts(name, result.summary, result.periods))]
    if len(of_each) > 1:
        bars += of_each
    return _failures(bars[:_MOST_BARS])


def _client(part: MergedPart) -> ShareBar:
    dials = part.attempted or 0
    lost = (part.failed or 0) + part.late_by_retransmit
    interval = part.loss_rate_ci95 or wilson(lost, dials)
    return _bar(f"run {part.run_id[:8]}", lost / dials if dials else 0.0, interval)


def _lost(counts: LossCounts) -> ShareBar:
    return _bar(counts.name, counts.loss_rate, counts.interval)


def _bar(name: str, share: float, interval: Interval) -> ShareBar:
    return ShareBar(name=name, share=share, interval=interval, tone=Tone.bad if share else Tone.good)


def _failures(bars: list[ShareBar]) -> ShareBars:
    axis = "share of dials that failed, or were late by a retransmit"
    return ShareBars(
        title="Loss rate",
        caption=f"The {axis}; the line across the end of a bar is its 95 % interval, of this run.",
        axis=axis,
        bars=tuple(bars),
        tone_names={},
    )
