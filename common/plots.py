"""One style for all pictures, in light and dark colours.

`picture` draws and writes a file. A name that ends in `-dark`, such as `genes-dark.png`, gets dark
colours, so a page can offer both. A notebook calls `use` once.

Example:
  >>> import io
  >>> file = io.BytesIO()
  >>> with picture(file, (4, 3), theme="dark") as figure:
  ...     _ = figure.subplots().plot([1, 4, 9])
  >>> file.getvalue()[1:4]
  b'PNG'
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal

from etils import epy

with epy.lazy_imports():
    import matplotlib
    from matplotlib import colors, rcsetup
    from matplotlib import figure as figures  # not pyplot: no window system, no global state

Theme = Literal["light", "dark"]

__all__ = ["Theme", "contrasting", "picture", "theme_of", "use"]

# Six colours that colour-blind people can tell apart (Okabe and Ito 2008); the dark theme has
# lighter ones, for contrast with its background.
CYCLES = {
    "light": ["#0072b2", "#d55e00", "#009e73", "#aa4499", "#b88a00", "#4d4d4d"],
    "dark": ["#56b4e9", "#ff9a4d", "#2fcf9f", "#e58fc1", "#e6c34a", "#b3b3b3"],
}
PAPER = {"light": "#ffffff", "dark": "#0d1117"}
INK = {"light": "#1f2328", "dark": "#e6edf3"}
GRID = {"light": "#d5dae0", "dark": "#30363d"}
MAP = {"light": "Blues", "dark": "Blues_r"}  # zero has about the colour of the background

# The settings of Matplotlib are global, so one thread draws at a time.
_lock = threading.RLock()


def _settings(theme: Theme) -> Any:
    """Return the settings of Matplotlib for a theme."""
    ink, paper = INK[theme], PAPER[theme]
    inks = ("text.color", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color")
    papers = ("figure.facecolor", "axes.facecolor", "savefig.facecolor", "legend.facecolor")
    return {
        **dict.fromkeys(inks, ink),
        **dict.fromkeys(papers, paper),
        "axes.edgecolor": ink,
        "axes.prop_cycle": rcsetup.cycler(color=CYCLES[theme]),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": "medium",
        "figure.constrained_layout.use": True,
        "font.size": 10,
        "grid.color": GRID[theme],
        "image.cmap": MAP[theme],
        "legend.edgecolor": GRID[theme],
        "legend.fontsize": "small",
    }


def use(theme: Theme = "light") -> None:
    """Draw all following pictures of this process in a theme, as a notebook does."""
    matplotlib.rcParams.update(_settings(theme))


def theme_of(path: Path) -> Theme:
    """Return the theme that the name of a picture asks for.

    Example:
      >>> theme_of(Path("genes.png")), theme_of(Path("genes-dark.png"))
      ('light', 'dark')
    """
    return "dark" if path.stem.endswith("-dark") else "light"


@contextlib.contextmanager
def picture(
    target: Path | BinaryIO, size: tuple[float, float], *, theme: Theme | None = None
) -> Iterator[figures.Figure]:
    """Return a figure to draw on, which is written at the end of the block.

    The same drawing yields the same bytes of a PNG.

    Args:
      target: the file. Its ending names the format; an open file gets a PNG.
      size: width and height in inches.
      theme: default: `theme_of` the path; light for an open file.
    """
    if theme is None:
        theme = theme_of(target) if isinstance(target, Path) else "light"
    with _lock, matplotlib.rc_context(_settings(theme)):
        figure = figures.Figure(figsize=size)
        yield figure
        known = {"dpi": 120, "metadata": {"Software": None}}  # the version would change the bytes
        is_png = not isinstance(target, Path) or target.suffix.lower() == ".png"
        figure.savefig(target, **(known if is_png else {"dpi": 120}))


def contrasting(colour: Any) -> str:
    """Return black or white, the one that is easier to read on a colour.

    Example:
      >>> contrasting("navy"), contrasting("#ffeecc")
      ('white', 'black')
    """
    red, green, blue = colors.to_rgb(colour)
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
