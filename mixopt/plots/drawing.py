"""matplotlib, as far as figures use it: its one way in.

matplotlib reads the file `matplotlibrc` of the working directory when it is first imported. That
may be a foreign run directory, whose settings could run LaTeX with text of its own, or be a pipe
that never ends. It is imported in a folder of its own there; a user's settings in the usual places
hold.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from pathlib import Path

_FOUND = importlib.util.find_spec("matplotlib")
_ELSEWHERE = (
    contextlib.chdir(Path(str(_FOUND.origin)).parent)
    if _FOUND is not None and os.path.lexists("matplotlibrc")
    else contextlib.nullcontext()
)
with _ELSEWHERE:
    import matplotlib
    from matplotlib import colormaps
    from matplotlib.axes import Axes
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

__all__ = [
    "Axes",
    "Figure",
    "FuncFormatter",
    "LinearSegmentedColormap",
    "MaxNLocator",
    "PercentFormatter",
    "colormaps",
    "matplotlib",
]
