"""Which function draws which kind of figure."""

from collections.abc import Callable
from typing import Any

from snat_race.report.figures import curves, shares, timelines
from snat_race.report.figures.data import Figure, LatencyCurves, OffsetCurve, ShareBars, Timeline
from snat_race.report.figures.drawing import Picture

_DRAWN_BY: dict[type, Callable[[Any], Picture]] = {
    ShareBars: shares.picture,
    Timeline: timelines.picture,
    LatencyCurves: curves.latency_picture,
    OffsetCurve: curves.offset_picture,
}


def drawn(figure: Figure) -> Picture:
    """Draw a figure.

    Raises:
        EnvironmentLacks: matplotlib is not installed.

    """
    return _DRAWN_BY[type(figure)](figure)
