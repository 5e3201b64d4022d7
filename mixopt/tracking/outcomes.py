"""What MLflow shall have of a run directory: parent runs of sweep and validation, and outcomes.

The sweep's parent run stands for the whole run, so that each run is one row of an experiment:

    outcome/validated_gain              of the recommendation over natural, and _low and _high
    outcome/validated_gain_over_best_trial
    outcome/predicted_gain              by the fit; and _low, _high, and over the best trial
    outcome/held_out_rmse, outcome/held_out_spearman   of the chosen regressor
    outcome/best_trial                  the lowest objective, over trials done
    recommended/<domain>                weights: natural at 0, the proposal at 1, the decision at 2
    spent/trials_done, trials_failed, tokens, flops, gpu_hours, cpu_hours   over trials done
    search/objective                    of each trial
    anneal/<source>, anneal_low/..., anneal_high/...   of microanneals: source - control

The validation's parent run has `objective/<mixture>` over seeds, and `gain/<mixture>`,
`gain_low/...`, `gain_high/...`, `predicted_gain/...` and `cost/<evaluation domain>` at the last.

A gain is another mixture's objective - that of the recommended one: above 0 this one is better.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from mixopt.config import dump_config
from mixopt.corpus import corpus_hash
from mixopt.fitting import OBJECTIVE, held_out_tables
from mixopt.run_directory import (
    FIT,
    PROPOSE,
    STEPS,
    SWEEP,
    VALIDATE,
    Run,
    Step,
    commit_of,
    is_sent,
)
from mixopt.sweeps import METRICS, read_attempts, sweep_totals
from mixopt.system import Say, difference_text, package_versions, share_text, silent
from mixopt.tracking.record import MetricLines, points_of
from mixopt.tracking.sender import IMAGES
from mixopt.tracking.tracker import Tracker

if TYPE_CHECKING:
    from mixopt.proposals import Interval

NATURAL, BEST_TRIAL = "natural", "best_trial"
AS_NATURAL, AS_PROPOSED, AS_DECIDED = 0, 1, 2  # steps of weights and of predicted gains
FLOPS_PER_WEIGHT = 6  # of training, a parameter and token
NOT_NEURAL = ("ngram",)  # proxies whose parameters are not weights
NOTE = "mlflow.note.content"  # the tag that MLflow shows as a run's description
MAX_NOTE = 4_800  # characters; MLflow's limit of a tag is 8000 bytes
MAX_TAG, MAX_PARAM = 2_000, 500
MAX_PARAMS = 400  # a configuration of hundreds of domains has more
MAX_ROWS, MAX_WEIGHTS = 30, 12  # of the description's table, of the tag
WITH_OUTCOMES = (SWEEP, FIT, PROPOSE, VALIDATE)  # steps after which more is known of a run

Line = tuple[int, Mapping[str, float]]  # the step of the charts, and metrics


def open_tracker(run: Run, warn: Say = silent) -> Tracker:
    """Return the tracker of a run; its process starts with the first step that is tracked."""
    return Tracker(run.config.tracking, run.config.name, run.path, warn, sends=is_sent(run))


@contextmanager
def tracked(run: Run, step: Step, tracker: Tracker) -> Iterator[None]:
    """Track a step of a run: as a parent run, or into those of the steps that are done."""
    parents = (step,) if step.artifacts else ()
    with _parent_runs(run, _done(run) if step.completes_records else parents, tracker):
        yield
        if step in WITH_OUTCOMES:
            _add_outcomes(run, tracker)


def record_again(run: Run) -> None:
    """Want the steps of a run recorded that are done, though they were not tracked when done."""
    config = run.config.tracking.model_copy(update={"enabled": True})
    tracker = Tracker(config, run.config.name, run.path, sends=False)
    with tracker, _parent_runs(run, _done(run), tracker):
        _add_outcomes(run, tracker)


def code_tags(fingerprint: str, commit: str | None) -> dict[str, str]:
    """Return tags that say what made a run: configuration, versions, commit if it is known."""
    from mixopt.system import __version__

    versions = ", ".join(f"{name} {version}" for name, version in package_versions().items())
    tags = {
        "mixopt.fingerprint": fingerprint,
        "mixopt.version": __version__,
        "mixopt.versions": versions[:MAX_TAG],
        "mlflow.source.name": f"mixopt {__version__}",
    }
    if commit is not None:
        clean = commit.removesuffix("+")
        tags |= {"mixopt.git_commit": commit, "mlflow.source.git.commit": clean}
        tags["mixopt.git_dirty"] = str(clean != commit).lower()
    return tags


def _done(run: Run) -> tuple[Step, ...]:
    """Return the steps with a parent run that are done."""
    return tuple(step for step in STEPS if step.artifacts and run.is_done(step.name))


@contextmanager
def _parent_runs(run: Run, steps: Sequence[Step], tracker: Tracker) -> Iterator[None]:
    """Open the parent run of each step, and add its files when the block has ended."""
    for step in steps:
        tags = code_tags(run.log.fingerprint(step.name), commit_of(run))
        tags["mixopt.executor"] = run.config.sweep.executor
        tags["mixopt.corpus_hash"] = corpus_hash(run.path / "corpus")
        name = f"{run.path.resolve().name}/{step.name}"
        tracker.start(step.name, run_params(run, step), tags, name=name, folder=step.trials)
        tracker.follow(step.name, _outcome_file(run.path, step.name))
        tracker.follow(step.name, step.trial_folder(run.path) / METRICS)
    yield
    for step in steps:
        attempts = sorted(
            {(one.node, one.kind) for one in read_attempts(step.trial_folder(run.path))}
        )
        if attempts:
            nodes = ", ".join(dict.fromkeys(node for node, _ in attempts))
            kinds = ", ".join(sorted({kind for _, kind in attempts}))
            places = {"mixopt.nodes": nodes[:MAX_TAG], "mixopt.devices": kinds[:MAX_TAG]}
            tracker.tags(step.name, places)
        files = [file for pattern in step.artifacts for file in sorted(run.path.glob(pattern))]
        pictures = [file for file in files if file.suffix == ".png"]
        tracker.files(step.name, [file for file in files if file not in pictures])
        if pictures:
            tracker.files(step.name, pictures, IMAGES)
        tracker.end(step.name)


def run_params(run: Run, step: Step) -> dict[str, Any]:
    """Return the parameters of a step's parent run: all fields of the configuration."""
    config = run.config
    params: dict[str, Any] = {
        "domains": len(config.corpus.domains),
        "tokens": config.proxy.tokens if step is SWEEP else config.validation_tokens,
    }
    content = {name: part for name, part in dump_config(run.config).items() if name != "tracking"}
    for name, value in _leaves(content):
        if len(params) < MAX_PARAMS:
            params.setdefault(name, value)
    return params


