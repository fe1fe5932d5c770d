"""Figures before they are drawn: finished numbers and words, in the units of their axes."""

from dataclasses import dataclass

from snat_race.report.document import Tone


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareBar:
    """One bar: a share of 1 with its 95 % interval."""

    name: str
    share: float
    interval: tuple[float, float]
    tone: Tone


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareBars:
    """Shares below one another. ``tone_names``: what the colours mean, where there is a legend."""

    title: str
    caption: str
    axis: str
    bars: tuple[ShareBar, ...]
    tone_names: dict[Tone, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeStack:
    """One part of the bars of a timeline: a count for each span."""

    name: str
    counts: tuple[int, ...]
    # Whether it stands for all that has no colour of its own.
    others: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """Counts over time: stacked bars, and a line above them."""

    title: str
    caption: str
    axis: str
    # Begin and length of each span, in the unit of the axis.
    spans: tuple[tuple[float, float], ...]
    # Stacked from the bottom up.
    stacks: tuple[TimeStack, ...]
    # One number for each span; empty: there is no line.
    line: tuple[int, ...] = ()
    line_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyCurve:
    """A latency by percentile: from ``odds[i - 1]`` to ``odds[i]`` it is ``values_ns[i]``."""

    # Empty: it is one of the others, which share a key.
    name: str
    # 1 / (1 - percentile), from 1 on, as HdrHistogram's own plots have it.
    odds: tuple[float, ...]
    values_ns: tuple[float, ...]
    # What is said of the dials beyond its end; empty: there are none.
    end: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyCurves:
    """Latencies by percentile; each named one stands out. The first is the one that may be bad."""

    title: str
    caption: str
    curves: tuple[LatencyCurve, ...]
    others_name: str = ""
    # Which palette: of rules the first stands for losses; of a client the second does.
    of_client: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OffsetPoint:
    """What share of the pairs whose SYNs were that far apart collided, with its 95 % interval."""

    offset_us: float
    share: float
    interval: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class OffsetCurve:
    """The probability of a collision against the offset of two SYNs, up to ``sweep_us`` either way."""

    title: str
    caption: str
    axis: str
    sweep_us: float
    points: tuple[OffsetPoint, ...]


Figure = ShareBars | Timeline | LatencyCurves | OffsetCurve
