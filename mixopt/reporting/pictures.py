"""The figures of the page, which are files of the run directory too."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mixopt.plots import figure_png, figure_svg
from mixopt.reporting.page import figure
from mixopt.system import replacing, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Pictures:
    """Keeps each figure of a report as a file, and gives it as an element of the page."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def show(self, name: str, drawn: Figure, description: str) -> str:
        """Write the figure to `<name>.svg` and `<name>.png`; return it with its description."""
        svg = figure_svg(drawn)
        write_text(self._folder / f"{name}.svg", svg)
        with replacing(self._folder / f"{name}.png") as temporary:
            temporary.write_bytes(figure_png(drawn))
        return figure(svg, name, description)
