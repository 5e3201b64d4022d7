"""Experts of a run directory: what `mixopt experts` prints and draws."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl

from mixopt.errors import MixoptError, RoutingError
from mixopt.online import MIXTURE_LOG, LoggedChange, read_changes
from mixopt.proposals import best_trial, mixture_of
from mixopt.reporting.expert_changes import ExpertChange, expert_changes
from mixopt.reporting.figure_style import (
    ACCENT,
    FAINT,
    INK,
    LETTER,
    Axes,
    Figure,
    LinearSegmentedColormap,
    figure_svg,
    label,
    legend,
    new_figure,
    ticks,
    written,
)
from mixopt.routing import (
    EXPERTS,
    Assignments,
    ExpertCounts,
    ExpertRecord,
    LayerAssignments,
    Summary,
    Window,
    expert_profiles,
    key_column,
    layer_table,
    lift,
    load_shares,
)
from mixopt.run_directory import SWEEP, VALIDATE, Run, Step, TrialExperts, load_run
from mixopt.sweeps import read_entry
from mixopt.system import Array, IntArray, check_links, write_text
from mixopt.trials import TrialResult

FIGURES = "figures"
DESCRIPTIONS = {
    "experts_load": "The load of every layer's experts in training; grey is even, darker is more.",
    "experts_domains": "How each domain's tokens fall on the experts; grey is an even share.",
    "experts_over_time": "Balance and specialisation of each layer over the steps.",
}
SHOWN = 12  # trials listed
DEEP = 3.0  # powers of two on each side of the colour scale
COLOURS = {  # of a load, from the lowest to the highest
    0.0: "#f3faff",
    0.25: "#a9d6f2",
    0.5: "#bcbab5",
    0.68: "#cf8f45",
    0.85: "#8f3d00",
    1.0: "#300c00",
}
LOADS = LinearSegmentedColormap.from_list("load", list(COLOURS.items()))
SCREEN = 5.2  # inches, maximum height of a map
MAX_LAYERS = 3  # layers of the map by domain
MAX_LAYER_TICKS = 16
MAX_EXPERT_TICKS = 32
MEASURES = {
    "load_entropy": "load entropy; 1 is even",
    "max_violation": "MaxVio: largest load above an even one",
    "dead": "dead experts",
    "specialisation": "specialisation; 1 is one domain each",
}


@dataclass(frozen=True, eq=False)
class PretrainingExperts:
    """The experts of a pretraining since its domains last changed.

    Attributes:
        path: The run directory.
        windows: Windows since the domains last changed, at least one; read from disk when used.
        logged: Changes of weights.
        changes: The experts before and after the largest change, or the requested one.
        train: Assignments in the second half of the steps, after experts have specialised.
        summary: Summary of `train`, with the diagnoses.
    """

    path: Path
    windows: tuple[Window, ...]
    logged: tuple[LoggedChange, ...]
    changes: tuple[ExpertChange, ...]
    train: Assignments
    summary: Summary

    @classmethod
    def read(cls, path: Path, change: int | None) -> Self | None:
        """Read a run directory; None if it has no records of experts."""
        recorded = ExpertRecord(path / EXPERTS).windows()
        if not recorded:
            return None
        last = recorded[-1].assignments
        windows = tuple(window for window in recorded if window.assignments.domains == last.domains)
        for window in windows:
            last.check_sizes(last.domains, window.assignments.sizes, f"{path}: an earlier window")
        logged = tuple(read_changes(path / MIXTURE_LOG))
        train = reduce(add, [window.assignments for window in _settled(windows)])
        changes = expert_changes(windows, logged, change)
        return cls(path, windows, logged, changes, train, Summary.of(train))

    @property
    def steps(self) -> tuple[int, int]:
        """The number of steps before `train`, and its last step."""
        return _settled(self.windows)[0].start, self.windows[-1].end

    def figures(self) -> dict[str, Figure]:
        """Draw the figures, by name."""
        compared = plot_domain_experts(self.train)
        figures = {"experts_load": plot_load(self.train), "experts_domains": compared}
        if len(self.windows) > 1:
            tables = [(float(window.end), window.layers) for window in self.windows]
            marked = [float(change.step - 1) for change in self.logged]
            figures["experts_over_time"] = plot_windows(tables, changes=marked)
        return figures

    def to_json(self) -> dict[str, Any]:
        """Return the summary as JSON values."""
        return {
            "directory": str(self.path),
            "kind": "pretraining",
            "steps": list(self.steps),
            **self.summary.to_json(),
            "collapsed": self.summary.collapsed,
            "changes": [change.to_json() for change in self.changes],
            "changes_of_weights": len(self.logged),
        }

    def __str__(self) -> str:
        """Return it as text of one screen."""
        before, last = self.steps
        texts = [f"steps {before + 1:,} to {last:,}: {self.summary}".rstrip()]
        texts += [str(change) for change in self.changes]
        more = len(self.logged) - len(self.changes)
        if more and self.changes:
            texts.append(f"{more} other changes of weights are in the log; --change STEP shows one")
        return "\n\n".join(texts)


def _settled(windows: Sequence[Window]) -> list[Window]:
    return [window for window in windows if 2 * window.end > windows[-1].end]


@dataclass(frozen=True, eq=False)
class SweepExperts:
    """The experts of a sweep.

    Attributes:
        path: The run directory.
        trials: The table of the sweep's trials.
        counts: Assignments by trial, those of a validation last.
        shown: The trial shown in full: of the recommended mixture if validated, else the best one.
        summary: Summary of this trial's experts, with the diagnoses.
    """

    path: Path
    trials: TrialExperts
    counts: Mapping[str, ExpertCounts]
    shown: str
    summary: Summary

    @classmethod
    def read(cls, path: Path, *, run: Run | None = None, trust: bool = False) -> Self | None:
        """Read a run directory, or take an opened run; None if no trial has experts."""
        swept = _results(SWEEP, path)
        trials = TrialExperts.of(swept)
        if trials is None:
            return None
        counts = {}
        for result in [*swept, *_results(VALIDATE, path)]:
            if result.experts is not None:
                counts[result.trial] = result.experts
        name, *_ = counts
        with suppress(MixoptError):  # before the sweep ends there may be no best trial
            name = shown_trial(run or load_run(path, trust=trust), counts)
        return cls(path, trials, counts, name, Summary.of(counts[name].train))

    @property
    def specialisation(self) -> dict[str, float | None]:
        """What the expert says about the domain on held-out text, by layer; 1 is all."""
        table = layer_table(self.counts[self.shown].held_out).select(key_column(), "specialisation")
        return dict(table.iter_rows())

    def figures(self) -> dict[str, Figure]:
        """Draw the figures of the shown trial, by name."""
        counts = self.counts[self.shown]
        compared = plot_domain_experts(counts.held_out)
        return {"experts_load": plot_load(counts.train), "experts_domains": compared}

    def to_json(self) -> dict[str, Any]:
        """Return the summary as JSON values."""
        return {
            "directory": str(self.path),
            "kind": "sweep",
            "trials": self.trials.by_trial().to_dicts(),
            "collapsed": list(self.trials.collapsed),
            "shown": self.shown,
            **self.summary.to_json(),
            "specialisation": self.specialisation,
        }

    def __str__(self) -> str:
        """Return a text: the trials, then the shown one."""
        table = self.trials.by_trial()
        table = table.sort("has_collapsed", "load_entropy", descending=[True, False])
        lines = [
            f"experts collapsed in {len(self.trials.collapsed)} of {table.height} trials",
            f"{'trial':<18}{'load entropy':>14}{'MaxVio':>10}{'dead':>6}{'specialisation':>16}",
        ]
        for row in table.head(SHOWN).iter_rows(named=True):
            specialisation = ""
            if row["specialisation"] is not None:
                specialisation = f"{row['specialisation']:.3f}"
            line = (
                f"{row['trial'][:17]:<18}{row['load_entropy']:>14.3f}{row['max_violation']:>10.2f}"
                f"{row['dead']:>6}{specialisation:>16}"
            )
            if row["collapse"] is not None:
                line += f"  {row['collapse'].partition(';')[0]}"
            lines.append(line)
        if table.height > SHOWN:
            lines.append(f"and {table.height - SHOWN} more, in experts.parquet")
        lines += ["", f"trial {self.shown}: {self.summary}"]
        values = []
        for layer, value in self.specialisation.items():
            if value is not None:
                values.append(f"{layer}: {value:.3f}")
        if values:
            lines.append(f"held-out text: specialisation by layer: {'  '.join(values)}")
        return "\n".join(lines)


def _results(step: Step, path: Path) -> list[TrialResult]:
    """Return the results of a step's trials, in the order of their names."""
    return [read_entry(file)[1] for file in sorted(step.trial_files(path))]


