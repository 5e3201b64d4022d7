"""The picture of a schedule: stacked shares over tokens, and what runs out.

Bands are told apart by their names at the right and by light and dark, not by hue, so that the
picture can be printed in grey and has room for sixty domains.

Shapes: D domains, T points in time.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mixopt.errors import ConfigError
from mixopt.plots.drawing import Axes, Figure, FuncFormatter
from mixopt.plots.figure_style import (
    INK,
    LETTER,
    PAPER,
    WIDTH,
    figure_svg,
    plain,
    written,
)
from mixopt.plots.share_bands import LINE, SMALL, draw_bands, name_bands
from mixopt.sampling import ScheduleForecast
from mixopt.system import Array, replacing, share_text, short_count, write_text

_FORMATS = (".png", ".svg")
_LETTER_WIDTH = 0.0105  # of the axes
_DOTS = 160  # of an inch in a PNG


def draw_schedule(forecast: ScheduleForecast, path: Path) -> None:
    """Write the picture.

    Args:
        forecast: What the schedule draws.
        path: The file, .png or .svg.

    Raises:
        ConfigError: The file is of another format.
    """
    if path.suffix not in _FORMATS:
        raise ConfigError(f"--figure {path}: expected a name that ends in .png or .svg")
    figure = plot_schedule(forecast)
    if path.suffix == ".svg":
        write_text(path, figure_svg(figure))
        return
    with replacing(path) as part, part.open("wb") as stream:
        figure.savefig(stream, format="png", dpi=_DOTS)


def plot_schedule(forecast: ScheduleForecast) -> Figure:
    """Show shares over tokens with the borders of stages."""
    schedule = forecast.schedule
    shares = max(3.4, LINE * len(schedule.domains) + 0.4)
    height = 0.5 + shares + 0.3
    figure = Figure(figsize=(WIDTH * 1.25, height), facecolor=PAPER)
    axes = figure.add_axes((0.075, 0.5 / height, 0.655, shares / height))  # names at the right
    plain(axes)
    _shares(axes, forecast)
    axes.set_xlim(0, schedule.tokens)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
    axes.set_xlabel("tokens", fontsize=LETTER, color=INK)
    return figure


def _shares(axes: Axes, forecast: ScheduleForecast) -> None:
    at_T, shares_TD = _over_time(forecast)
    names = _by_size(forecast)
    order = [forecast.schedule.domains.index(name) for name in names]
    bands_TD = shares_TD[:, order]
    middles_TD = draw_bands(axes, at_T, bands_TD)
    _borders(axes, forecast)
    for d, name in enumerate(names):
        out = forecast.runs_out.get(name)
        if out is not None:
            middle = float(np.interp(out.tokens, at_T, middles_TD[:, d]))
            axes.plot(
                [out.tokens],
                [middle],
                marker="X",
                markersize=6,
                color=INK,
                markeredgecolor=PAPER,
                clip_on=False,
                zorder=5,
            )
    ends = zip(names, bands_TD[0].tolist(), bands_TD[-1].tolist(), strict=True)
    name_bands(axes, [_said(forecast, *one) for one in ends], middles_TD[-1])


def _said(forecast: ScheduleForecast, name: str, first: float, last: float) -> str:
    """Say a domain's name, its shares at both ends, and when it runs out."""
    said = share_text(first)
    if abs(first - last) >= 5e-4:
        said = f"{said} \N{RIGHTWARDS ARROW} {share_text(last)}"
    out = forecast.runs_out.get(name)
    if out is not None:
        said += f", \N{HEAVY MULTIPLICATION X} at {short_count(out.tokens)}"
    return f"{written(name)}  {said}"


def _borders(axes: Axes, forecast: ScheduleForecast) -> None:
    """Draw a line between stages; above it their names, where these have room."""
    start, free = 0.0, 0.0
    for stage in forecast.stages:
        stop = start + stage.tokens / forecast.schedule.tokens
        if start:
            axes.axvline(
                start * forecast.schedule.tokens, color=INK, linewidth=0.9, linestyle=(0, (4, 2))
            )
        place, width = max(start, free), _LETTER_WIDTH * (len(stage.name) + 1)
        if place + width < stop or place == start:
            axes.annotate(
                stage.name,
                (place, 1.0),
                (2, 4),
                xycoords="axes fraction",
                textcoords="offset points",
                fontsize=SMALL,
                color=INK,
                annotation_clip=False,
            )
            free = place + width
        start = stop


def _over_time(forecast: ScheduleForecast) -> tuple[Array, Array]:
    """Return tokens, and shares at the beginning and the end of each stage."""
    schedule, at, shares = forecast.schedule, list[int](), list[list[float]]()
    start = 0
    for k, stage in enumerate(schedule.stages):
        stop = start + schedule.stage_tokens(k)
        for place, mixture in ((start, stage.mixture), (stop, stage.to or stage.mixture)):
            at.append(place)
            shares.append([mixture[name] for name in schedule.domains])
        start = stop
    return np.array(at, float), np.array(shares)


def _by_size(forecast: ScheduleForecast) -> list[str]:
    drawn = forecast.drawn
    return sorted(drawn, key=lambda name: -drawn[name])
