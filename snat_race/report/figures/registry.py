"""Which figures a result has."""

from snat_race.report.figures import curves, shares, timelines
from snat_race.report.figures.drawing import Figure
from snat_race.results.model import Result
from snat_race.results.schema import ClientResult, LabResult, MergedResult, WatchResult


def figures(result: Result) -> list[Figure]:
    """Return those of a result of any kind."""
    found: tuple[Figure | None, ...] = ()
    if isinstance(result, LabResult):
        found = (
            shares.of_rules(result),
            timelines.of_rounds(result),
            curves.of_rules(result),
            curves.of_window(result),
        )
    elif isinstance(result, ClientResult | MergedResult):
        found = shares.of_clients(result), timelines.of_periods(result), curves.of_clients(result)
    elif isinstance(result, WatchResult):
        found = (timelines.of_watch(result),)
    return [each for each in found if each]