RunExperts = PretrainingExperts | SweepExperts


def experts(directory: str | Path, *, change: int | None = None, trust: bool = False) -> RunExperts:
    """Read the records of a run's experts.

    Args:
        directory: A run or a pretraining, finished or running.
        change: For a pretraining: the first step on new weights; None: the largest changes.
        trust: Follow links that lead out of the directory.

    Returns:
        An object that prints as a summary, and has `to_json()`, `summary` and `figures()`.

    Raises:
        RoutingError: There is no such directory, it has no records of experts, a file cannot be
            read, or there is no such change.
    """
    path = Path(directory)
    if not path.is_dir():
        raise RoutingError(f"{path}: no such directory; give that of a sweep or a pretraining")
    if not trust:
        check_links(path, RoutingError)
    experts_found = PretrainingExperts.read(path, change)
    if experts_found is not None:
        return experts_found
    swept = SweepExperts.read(path, trust=trust)
    if swept is None:
        raise RoutingError(
            f"{path}: nothing is recorded about experts: the model has none, or no trial or window"
            " of steps is finished; a sweep has them with proxy.options.size: moe-tiny, a"
            " pretraining with a model such as olmoe"
        )
    if change is not None:
        raise RoutingError(f"{path}: --change is of a pretraining, and this is a sweep")
    return swept


