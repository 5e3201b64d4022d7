"""Sections of a report about how good the proposal is: validated, and against its prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mixopt import validation_plots
from mixopt.errors import RunError
from mixopt.files import read_json
from mixopt.mixture import Mixture
from mixopt.number_text import difference, interval, loss, short_count, words
from mixopt.report_page import Section, heading, paragraph, table
from mixopt.report_sections import Pictures
from mixopt.run_directory import Run
from mixopt.summary import UNITS
from mixopt.trial_files import result_from_json
from mixopt.validation import PROPOSAL, Comparison, Validation, mixture_of


@dataclass(frozen=True)
class Validated:
    """A validation, with the comparisons that can be made.

    A baseline of which fewer than two seeds finished beside the proposal's is a line in
    `problems`, not an error: the page shows the rest.
    """

    run: Run

    @property
    def validation(self) -> Validation:
        """The runs."""
        return self.run.validation

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """The proposal less each baseline."""
        return [found for name in self.validation.baselines if (found := self._try(name))]

    @cached_property
    def problems(self) -> list[str]:
        """What could not be compared, and why."""
        missing = [n for n in self.validation.baselines if self._try(n) is None]
        return [
            f"{words(name)}: too few seeds finished to compare the proposal with it."
            for name in missing
        ]

    @property
    def verdict(self) -> str:
        """Whether the proposal won, in a sentence that says so plainly when it did not."""
        if not self.validation.baselines:
            return "The proposal equals every baseline; there was nothing to compare."
        if not self.comparisons:
            return "Too few runs finished to say whether the proposal wins."
        results = {
            verdict: [_named(c.baseline) for c in self.comparisons if c.verdict == verdict]
            for verdict in ("wins", "no difference shown", "loses")
        }
        seeds = min(c.seeds for c in self.comparisons)
        ending = f"({seeds} seeds, paired 95% intervals)"
        if not results["loses"] and not results["no difference shown"]:
            return f"The proposal wins against {_listed(results['wins'])} {ending}."
        parts = []
        if results["loses"]:
            parts.append(f"it loses to {_listed(results['loses'])}")
        if results["no difference shown"]:
            parts.append(
                f"no difference from {_listed(results['no difference shown'], 'or')} is shown"
            )
        if results["wins"]:
            parts.append(f"it wins against {_listed(results['wins'])}")
        return f"The proposal does not win against every baseline: {', and '.join(parts)} {ending}."

    @property
    def style(self) -> str:
        """`good` where the proposal wins everywhere, `bad` where it loses somewhere."""
        verdicts = {c.verdict for c in self.comparisons}
        if "loses" in verdicts:
            return "bad"
        return "good" if verdicts == {"wins"} else ""

    def _try(self, baseline: str, target: str | None = None) -> Comparison | None:
        try:
            return self.validation.compare(baseline, target)
        except RunError:
            return None


def validation_section(validated: Validated, pictures: Pictures) -> Section:
    """Show the proposal against its baselines, in the objective and by evaluation domain."""
    run, validation = validated.run, validated.validation
    unit = UNITS[run.objective.unit]
    values = {name: validation.values(name) for name in validation.mixtures}
    tokens = run.config.validation.tokens or 2 * run.config.proxy.tokens
    body = paragraph(
        f"Every mixture was trained with the same seeds on {short_count(tokens)}"
        f" tokens, by the {run.config.proxy.name} proxy. Seeds pair the runs, so the interval is"
        " of the difference, not of either mean. Lower is better."
    )
    body += _mixtures(validated, unit)
    drawn = validation_plots.plot_validation(values, validated.comparisons, unit)
    about = f"{run.objective.describe()}, {unit}: runs, means and paired differences."
    body += pictures.show("validation", drawn, about)
    body += heading("By evaluation domain") + _domains(validated)
    curves = _curves(run)
    if curves:
        drawn = validation_plots.plot_curves(curves, unit)
        body += pictures.show("validation_curves", drawn, "The objective during training.")
    return Section("validation", "Validation", body)


def prediction_section(validated: Validated, pictures: Pictures) -> Section:
    """Show the differences that were predicted beside those that were validated."""
    run, unit = validated.run, UNITS[validated.run.objective.unit]
    levels, gains = _predicted(run), run.proposal.gains
    rows = []
    for name in validated.validation.mixtures:
        row = [words(name), loss(levels[name]), loss(_mean(validated.validation, name))]
        found = next((c for c in validated.comparisons if c.baseline == name), None)
        if found is not None:
            row += [difference(-gains[name].value), difference(found.mean)]
        rows.append([*row, *[""] * (5 - len(row))])
    columns = ("mixture", "predicted", "validated", "proposal less it, predicted", "validated")
    body = paragraph(
        "Predictions are for the trials' length of training and validation is longer, so compare"
        " the differences, not the levels. A search that picks the best prediction picks its"
        " luckiest error too: expect less than was predicted."
    )
    body += table(columns, rows, caption=f"{run.objective.describe()}, {unit}")
    if validated.comparisons:
        against = {n: (-gain.value, -gain.high, -gain.low) for n, gain in gains.items()}
        drawn = validation_plots.plot_predicted_validated(against, validated.comparisons, unit)
        about = "Differences as predicted, with 90% intervals, and as validated."
        body += pictures.show("validation_predicted", drawn, about)
    return Section("predicted", "Predicted against validated", body)


def _mixtures(validated: Validated, unit: str) -> str:
    rows = []
    for name in validated.validation.mixtures:
        mean, spread = _mean(validated.validation, name), _spread(validated.validation, name)
        row = [words(name), loss(mean), loss(spread)]
        found = next((c for c in validated.comparisons if c.baseline == name), None)
        if found is not None:
            row += [difference(found.mean), interval(found.low, found.high), _says(found)]
        rows.append([*row, *[""] * (6 - len(row))])
    columns = ("mixture", "mean", "sd of seeds", "proposal less it", "95% interval", "proposal")
    styles = ["strong" if name == PROPOSAL else "" for name in validated.validation.mixtures]
    caption = f"{validated.run.objective.describe()}, {unit}"
    return table(columns, rows, caption=caption, texts=[5], styles=styles)


def _domains(validated: Validated) -> str:
    validation, objective = validated.validation, validated.run.objective
    rows, styles = [], []
    for target in validation.trials.targets:
        row = [target, loss(_mean(validation, PROPOSAL, target))]
        for found in validated.comparisons:
            one = validation.compare(found.baseline, target)
            mark = {"wins": " better", "loses": " worse"}.get(one.verdict, "")
            half = loss((one.high - one.low) / 2)
            row.append(f"{difference(one.mean)} \N{PLUS-MINUS SIGN} {half}{mark}")
        rows.append(row)
        styles.append("strong" if target in objective.measured else "")
    less = [f"less {words(found.baseline)}" for found in validated.comparisons]
    caption = "Held-out loss of the proposal, and its paired difference from each baseline (95%)."
    return table(("evaluation domain", "proposal", *less), rows, caption=caption, styles=styles)


def _says(found: Comparison) -> str:
    return {"wins": "better", "loses": "worse"}.get(found.verdict, found.verdict)


def _mean(validation: Validation, mixture: str, target: str | None = None) -> float:
    values = list(validation.values(mixture, target).values())
    return float(np.mean(values)) if values else float("nan")


def _spread(validation: Validation, mixture: str) -> float:
    values = list(validation.values(mixture).values())
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def _predicted(run: Run) -> dict[str, float]:
    """Return the predicted objective of each validated mixture."""
    trials = run.validation.trials
    names = [mixture_of(trial) for trial in trials.table["trial"]]
    weights_ND = trials.weights()
    mixtures = {n: Mixture.from_array(trials.domains, weights_ND[names.index(n)]) for n in names}
    objective_N = run.fit.predict(list(mixtures.values())).objective_N
    return dict(zip(mixtures, objective_N.tolist(), strict=True))


def _curves(run: Run) -> dict[str, list[tuple[NDArray[np.float64], NDArray[np.float64]]]]:
    """Return tokens and objective of each run that was evaluated while it trained."""
    found: dict[str, list[tuple[NDArray[np.float64], NDArray[np.float64]]]] = {}
    for trial in run.validation.trials.finished.table["trial"]:
        file = run.path / "validation" / f"{trial}.json"
        curve = result_from_json(read_json(file)["result"]).curve if file.exists() else ()
        if len(curve) > 1:
            kept = [getattr(losses, run.objective.unit) for losses in curve]
            losses_NM = np.array([[one[n] for n in run.evaluation_names] for one in kept])
            tokens = np.array([losses.tokens for losses in curve], dtype=np.float64)
            found.setdefault(mixture_of(trial), []).append((tokens, run.objective.value(losses_NM)))
    return found


def _named(baseline: str) -> str:
    return f"the {words(baseline)}" if baseline == "best_trial" else words(baseline)


def _listed(names: Sequence[str], joined: str = "and") -> str:
    *first, last = names
    return f"{', '.join(first)} {joined} {last}" if first else last