def _leaves(content: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Yield each field that is set, by its name with dots."""
    for name, value in content.items():
        full = f"{before}{name}"
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{full}.")
        elif value is not None and value != []:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            yield full, text if len(text) <= MAX_PARAM else f"{text[: MAX_PARAM - 3]}..."


def _add_outcomes(run: Run, tracker: Tracker) -> None:
    """Add what is known of a run now; a fault in that is a warning."""
    if not tracker.enabled:
        return
    try:
        _add_lines(_outcome_file(run.path, SWEEP.name), run_outcome(run))
        _add_lines(_outcome_file(run.path, VALIDATE.name), validation_outcome(run))
        tags = description_tags(run)
    except Exception as error:
        tracker.complain(f"outcomes are not recorded: {type(error).__name__}: {error}")
        return
    for step in (SWEEP, VALIDATE):
        if tags:
            tracker.tags(step.name, tags)


def _outcome_file(directory: Path, step: str) -> Path:
    return directory / f"tracking_{step}.jsonl"


def _add_lines(file: Path, lines: Iterable[Line]) -> None:
    """Add points that are new or have changed: of two with one step MLflow shows the later one."""
    known: dict[tuple[str, int], float] = {}
    if file.is_file():
        with file.open("rb") as stream:
            known = {(p.key, p.step): p.value for line in stream for p in points_of(line)}
    out = MetricLines(file)
    try:
        for step, metrics in lines:
            fresh = {k: v for k, v in metrics.items() if known.get((k, step)) != v}
            if fresh:
                out.write(fresh, step)
    finally:
        out.close()


def run_outcome(run: Run) -> Iterator[Line]:
    """Yield what is known of a whole run, for the sweep's parent run."""
    if run.is_done(SWEEP.name):
        yield from _search(run)
        yield from _spent(run)
        if run.config.design.anneals is not None:
            yield from _anneals(run)
    if run.is_done(FIT.name):
        yield from _held_out(run)
    if run.is_done(PROPOSE.name):
        proposal = run.proposal
        yield AS_NATURAL, _named("recommended", proposal.natural)
        yield AS_PROPOSED, _named("recommended", proposal.mixture)
        for other, end in ((NATURAL, ""), (BEST_TRIAL, "_over_best_trial")):
            yield AS_PROPOSED, _spread(proposal.gains.get(other), f"outcome/predicted_gain{end}")
    if run.is_done(VALIDATE.name):
        yield from _decided(run)


def validation_outcome(run: Run) -> Iterator[Line]:
    """Yield what validation has shown, for its parent run; nothing before it is done."""
    if not run.is_done(VALIDATE.name):
        return
    validation, decision = run.validation, run.recommendation
    last = 0
    for name in validation.mixtures:
        values = validation.values(name)
        last = max(last, len(values))
        for place, seed in enumerate(sorted(values), start=1):
            yield place, {f"objective/{name}": values[seed]}
    for other, gain in decision.gains.items():
        yield last, _spread(gain.validated, "gain", f"/{other}")
        if gain.predicted is not None:
            yield last, {f"predicted_gain/{other}": gain.predicted.value}
    yield last, {f"cost/{name}": cost.value for name, cost in decision.costs.items()}


def _search(run: Run) -> Iterator[Line]:
    done = run.trials.finished
    best = math.inf
    values_N = run.objective.value(done.losses(run.objective.unit))
    for number, value in enumerate(values_N.tolist(), start=1):
        best = min(best, value)
        yield number, {"search/objective": value, "outcome/best_trial": best}


def _anneals(run: Run) -> Iterator[Line]:
    """Yield the effects of the sources of microanneals over the seeds that they have."""
    for row in run.anneals.iter_rows(named=True):
        if row["target"] is None and row["change"] is not None:
            ends = {"": row["change"], "_low": row["low"], "_high": row["high"]}
            source = row["source"]
            values = {f"anneal{end}/{source}": v for end, v in ends.items() if v is not None}
            yield row["seeds"], values


def _spent(run: Run) -> Iterator[Line]:
    """Yield what was spent, trial by trial; hours are known of the whole."""
    tables = [(SWEEP, run.trials.table)]
    if run.is_done(VALIDATE.name):
        tables.append((VALIDATE, run.validation.trials.table))
    done = failed = tokens = 0
    flops, hours = 0.0, {"gpu_hours": 0.0, "cpu_hours": 0.0}
    neural = run.config.proxy.name not in NOT_NEURAL
    for step, table in tables:
        for status, count, size in table.select("status", "tokens", "parameters").iter_rows():
            done, failed = done + (status == "finished"), failed + (status != "finished")
            tokens += count or 0
            flops += FLOPS_PER_WEIGHT * float(count or 0) * float(size or 0)
            spent: dict[str, float] = {"trials_done": done, "trials_failed": failed}
            spent |= {"tokens": tokens} | ({"flops": flops} if neural else {})
            yield done + failed, _named("spent", spent)
        totals = sweep_totals(read_attempts(step.trial_folder(run.path)), (), 0)
        hours["gpu_hours"] += totals.gpu_hours
        hours["cpu_hours"] += totals.cpu_hours
        yield done + failed, _named("spent", hours)


def _held_out(run: Run) -> Iterator[Line]:
    """Yield the chosen regressor's errors on trials that it was not fitted to."""
    name, report, held_out = held_out_tables(run.path / "fit")
    own = pl.col("predictor") == name, pl.col("target") == OBJECTIVE
    for rank, error in report.filter(*own).select("spearman", "rmse").iter_rows():
        found = {"outcome/held_out_rmse": error, "outcome/held_out_spearman": rank}
        finite = {k: v for k, v in found.items() if v is not None and math.isfinite(v)}
        yield held_out.filter(*own).height, finite


def _decided(run: Run) -> Iterator[Line]:
    decision = run.recommendation
    last = max(len(run.validation.values(name)) for name in run.validation.mixtures)
    yield AS_DECIDED, _named("recommended", decision.mixture)
    for other, end in ((NATURAL, ""), (BEST_TRIAL, "_over_best_trial")):
        if (gain := decision.gains.get(other)) is not None:
            yield last, _spread(gain.validated, f"outcome/validated_gain{end}")
            yield AS_DECIDED, _spread(gain.predicted, f"outcome/predicted_gain{end}")
        elif other == decision.chosen:  # which gains nothing over itself
            names = [f"outcome/validated_gain{end}{bound}" for bound in ("", "_low", "_high")]
            yield last, dict.fromkeys(names, 0.0)


def _spread(gain: Interval | None, name: str, inner: str = "") -> dict[str, float]:
    """Return a gain and its bounds: `name`, `name_low` and `name_high`."""
    if gain is None:
        return {}
    values = {"": gain.value, "_low": gain.low, "_high": gain.high}
    return {f"{name}{end}{inner}": v for end, v in values.items() if math.isfinite(v)}


def _named(group: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f"{group}/{name}": value for name, value in values.items()}


def description_tags(run: Run) -> dict[str, str]:
    """Return tags to filter by, and the description that MLflow shows first, as Markdown."""
    if run.is_done(VALIDATE.name):
        decision = run.recommendation
        return {
            "mixopt.recommended": decision.chosen,
            "mixopt.standing": decision.standing,
            "mixopt.weights": _weights_line(decision.mixture),
            NOTE: _cut(_recommended_text(run)),
        }
    if run.is_done(PROPOSE.name):
        return {
            "mixopt.recommended": "not validated yet",
            "mixopt.weights": _weights_line(run.proposal.mixture),
            NOTE: _cut(_proposed_text(run)),
        }
    return {}


def _weights_line(mixture: Mapping[str, float]) -> str:
    """Return the largest weights in one line."""
    ranked = sorted(mixture.items(), key=lambda entry: -entry[1])
    shown = ", ".join(f"{name} {share_text(share)}" for name, share in ranked[:MAX_WEIGHTS])
    more = len(ranked) - MAX_WEIGHTS
    return f"{shown}, and {more} more" if more > 0 else shown


def _recommended_text(run: Run) -> Iterator[str]:
    decision = run.recommendation
    yield f"**{_plain(decision.headline)}**\n"
    yield from _weights_table("recommended", decision.mixture, decision.natural)
    yield f"\nGain over other mixtures in {_plain(decision.unit)}; above 0 is better.\n"
    yield "| over | validated | 95% interval | predicted | verdict |\n|---|---:|---:|---:|---|"
    for name, gain in decision.gains.items():
        predicted = "" if gain.predicted is None else difference_text(gain.predicted.value)
        value, spread = difference_text(gain.validated.value), _interval(gain.validated)
        verdict = _plain(gain.verdict)
        yield f"| {_plain(name)} | {value} | {spread} | {predicted} | {verdict} |"
    for warning in decision.warnings:
        yield f"\nNote: {_plain(warning)}"


def _proposed_text(run: Run) -> Iterator[str]:
    proposal = run.proposal
    yield "**Proposal, not validated yet.**\n"
    yield from _weights_table("proposed", proposal.mixture, proposal.natural)
    yield f"\nPredicted gain over other mixtures in {_plain(proposal.unit)}; above 0 is better.\n"
    yield "| over | predicted | 90% interval |\n|---|---:|---:|"
    for name, gain in proposal.gains.items():
        yield f"| {_plain(name)} | {difference_text(gain.value)} | {_interval(gain)} |"


def _weights_table(
    title: str, mixture: Mapping[str, float], natural: Mapping[str, float]
) -> Iterator[str]:
    """Yield the table of weights, those that change most first."""
    yield f"| domain | natural | {title} |\n|---|---:|---:|"
    names = sorted(mixture, key=lambda name: -abs(mixture[name] - natural[name]))
    for name in names[:MAX_ROWS]:
        shares = share_text(natural[name]), share_text(mixture[name])
        yield f"| {_plain(name)} | {shares[0]} | **{shares[1]}** |"
    if len(names) > MAX_ROWS:
        yield f"| and {len(names) - MAX_ROWS} more | | |"


def _interval(gain: Interval) -> str:
    return f"{difference_text(gain.low)} to {difference_text(gain.high)}"


def _plain(text: str) -> str:
    """Return text that Markdown shows as it is: names come from the user."""
    return re.sub(r"([\\`*_{}\[\]<>()#|~!])", r"\\\1", " ".join(text.split()))


def _cut(lines: Iterable[str]) -> str:
    """Join the lines that fit into a tag."""
    text = ""
    for line in lines:
        if len(text.encode()) + len(line.encode()) > MAX_NOTE:
            return f"{text}\n..."
        text = f"{text}\n{line}" if text else line
    return text