def draw_experts(experts: RunExperts) -> list[Path]:
    """Write the figures to the run directory's folder `figures`; return the files."""
    files = []
    for name, figure in experts.figures().items():
        files.append(experts.path / FIGURES / f"{name}.svg")
        write_text(files[-1], figure_svg(figure))
    return files


def shown_trial(run: Run, counts: Mapping[str, ExpertCounts]) -> str:
    """Return the trial of the recommended mixture, or the best trial with counts."""
    best, _ = best_trial(run.trials, run.objective)
    if run.is_done("validate"):
        chosen = run.recommendation.chosen
        for name in counts:
            if mixture_of(name) == chosen:
                return name
    if best in counts:
        return best
    first, *_ = counts
    return first


def plot_load(assignments: Assignments) -> Figure:
    """Plot the load of every expert in every layer."""
    names = [layer.key for layer in assignments.layers]
    load_LE = np.full((len(names), max(layer.experts for layer in assignments.layers)), np.nan)
    for row, layer in zip(load_LE, assignments.layers, strict=True):
        row[: layer.experts] = load_shares(layer.counts_DE.sum(0)) * layer.experts
    figure, axes_RC = new_figure(1.3 + min(SCREEN, 0.22 * len(names)))
    axes = axes_RC[0, 0]
    image = _draw_loads(axes, load_LE)
    step = math.ceil(len(names) / MAX_LAYER_TICKS)
    axes.set_yticks(range(0, len(names), step), names[::step])
    ticks(8, axes.xaxis, integer=True)
    label(axes, x="expert", y="layer")
    _load_scale(figure, image, axes)
    return figure


