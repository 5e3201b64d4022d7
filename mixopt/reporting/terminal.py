"""Results of a run and its steps for the terminal: the answer in one screen, and proposals."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from mixopt.baselines import is_built_in
from mixopt.difference import (
    HIGHER_UNITS,
    UNITS,
    Difference,
    ends_text,
    size_text,
    unit_text,
    value_text,
)
from mixopt.fitting import noise_of, readiness
from mixopt.mixture import Mixture, Phases, branch_shares
from mixopt.proposals import (
    Forecast,
    Front,
    Interval,
    Proposal,
    Recommendation,
    Validation,
    baseline_breaks,
    guarded,
    is_proposal,
    named,
)
from mixopt.reporting.tables import table_text
from mixopt.run_directory import RECOMMENDATION, Run, base_losses
from mixopt.system import share_text

MAX_SHARES = 4  # domains shown for a point of a front
MIN_SHARE = 0.005  # of these
LARGEST = "largest weights"  # their column
MAX_LISTED = 24  # maximum domains of a tree listed one by one
MAX_OTHERS = 5  # losses outside the objective named on the first screen
Table = tuple[str, Sequence[str], list[tuple[str, ...]]]  # title, columns, rows


def run_summary(run: Run) -> dict[str, Any]:
    """Return the result of a run as plain values."""
    proposal, recommendation = run.proposal, run.recommendation
    return {
        "path": str(run.path),
        "recommendation": recommendation.to_json(),
        "proposal": str(run.path / "proposal.yaml"),
        "report": str(run.path / "report.html"),
        "weights": dict(recommendation.mixture),
        "natural": dict(recommendation.natural),
        "objective": run.objective.describe(),
        "predicted": asdict(proposal.predicted_objective),
        "validation": run.validation.to_json(),
    }


def summary_text(run: Run) -> str:
    """Return a run's recommendation with its reasons, in one screen, and the paths of files."""
    lines = [recommendation_text(run)]
    if forgetting := forgetting_table(run):
        lines.append(f"{table_text(*forgetting)}\n")
    lines += [
        f"recommendation: {run.path / RECOMMENDATION}",
        f"report:         {run.path / 'report.html'}",
    ]
    return "\n".join(lines)


def step_result(run: Run, step: str) -> dict[str, Any]:
    """Return the result of a finished step as plain values."""
    path = run.path
    if step == "prepare":
        return {
            "corpus": str(path / "corpus"),
            "tokenizer": run.config.corpus.tokenizer,
            "tokens": run.corpus.inventory,
            "vocab_size": run.corpus.vocab_size,
        }
    if step == "design":
        roles = Counter(trial.role for trial in run.design)
        return {"trials": len(run.design), "roles": dict(roles)}
    if step == "sweep":
        return {"trials": len(run.trials), "table": str(path / "trials.parquet")}
    if step == "fit":
        ready = readiness(run.fit).to_json()
        return {"regressor": run.fit.name, "summary": run.fit.summary(), "readiness": ready}
    if step == "validate":
        content = run.recommendation.to_json()
        return {"recommendation": content, "validation": run.validation.to_json()}
    return run.proposal.to_json() if step == "propose" else {"report": str(path / "report.html")}


def forgetting_table(run: Run) -> Table | None:
    """Return the table of the start checkpoint's losses beside those of mixtures."""
    base = base_losses(run)
    if base is None or not run.is_done("validate"):
        return None
    validation = run.validation
    chosen = run.recommendation.chosen
    mixtures = [chosen]
    if "natural" in validation.mixtures and chosen != "natural":
        mixtures = ["natural", chosen]
    rows = []
    for name in validation.trials.targets:
        if name not in base:
            continue
        label, unit = called_loss(name, run.objective.items)
        cells = [label, size_text(base[name], unit)]
        cells += [size_text(validation.mean(mixture, name), unit) for mixture in mixtures]
        gain = validation.compare_with(base[name], name, of=chosen)
        if gain is None:
            cells += ["", ""]
        else:
            cells += [gain.mean_text, gain.ends_text]
        rows.append(tuple(cells))
    title = f"What the checkpoint knew; below 0 is forgotten, {UNITS[run.objective.unit]}"
    names = [named(mixture, validation.mixtures) for mixture in mixtures]
    columns = ("loss", "before: the checkpoint", *names, "gain", "95% interval")
    return title, columns, rows


def called_loss(name: str, shares: Collection[str]) -> tuple[str, str]:
    """Return the label of a loss and its unit: points for shares of right answers, else ""."""
    if name in shares:
        return f"{name}, points", "right_answers"
    return name, ""


def headline_of(run: Run) -> str:
    """Return the answer of a validated run in one line, a broken guardrail first."""
    headline = run.recommendation.headline
    broken = "; ".join(f"guardrail {line}" for line in broken_guardrails(run))
    if broken:
        return f"BREAKS {broken}. {headline}"
    return headline


