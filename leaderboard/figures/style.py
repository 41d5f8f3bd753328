"""How all pictures look: style, colours, axes, text of strangers, files.

Drawn without pyplot: settings of matplotlib are as they were afterwards, and no display is needed.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from unicodedata import east_asian_width

from hambench.errors import ConfigError
from hambench.files import atomic_path
from hambench.leaderboard.table import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LONGEST: Final = 30
"""Characters of a name that are shown."""

_SETTINGS: Final[dict[str, Any]] = {
    "font.family": ["DejaVu Sans"],  # comes with matplotlib: the same letters everywhere
    "svg.hashsalt": "hambench",
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,  # a `$` in a name is a `$`
}
_DPI: Final = 160
_COLOURS: Final = 10  # of the palette "colorblind"
_MARKERS: Final = "osD^vPXp<>"
_TICKS: Final = {"x": 5, "y": 9}  # on a logarithmic axis, before there are fewer in each decade
_DECADE: Final = 10.0  # ratio of values from which an axis is logarithmic
_TIMES: Final = (("d", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3))
_WORTH: Final = 3.0  # of a unit of time, at least, where an axis is in it


class Look(NamedTuple):
    """How the k-th model of a panel is drawn; markers and dashes say what colours say."""

    color: Any
    marker: str
    linestyle: Any


@contextmanager
def drawing() -> Iterator[None]:
    """The style of the project, whatever the user's own settings are.

    Raises:
        ConfigError: matplotlib or seaborn is not installed.
    """
    try:
        import matplotlib
        import seaborn as sns
    except ImportError as error:
        raise ConfigError(
            "pictures need matplotlib and seaborn, which are not installed; run "
            "`pip install 'hambench[plots]'`, or ask for no pictures"
        ) from error
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        context = sns.plotting_context("notebook", font_scale=0.85)
        matplotlib.rcParams.update(sns.axes_style("whitegrid") | context | _SETTINGS)
        yield


def panels(heights: Sequence[float], widths: Sequence[float]) -> tuple[Figure, Any]:
    """A figure of rows and columns of these sizes in inches, and its (rows, columns) panels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(sum(widths), sum(heights)), layout="constrained")
    ratios = {"height_ratios": heights, "width_ratios": widths}
    return figure, figure.subplots(len(heights), len(widths), squeeze=False, gridspec_kw=ratios)


def saved(figure: Figure, path: Path) -> Path:
    """Write a figure, PNG or SVG by the suffix; the same figure gives the same bytes.

    Raises:
        RunError: the folder cannot be written, or the disk is full.
    """
    kind = path.suffix.removeprefix(".")
    metadata = {"Date": None} if kind == "svg" else None
    with atomic_path(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # names in any script
        figure.savefig(temporary, format=kind, dpi=_DPI, metadata=metadata)
    return path


def shown(name: str, most: int = LONGEST) -> str:
    """A name as text of one line and a bearable length; wide letters count twice."""
    text = printable(name)
    widths = list(accumulate(_width(letter) for letter in text))
    if not widths or widths[-1] <= most:
        return text
    return text[: sum(width < most for width in widths)] + "\u2026"


def _width(letter: str) -> float:
    return 2.0 if east_asian_width(letter) in "WF" else 1.5 if letter in "MW@%" else 1.0


def colours(count: int) -> list[Any]:
    """Colours that everybody tells apart; more than ten are only as far apart as they can be."""
    import seaborn as sns

    return list(sns.color_palette("colorblind" if count <= _COLOURS else "husl", count))


def looks(count: int) -> list[Look]:
    """How models are told apart, twenty at most."""
    palette = colours(_COLOURS)
    return [
        Look(palette[k % _COLOURS], _MARKERS[k % _COLOURS], "-" if k < _COLOURS else "--")
        for k in range(count)
    ]


def scaled(axis: Any, values: Iterable[float], decade: float = _DECADE) -> None:
    """Limits and scale of an axis: logarithmic where values are ``decade`` times apart or more.

    Zeros among such values, costs of what is free, stand at the lower end.
    """
    known = [value for value in values if math.isfinite(value)]
    low, high = min(known), max(known)
    least = min((value for value in known if value > 0), default=0.0)
    if low >= 0 < least and high / least >= decade:
        room = (high / least) ** 0.06
        axis.axes.set(**{f"{axis.axis_name}lim": (least / room, high * room)})
        plain_logarithm(axis, zero=low == 0)
        return
    room = max(0.08 * (high - low), 0.02 * abs(high)) or 1.0
    axis.axes.set(**{f"{axis.axis_name}lim": (low - room, high + room)})
    plain_numbers(axis)


def plain_logarithm(axis: Any, ticks: Sequence[float] = (1, 2, 5), *, zero: bool = False) -> None:
    """A logarithmic axis with plain numbers at some places of every decade, or of some decades.

    With ``zero`` it has a zero, one tick below its lower end.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

    set_scale = getattr(axis.axes, f"set_{axis.axis_name}scale")
    set_scale("log")
    low, high = sorted(axis.get_view_interval())
    decades = math.log10(high / low)
    subs = next(
        (some for some in (ticks, (1, 3)) if decades * len(some) <= _TICKS[axis.axis_name]), (1,)
    )
    locator: Any = LogLocator(subs=subs)
    if zero:
        within = [tick for tick in locator.tick_values(low, high) if low <= tick <= high]
        locator = FixedLocator([0.0, *within])
        set_scale("symlog", linthresh=low, linscale=0.4)
        axis.axes.set(**{f"{axis.axis_name}lim": (-0.3 * low, high)})
    axis.set_major_locator(locator)
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(_plain))


def plain_numbers(axis: Any) -> None:
    """A linear axis with few plain numbers."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(_plain))


def _plain(value: float, _: object) -> str:
    return f"{value:,.7g}" if 1e-4 <= abs(value) < 1e7 else f"{value:.3g}"


def time_unit(seconds: Iterable[float]) -> tuple[str, float]:
    """The unit that suits the longest of some times, and how many seconds it has."""
    longest = max(seconds, default=0.0)
    suiting = (one for one in _TIMES if longest >= _WORTH * one[1])
    return next(suiting, _TIMES[-1])


def legend(figure: Figure, handles: dict[str, Any]) -> None:
    """A legend below all panels, in as many columns as fit."""
    fitting = max(1, int(figure.get_figwidth() / (0.6 + 0.09 * max(map(len, handles)))))
    figure.legend(
        list(handles.values()), list(handles), loc="outside lower center",
        ncols=min(fitting, len(handles)), frameon=False,
    )  # fmt: skip


def key(panel: Axes, handles: Sequence[Any], names: Sequence[str], title: str = "") -> None:
    """The names of models in a panel of their own, which has nothing else."""
    panel.set_axis_off()
    panel.legend(
        handles, names, title=title, loc="center left", bbox_to_anchor=(0, 0.5), frameon=False,
        fontsize="small", title_fontsize="small", alignment="left", borderaxespad=0,
    )  # fmt: skip