def plot_domain_experts(assignments: Assignments) -> Figure:
    """Plot the shares of each domain's tokens by expert, in a few layers."""
    last = len(assignments.layers) - 1
    places = np.unique(np.linspace(0, last, min(MAX_LAYERS, last + 1)).round().astype(int))
    chosen = [assignments.layers[place] for place in places]
    height = 0.75 + 0.19 * len(assignments.domains)
    figure, axes_RC = new_figure(0.6 + height * len(chosen), 1, len(chosen))
    image: Any = None
    for axes, layer in zip(axes_RC[:, 0], chosen, strict=True):
        profile_DE = expert_profiles(layer.counts_DE)
        order_E = _by_domain(layer)
        image = _draw_loads(axes, profile_DE[:, order_E] * layer.experts)
        axes.set_yticks(range(len(assignments.domains)), list(map(written, assignments.domains)))
        step = math.ceil(len(order_E) / MAX_EXPERT_TICKS)
        axes.set_xticks(range(0, len(order_E), step), [str(expert) for expert in order_E[::step]])
        label(axes, title=f"layer {layer.key}")
    label(axes_RC[-1, 0], x="expert, beside those that serve the same domain")
    _load_scale(figure, image, axes_RC)
    return figure


def plot_windows(
    windows: Sequence[tuple[float, pl.DataFrame]], changes: Sequence[float] = ()
) -> Figure:
    """Plot balance and specialisation over time, and changes of weights."""
    ends_W = [end for end, _ in windows]
    figure, axes_RC = new_figure(4.6, 2, 2)
    for place, (name, title) in enumerate(MEASURES.items()):
        axes = axes_RC.flat[place]
        value_WL = np.array([table[name].to_numpy() for _, table in windows], float)
        lines = axes.plot(ends_W, value_WL, color=FAINT, linewidth=0.8, alpha=0.7)
        lines[0].set_label("a layer")
        mean_W = np.ma.masked_invalid(value_WL).mean(1)  # none without values
        axes.plot(ends_W, mean_W, color=ACCENT, linewidth=2, label="mean")
        low, high = axes.get_ylim()
        axes.set_ylim(min(0.0, low), 1.03 * high)
        ticks(5, axes.xaxis)
        for number, change in enumerate(changes):
            about = None if number else "weights change"
            axes.axvline(change, color=INK, linewidth=0.9, dashes=(4, 2), alpha=0.5, label=about)
        label(axes, x="step" if place > 1 else "", title=title)
    legend(axes_RC[0, 0], loc="lower right")
    return figure


def _draw_loads(axes: Axes, load: Array) -> Any:
    """Draw multiples of the even load; no load at all has the lowest colour."""
    with np.errstate(divide="ignore"):
        powers = np.clip(np.log2(load), -DEEP, DEEP)
    axes.grid(visible=False)
    return axes.imshow(
        powers, cmap=LOADS, vmin=-DEEP, vmax=DEEP, aspect="auto", interpolation="nearest"
    )


def _load_scale(figure: Figure, image: Any, axes: Any) -> None:
    """Draw the colour scale of loads beside the axes."""
    bar = figure.colorbar(image, ax=axes, location="right", shrink=0.8, aspect=24, pad=0.02)
    bar.set_label("times an even load", fontsize=LETTER, color=INK)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=LETTER - 1, colors=INK, length=2)
    bar.set_ticks([-3, -2, -1, 0, 1, 2, 3], labels=["1/8", "1/4", "1/2", "1", "2", "4", "8"])


def _by_domain(layer: LayerAssignments) -> IntArray:
    """Return the experts ordered by their most overrepresented domain, and by how much."""
    lift_DE = np.nan_to_num(lift(layer.counts_DE))
    return np.lexsort((-lift_DE.max(0), lift_DE.argmax(0))).astype(np.int64)