def recommendation_text(run: Run) -> str:
    """Return the answer in one line, the mixture, its gains, and the other losses."""
    recommendation = run.recommendation
    title = f"Shares of the training tokens, for {recommendation.objective}"
    lines = [
        headline_of(run),
        "",
        _shares_table(title, recommendation, "recommended"),
        table_text(*gain_table(recommendation, run.validation), texts=("verdict",)),
    ]
    note = run.validation.means_note
    if note:
        lines += [note, ""]
    if recommendation.other_losses:
        lines.append(_other_losses(recommendation.other_losses, run.objective.items))
    warnings = [*recommendation.warnings, *broken_by_baselines(run)]
    lines += _labelled("warning", warnings)
    return "\n".join(lines) + "\n"


def _labelled(label: str, lines: Iterable[str]) -> list[str]:
    """Return lines that begin with a label."""
    return [f"{label}: {line}" for line in lines]


def gain_table(recommendation: Recommendation, validation: Validation) -> Table:
    """Return the table of the recommended mixture, then of its gain over each other one."""
    chosen = recommendation.chosen
    unit = recommendation.unit
    value = "metric" if unit in HIGHER_UNITS else "loss"
    names = [chosen, *recommendation.gains]
    mean = value_text(validation.mean(chosen), unit)
    rows: list[tuple[str, ...]] = [(named(chosen, names), mean, "", "", "", "")]
    for name, gain in in_order(recommendation.gains).items():
        predicted = recommendation.predicted_gains.get(name)
        rows.append(
            (
                named(name, names),
                value_text(validation.mean(name), unit),
                gain.mean_text,
                gain.ends_text,
                predicted.mean_text if predicted else "",
                gain.verdict,
            )
        )
    title = f"Gain of {named(chosen, names)}, {unit_text(unit)} (above 0 is better)"
    columns = ("over", value, "validated gain", "95% interval", "predicted gain", "verdict")
    return title, columns, rows


def broken_guardrails(run: Run) -> tuple[str, ...]:
    """Return the guardrails that the recommended mixture breaks in the mean over seeds."""
    rails = run.constraints.guardrails
    if rails is not None and rails.has_noise:
        rails = replace(rails, noise=noise_of(run.fit).by_name)
    checks = guarded(run.validation, rails, run.recommendation.chosen)
    return tuple(str(check) for check in checks if check.is_broken)


def own_baselines(run: Run) -> dict[str, Mixture]:
    """Return the baselines that the user defined."""
    phases = Phases.of(run.config.design.phases)
    mixtures = {}
    for name, weights in run.config.validation.baselines.items():
        if weights is not None:
            mixture = Mixture(weights)
            mixtures[name] = phases.tied(mixture) if phases else mixture
    return mixtures


def broken_by_baselines(run: Run) -> tuple[str, ...]:
    """Return a line for each baseline of a run that breaks its limits."""
    if run.is_done("validate"):
        names = [name for name in in_order(run.recommendation.gains) if not is_proposal(name)]
        mixtures = {name: run.validation.mixture(name) for name in names}
    else:
        mixtures = {"natural": run.natural} | own_baselines(run)
    lines = []
    for name, mixture in mixtures.items():
        line = baseline_breaks(name, mixture, run.constraints)
        if line is not None:
            lines.append(line)
    return tuple(lines)


def in_order(gains: Mapping[str, Difference]) -> dict[str, Difference]:
    """Order baselines: natural, then the user's own, then the rest."""

    def place(name: str) -> int:
        if name == "natural":
            return 0
        if is_proposal(name):
            return 3
        return 2 if is_built_in(name) else 1

    return {name: gains[name] for name in sorted(gains, key=place)}


def proposal_text(proposal: Proposal) -> str:
    """Return the table of a proposal, its prediction and its warnings."""
    whose = "Your mixture" if proposal.is_own else "Proposal"
    lines = [
        _shares_table(f"{whose} for {proposal.objective}", proposal, "proposed"),
        _predicted_line(proposal),
        *sureness_lines(proposal),
    ]
    lines += _labelled("active constraint", proposal.binding)
    lines += _labelled("warning", proposal.warnings)
    return "\n".join(lines) + "\n"


def forecast_lines(forecast: Forecast) -> str:
    """Return the tables of a mixture, its losses and gains, and the broken constraints."""
    prediction = forecast.predicted
    losses = [_loss_row(name, loss, forecast.shares) for name, loss in prediction.losses.items()]
    gains = []
    for name, gain in prediction.gains.items():
        over = f"best trial ({prediction.best_trial})" if name == "best_trial" else name
        gains.append((over, gain.mean_text, gain.ends_text))
    title = f"Predicted gains, {unit_text(prediction.unit)} (above 0 is better)"
    lines = [
        _shares_table(f"Mixture for {prediction.objective}", prediction, "mixture"),
        table_text("Predicted losses", ("evaluation domain", "predicted", "90% interval"), losses),
        table_text(title, ("over", "gain", "90% interval"), gains),
    ]
    if forecast.other_losses:
        lines.append(_other_losses(forecast.other_losses, forecast.shares))
    lines.append(_predicted_line(prediction))
    if forecast.limits:
        lines.append(f"limits in force: {'; '.join(forecast.limits)}")
    lines += _labelled("active constraint", prediction.binding)
    lines += _labelled("broken constraint", forecast.broken)
    lines += _labelled("warning", prediction.warnings)
    return "\n".join(lines)


