"""Vector pictures in the page's own colours and font.

matplotlib draws with colours that stand for CSS variables, so that one picture suits light and dark, and
leaves text as text. What it would refer to by ``href`` or ``url()`` is not drawn: a page may forbid both.
"""

import io
import re
import warnings
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Literal

from snat_race.errors import ReportExtraMissing
from snat_race.report.document import Tone

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

_NAMES = ("ink", "muted", "grid", "page", "bad", "good", "unsure", "c1", "c2", "c3", "c4", "c5", "c6")
_SENTINELS = {f"#0a0b{number:02x}": name for number, name in enumerate(_NAMES, 0x10)}
INK, MUTED, GRID, PAGE, BAD, GOOD, UNSURE, *SERIES = _SENTINELS

NEEDED = "an HTML report needs matplotlib and jinja2"
TONES = {Tone.bad: BAD, Tone.good: GOOD, Tone.unsure: UNSURE}

Side = Literal["left", "right"]
WIDE, NARROW = 760, 360
FONT_PX = 12.5
_PX_PER_INCH = 72  # of the SVG backend: a point is a pixel
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "snat_race",
    "text.parse_math": False,  # a rule may hold a $
    "font.size": FONT_PX,
    "path.simplify": True,  # a curve has more steps than a screen has pixels
    "path.simplify_threshold": 0.3,  # pixels
}


@dataclass(frozen=True, slots=True)
class Key:
    """An entry of a legend: a line, dashed as ``dashes`` says in units of its width, or a bar."""

    label: str
    colour: str
    dashes: tuple[float, ...] = ()
    bar: bool = False


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure as drawn: ``svgs`` for a wide and for a narrow window, the legend, and a sentence."""

    title: str
    caption: str
    svgs: tuple[str, str]
    keys: tuple[Key, ...] = ()


@dataclass(frozen=True, slots=True)
class Frame:
    """A picture's size and the margins around its axes, in CSS pixels."""

    width: int
    height: int
    left: int = 64
    right: int = 16
    top: int = 28
    bottom: int = 46

    @property
    def inner_width(self) -> int:
        """The width of the axes."""
        return self.width - self.left - self.right


def css(colour: str) -> str:
    """Return what the page calls a colour of a drawing."""
    return f"var(--{_SENTINELS[colour]})"


def draw(frame: Frame, title: str, paint: "Callable[[Axes], None]") -> str:
    """Return what ``paint`` draws as an ``svg`` element.

    Raises:
        EnvironmentLacks: matplotlib is not installed.

    """
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure as Canvas
    except ImportError as missing:
        raise ReportExtraMissing(NEEDED) from missing
    out = io.StringIO()
    with rc_context(_STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the browser has the glyphs that matplotlib's font has not
        size = (frame.width / _PX_PER_INCH, frame.height / _PX_PER_INCH)
        figure = Canvas(figsize=size, dpi=_PX_PER_INCH)
        FigureCanvasSVG(figure)
        figure.patch.set_visible(False)
        paint(_axes(figure, frame))
        for artist in figure.findobj():
            artist.set_clip_on(False)
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return _inline(out.getvalue(), frame, title)


def _axes(figure: "Canvas", frame: Frame) -> "Axes":
    """Return axes without a frame or ticks: a faint grid says as much."""
    height = frame.height - frame.top - frame.bottom
    axes: Axes = figure.add_axes(
        (
            frame.left / frame.width,
            frame.bottom / frame.height,
            frame.inner_width / frame.width,
            height / frame.height,
        )
    )
    axes.patch.set_visible(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(which="both", length=0, bottom=False, left=False, labelcolor=MUTED, pad=7)
    axes.set_axisbelow(True)
    return axes


def grid(axes: "Axes", axis: str) -> None:
    """Draw faint lines across, and none for minor ticks."""
    axes.grid(visible=True, axis=axis, which="major", color=GRID, linewidth=1)  # type: ignore[arg-type]


def units(axes: "Axes", along_x: str, along_y: str = "", side: Side = "right") -> None:
    """Name what is counted: y above its labels and never turned, x below, on one ``side``."""
    axes.annotate(
        along_x,
        xy=(float(side == "right"), 0),
        xytext=(0, -26),
        xycoords="axes fraction",
        textcoords="offset points",
        color=MUTED,
        ha=side,
        va="top",
    )
    axes.annotate(
        along_y,
        xy=(0, 1),
        xytext=(0, 12),
        xycoords=("figure fraction", "axes fraction"),
        textcoords="offset points",
        color=MUTED,
        ha="left",
        va="bottom",
    )


def _inline(svg: str, frame: Frame, title: str) -> str:
    """Return the drawing as part of a page: no head, no ids, no groups, no styles of its own."""
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>|<defs>.*?</defs>", "", body, flags=re.DOTALL)
    body = re.sub(r"\s*</?g\b[^>]*>\s*", "\n", body)
    body = re.sub(r"<[^>]*>", lambda tag: _plain(tag[0]), body)  # never what stands between tags
    kind = "wide" if frame.width == WIDE else "narrow"
    head = f'<svg class="{kind}" viewBox="0 0 {frame.width} {frame.height}" role="img"'
    drawn = "\n".join(stripped for line in body.splitlines() if (stripped := line.strip()))
    return f'{head} aria-label="{escape(title)}">{drawn}'


def _plain(tag: str) -> str:
    tag = re.sub(r' id="[^"]*"| transform="rotate\(-0[^"]*"', "", tag)
    tag = re.sub(r" font-family: [^;]*;", "", tag)
    tag = re.sub(r"-?\d+\.\d+", lambda number: f"{float(number[0]):.1f}".removesuffix(".0"), tag)
    tag = re.sub(r"#0a0b[0-9a-f]{2}", lambda match: css(match[0]), tag)
    return " ".join(tag.split())
