"""The section of the page about the validation: all mixtures, their prediction, every loss."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from markupsafe import Markup

from mixopt.config import task_metric
from mixopt.objective import UNITS
from mixopt.proposals import VERDICTS, Comparison, Validation, looks, mixture_of, named
from mixopt.reporting.evidence_figures import plot_validation, plot_validation_curves
from mixopt.reporting.page import Section, change_word, heading, paragraph, table
from mixopt.reporting.page_figures import Pictures
from mixopt.reporting.terminal import CHECKPOINT, forgetting_rows
from mixopt.run_directory import Run
from mixopt.sweeps import read_entry
from mixopt.system import (
    Array,
    difference_text,
    interval_text,
    loss_text,
    share_text,
    short_count,
)


def _of_tasks(losses: Iterable[str]) -> str:
    """Say how metrics of tasks are to be read, where there are some that are no losses."""
    metrics = {name: task_metric(name) for name in losses}
    if all(found is None or found[1] == "bits_per_byte" for found in metrics.values()):
        return ""
    return (
        " A metric of a task is in its own unit, and a difference has its sign turned where higher"
        " is better."
    )


def validation_section(run: Run, pictures: Pictures) -> Section:
    """Show every mixture that was trained, in the objective and by loss, and its prediction."""
    validation = run.validation
    unit = UNITS[run.objective.value_unit]
    tokens = run.config.validation_tokens
    body = paragraph(
        f"Every mixture was trained with the same seeds on {short_count(tokens)}"
        f" tokens, by the {run.config.proxy.name} proxy. Seeds pair the runs, so the interval is"
        " of the difference, not of either mean; it allows for seeds that were added after a look"
        f" ({_looks(run)}). Lower is better."
    )
    body += _mixtures(run)
    drawn = plot_validation(validation)
    about = f"{run.objective.describe()}, {unit}: runs, means and paired differences."
    body += pictures.show("validation", drawn, about)
    body += _predictions(run) + _costs(run) + _forgetting(run)
    body += heading("By evaluation domain") + _domains(run)
    curves = _curves(run)
    if curves:
        drawn = plot_validation_curves(curves, unit)
        body += heading("During training")
        body += pictures.show("validation_curves", drawn, "The objective during training.")
    return Section("validation", "Validation", body)


def _predictions(run: Run) -> Markup:
    """Show the gains that were predicted beside those that were validated."""
    found, unit = run.recommendation, UNITS[run.objective.value_unit]
    rows = []
    for name, gain in found.gains.items():
        one, before = gain.validated, gain.predicted
        row = [named(name), difference_text(one.value), interval_text(one.low, one.high)]
        if before is not None:
            row += [difference_text(before.value), interval_text(before.low, before.high)]
        rows.append([*row, *[""] * (5 - len(row)), gain.verdict])
    columns = (
        "over",
        "validated gain",
        "95% interval",
        "predicted gain",
        "90% interval",
        "verdict",
    )
    body = heading("Predicted against validated") + paragraph(
        f"Gains of {named(found.chosen)}, above 0 where it is better. Compare gains, not levels:"
        " validation trains longer than a trial. A search that picks the best prediction picks its"
        " luckiest error too, so expect less than was predicted."
    )
    return body + table(columns, rows, texts=[5], caption=f"{run.objective.describe()}, {unit}")


def _costs(run: Run) -> Markup:
    """Show how all losses change that the objective does not measure."""
    costs = run.recommendation.costs
    if not costs:
        return Markup()
    mixture, rows = run.recommendation.mixture, []
    for name, cost in costs.items():
        share = share_text(mixture[name]) if name in mixture else "target"
        interval = interval_text(cost.low, cost.high)
        rows.append((name, share, difference_text(cost.value), interval, change_word(cost)))
    unit = UNITS[run.objective.unit]
    caption = f"Loss of the recommended mixture - that of natural, {unit}; above 0 is worse."
    caption += _of_tasks(costs)
    columns = ("loss", "share", "change", "95% interval", "")
    title = heading("What the objective does not measure")
    return title + table(columns, rows, caption=caption, texts=[4])


def _forgetting(run: Run) -> Markup:
    """Show what trials from a checkpoint forget; nothing where they begin with random weights."""
    mixtures, rows = forgetting_rows(run)
    if not rows:
        return Markup()
    text = (
        f"Held-out losses of the checkpoint that all trials begin with ({CHECKPOINT}), measured"
        " before any step on the same text, and of runs from it. A change above 0 is what is"
        " forgotten: its interval is over seeds, which differ in the order of the data alone."
    )
    columns = ("evaluation domain", CHECKPOINT, *mixtures, "change", "95% interval")
    unit, chosen = UNITS[run.objective.unit], named(run.recommendation.chosen)
    caption = f"{unit}; the change is {chosen} - the checkpoint"
    return (
        heading("What the checkpoint knew")
        + paragraph(text)
        + table(columns, rows, caption=caption)
    )


def _mixtures(run: Run) -> Markup:
    validation = run.validation
    rows = []
    for name in validation.mixtures:
        mean, spread = validation.mean(name), validation.spread(name)
        row = [named(name), str(len(validation.values(name))), loss_text(mean), loss_text(spread)]
        found = next((c for c in validation.comparisons if c.baseline == name), None)
        if found is not None:
            row += [difference_text(found.mean), interval_text(found.low, found.high), _says(found)]
        rows.append([*row, *[""] * (7 - len(row))])
    leading = named(validation.leading)
    less = f"{leading} - baseline"
    columns = ("mixture", "seeds", "mean", "sd of seeds", less, "95% interval", leading)
    chosen = run.recommendation.chosen
    styles = ["strong" if name == chosen else "" for name in validation.mixtures]
    caption = f"{run.objective.describe()}, {UNITS[run.objective.value_unit]}"
    if validation.means_note:
        caption += f". {validation.means_note}"
    return table(columns, rows, caption=caption, texts=[6], styles=styles)


def _domains(run: Run) -> Markup:
    """Compare what is recommended with every other mixture, loss by loss."""
    validation, chosen = run.validation, run.recommendation.chosen
    others = _compared_with(validation, chosen)
    rows, styles = [], []
    for target in _by_difference(validation, chosen, others):
        found = [validation.compare(other, target, of=chosen) for other in others]
        mean = loss_text(validation.mean(chosen, target))
        rows.append([target, mean, *(_difference(one) for one in found)])
        styles.append("strong" if target in run.objective.measured else "")
    columns = ("evaluation domain", named(chosen), *(f"- {named(other)}" for other in others))
    caption = f"Held-out loss of {named(chosen)}, and its paired difference from each other (95%)."
    caption += _of_tasks(validation.trials.targets)
    return table(columns, rows, caption=caption, styles=styles)


def _compared_with(validation: Validation, chosen: str) -> list[str]:
    """Return the baselines; before them the leading proposal where a baseline is recommended."""
    names = [one.baseline for one in validation.comparisons_of(chosen)]
    leading = validation.leading
    if chosen in validation.baselines and validation.compare(leading, of=chosen) is not None:
        return [leading, *names]
    return names


def _difference(found: Comparison | None) -> str:
    if found is None:
        return ""
    mark = {"wins": " better", "loses": " worse"}.get(found.verdict, "")
    half = loss_text((found.high - found.low) / 2)
    return f"{difference_text(found.mean)} \N{PLUS-MINUS SIGN} {half}{mark}"


def _by_difference(validation: Validation, chosen: str, others: Sequence[str]) -> list[str]:
    """Return the losses, those that differ most from the first other mixture before the rest."""

    def apart(target: str) -> float:
        found = validation.compare(others[0], target, of=chosen) if others else None
        return 0.0 if found is None else -abs(found.mean)

    return sorted(validation.trials.targets, key=apart)


def _looks(run: Run) -> str:
    config = run.config.validation
    at = ", ".join(str(count) for count in looks(config.seeds, config.most_seeds))
    return f"looks at {at} seeds, each interval at {run.validation.level:.1%}, together 95%"


def _says(found: Comparison) -> str:
    return VERDICTS[found.verdict][1]


def _curves(run: Run) -> dict[str, list[tuple[Array, Array]]]:
    """Return tokens and objective of each run that was evaluated while it trained."""
    found: dict[str, list[tuple[Array, Array]]] = {}
    for trial in run.validation.trials.finished.table["trial"]:
        file = run.path / "validation" / f"{trial}.json"
        curve = read_entry(file)[1].curve if file.exists() else ()
        unit = run.objective.unit
        known = [(one.tokens, getattr(one, unit) | one.tasks) for one in curve]
        # A trainer may measure tasks at the end alone; losses that do not count change nothing.
        kept = [one for one in known if set(run.objective.measured) <= set(one[1])]
        if len(kept) > 1:
            losses_NM = np.array([[one.get(n, 0.0) for n in run.config.losses] for _, one in kept])
            tokens = np.array([at for at, _ in kept], dtype=np.float64)
            found.setdefault(mixture_of(trial), []).append((tokens, run.objective.value(losses_NM)))
    return found
