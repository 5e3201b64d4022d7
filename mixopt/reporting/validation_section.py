"""Sections of a report about how good the proposal is: validated, and against its prediction."""

from __future__ import annotations

import numpy as np

from mixopt.mixture import Mixture
from mixopt.objective import UNITS
from mixopt.proposals import PROPOSAL, Comparison, Validation, mixture_of
from mixopt.reporting import validation_plots
from mixopt.reporting.page import PageSection, heading, paragraph, table
from mixopt.reporting.sections import Pictures
from mixopt.run_directory import Run
from mixopt.system import (
    Array,
    difference_text,
    interval_text,
    loss_text,
    name_text,
    short_count,
)
from mixopt.trials import read_entry


def verdict_style(validation: Validation) -> str:
    """Return `good` where the proposal wins everywhere, `bad` where it loses somewhere."""
    verdicts = {found.verdict for found in validation.comparisons}
    if "loses" in verdicts:
        return "bad"
    return "good" if verdicts == {"wins"} else ""


def validation_section(run: Run, pictures: Pictures) -> PageSection:
    """Show the proposal against its baselines, in the objective and by evaluation domain."""
    validation = run.validation
    unit = UNITS[run.objective.value_unit]
    values = {name: validation.values(name) for name in validation.mixtures}
    tokens = run.config.validation.tokens or 2 * run.config.proxy.tokens
    body = paragraph(
        f"Every mixture was trained with the same seeds on {short_count(tokens)}"
        f" tokens, by the {run.config.proxy.name} proxy. Seeds pair the runs, so the interval is"
        " of the difference, not of either mean. Lower is better."
    )
    body += _mixtures(run)
    drawn = validation_plots.plot_validation(values, validation.comparisons, unit)
    about = f"{run.objective.describe()}, {unit}: runs, means and paired differences."
    body += pictures.show("validation", drawn, about)
    body += heading("By evaluation domain") + _domains(run)
    curves = _curves(run)
    if curves:
        drawn = validation_plots.plot_curves(curves, unit)
        body += pictures.show("validation_curves", drawn, "The objective during training.")
    return PageSection("validation", "Validation", body)


def prediction_section(run: Run, pictures: Pictures) -> PageSection:
    """Show the differences that were predicted beside those that were validated."""
    validation, unit = run.validation, UNITS[run.objective.value_unit]
    levels, gains = _predicted(run), run.proposal.gains
    rows = []
    for name in validation.mixtures:
        row = [name_text(name), loss_text(levels[name]), loss_text(validation.mean(name))]
        found = next((c for c in validation.comparisons if c.baseline == name), None)
        if found is not None:
            row += [difference_text(-gains[name].value), difference_text(found.mean)]
        rows.append([*row, *[""] * (5 - len(row))])
    columns = ("mixture", "predicted", "validated", "proposal less it, predicted", "validated")
    body = paragraph(
        "Predictions are for the trials' length of training and validation is longer, so compare"
        " the differences, not the levels. A search that picks the best prediction picks its"
        " luckiest error too: expect less than was predicted."
    )
    body += table(columns, rows, caption=f"{run.objective.describe()}, {unit}")
    if validation.comparisons:
        against = {n: (-gain.value, -gain.high, -gain.low) for n, gain in gains.items()}
        drawn = validation_plots.plot_predicted_validated(against, validation.comparisons, unit)
        about = "Differences as predicted, with 90% intervals, and as validated."
        body += pictures.show("validation_predicted", drawn, about)
    return PageSection("predicted", "Predicted against validated", body)


def _mixtures(run: Run) -> str:
    validation = run.validation
    rows = []
    for name in validation.mixtures:
        mean, spread = validation.mean(name), validation.spread(name)
        row = [name_text(name), loss_text(mean), loss_text(spread)]
        found = next((c for c in validation.comparisons if c.baseline == name), None)
        if found is not None:
            row += [difference_text(found.mean), interval_text(found.low, found.high), _says(found)]
        rows.append([*row, *[""] * (6 - len(row))])
    columns = ("mixture", "mean", "sd of seeds", "proposal less it", "95% interval", "proposal")
    styles = ["strong" if name == PROPOSAL else "" for name in validation.mixtures]
    caption = f"{run.objective.describe()}, {UNITS[run.objective.value_unit]}"
    return table(columns, rows, caption=caption, texts=[5], styles=styles)


def _domains(run: Run) -> str:
    validation, objective = run.validation, run.objective
    rows, styles = [], []
    for target in validation.trials.targets:
        row = [target, loss_text(validation.mean(PROPOSAL, target))]
        for found in validation.comparisons:
            one = validation.compare(found.baseline, target)
            if one is None:
                row.append("")
                continue
            mark = {"wins": " better", "loses": " worse"}.get(one.verdict, "")
            half = loss_text((one.high - one.low) / 2)
            row.append(f"{difference_text(one.mean)} \N{PLUS-MINUS SIGN} {half}{mark}")
        rows.append(row)
        styles.append("strong" if target in objective.measured else "")
    less = [f"less {name_text(found.baseline)}" for found in validation.comparisons]
    caption = "Held-out loss of the proposal, and its paired difference from each baseline (95%)."
    return table(("evaluation domain", "proposal", *less), rows, caption=caption, styles=styles)


def _says(found: Comparison) -> str:
    return {"wins": "better", "loses": "worse"}.get(found.verdict, found.verdict)


def _predicted(run: Run) -> dict[str, float]:
    """Return the predicted objective of each validated mixture."""
    trials = run.validation.trials
    names = [mixture_of(trial) for trial in trials.table["trial"]]
    weights_ND = trials.weights()
    mixtures = {n: Mixture.from_array(trials.domains, weights_ND[names.index(n)]) for n in names}
    objective_N = run.fit.predict(list(mixtures.values())).objective_N
    return dict(zip(mixtures, objective_N.tolist(), strict=True))


def _curves(run: Run) -> dict[str, list[tuple[Array, Array]]]:
    """Return tokens and objective of each run that was evaluated while it trained."""
    found: dict[str, list[tuple[Array, Array]]] = {}
    for trial in run.validation.trials.finished.table["trial"]:
        file = run.path / "validation" / f"{trial}.json"
        curve = read_entry(file)[1].curve if file.exists() else ()
        if len(curve) > 1:
            kept = [getattr(losses, run.objective.unit) for losses in curve]
            losses_NM = np.array([[one[n] for n in run.evaluation_names] for one in kept])
            tokens = np.array([losses.tokens for losses in curve], dtype=np.float64)
            found.setdefault(mixture_of(trial), []).append((tokens, run.objective.value(losses_NM)))
    return found