def _loss_row(name: str, loss: Interval, shares: Collection[str]) -> tuple[str, str, str]:
    """Return a predicted loss with its interval; shares of right answers are in points."""
    if name in shares:
        ends = f"{100 * loss.low:.1f} to {100 * loss.high:.1f}"
        return name, f"{100 * loss.value:.1f} points", ends
    return name, f"{loss.value:.4f}", f"{loss.low:.4f} to {loss.high:.4f}"


def _predicted_line(proposal: Proposal) -> str:
    predicted, unit = proposal.predicted_objective, proposal.unit
    ends = ends_text(predicted.low, predicted.high, unit)
    return f"predicted: {value_text(predicted.value, unit)} {unit_text(unit)}, 90% interval {ends}"


def front_text(front: Front) -> str:
    """Return the table of a front: predicted losses and largest weights of each point."""
    rows = []
    for number, point in enumerate(front.points, start=1):
        losses = [f"{point.losses[name].value:.4f}" for name in front.targets]
        rows.append((str(number), *losses, _largest_text(point.mixture)))
    better = UNITS[front.unit]
    if front.higher:
        better = f"higher {' and '.join(front.higher)} is better"
    title = f"Pareto front of {' and '.join(front.targets)}, {better}"
    columns = ("point", *front.targets, LARGEST)
    return table_text(title, columns, rows, texts=(LARGEST,))


def _largest_text(mixture: Mixture) -> str:
    """Return the largest shares of a mixture: `web 60%, code 25%`."""
    largest = sorted(mixture.items(), key=lambda item: -item[1])[:MAX_SHARES]
    return ", ".join(f"{name} {100 * share:.0f}%" for name, share in largest if share >= MIN_SHARE)


def sureness_lines(proposal: Proposal) -> Iterator[str]:
    """Return effective domains, stability, and the range of mixtures as good as the proposal."""
    yield f"Effective domains: {proposal.effective_domains:.1f}."
    if proposal.region is None:
        yield "Not found by a search."
        return
    if proposal.stability is not None:
        moved = share_text(proposal.stability.mean)
        yield f"Stability: {moved} of the mixture moves when trials are resampled."
    yield proposal.region.describe(proposal.unit)


def _shares_table(title: str, answer: Proposal | Recommendation, called: str) -> str:
    """Return the table of a mixture beside natural, largest shares first."""
    if answer.phases is not None:
        return _phases_table(title, answer, answer.phases)
    branches = branch_shares(answer.mixture)
    if branches and len(answer.mixture) > MAX_LISTED:
        by_branch = {"natural": branch_shares(answer.natural), called: branches}
        return _columns_table(f"{title}, by branch", "branch", branches, by_branch)
    by_domain = {"natural": answer.natural, called: answer.mixture}
    return _columns_table(title, "domain", answer.mixture, by_domain, answer.epochs)


def _phases_table(title: str, answer: Proposal | Recommendation, phases: Phases) -> str:
    """Return the table of natural and of the mixture of each phase."""
    columns: dict[str, Mapping[str, float]] = {"natural": phases.whole(answer.natural)}
    for name, shares in phases.split(answer.mixture).items():
        columns[f"phase {name} ({100 * phases[name]:.0f}%)"] = shares
    return _columns_table(title, "domain", phases.whole(answer.mixture), columns)


def _columns_table(
    title: str,
    kind: str,
    order: Mapping[str, float],
    columns: Mapping[str, Mapping[str, float]],
    epochs: Mapping[str, float] | None = None,
) -> str:
    """Return a table of columns of shares, rows in descending order of the values of `order`."""
    headings = [kind, *columns]
    if epochs is not None:
        headings.append("epochs")
    rows = []
    for name in sorted(order, key=lambda name: -order[name]):
        cells = [name]
        cells += [f"{100 * shares[name]:.1f}%" for shares in columns.values()]
        if epochs is not None:
            cells.append(f"{epochs[name]:.2f}")
        rows.append(cells)
    return table_text(title, headings, rows)


def _other_losses(differences: Mapping[str, Difference], shares: Collection[str]) -> str:
    """Return the table of gains over natural on losses outside the objective, worst first."""
    shown = list(differences.items())[:MAX_OTHERS]
    rows = []
    for name, gain in shown:
        label, _ = called_loss(name, shares)
        rows.append((label, gain.mean_text, gain.ends_text))
    hidden = len(differences) - len(shown)
    more = f", and {hidden} more in the report" if hidden else ""
    title = f"Losses outside the objective{more} (above 0 is better)"
    level = f"{shown[0][1].level:.0%} interval"
    return table_text(title, ("loss", "gain over natural", level), rows)
