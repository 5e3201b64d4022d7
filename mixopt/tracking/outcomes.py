"""Parent runs and outcomes of a run directory for MLflow, and `mixopt sync`.

The sweep's parent run represents the whole run, so that each run is one row of an experiment; its
metrics are documented in docs/mlflow.md. A gain is how much better the recommended mixture is than
another one.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from mixopt.config import dump_sections
from mixopt.corpus import corpus_hash
from mixopt.difference import Difference
from mixopt.errors import MixoptError, RunError
from mixopt.fitting import OBJECTIVE, held_out_report
from mixopt.mixture import Mixture
from mixopt.run_directory import REPORT, STEPS, Run, Step, commit_of, load_run
from mixopt.sweeps import AttemptRecord, read_attempts, sweep_totals
from mixopt.system import (
    ANSWER_SECONDS,
    Say,
    __version__,
    inside,
    package_versions,
    share_text,
    silent,
)
from mixopt.tracking.mlflow_names import NOTE
from mixopt.tracking.record import (
    FINGERPRINT,
    JOURNAL,
    SenderProcess,
    Sent,
    Tracker,
    absolute_uri,
    sent_words,
    uri_option,
    wanted_runs,
)

URI_VARIABLE = "MLFLOW_TRACKING_URI"
NATURAL = "natural"
MAX_NOTE = 4_800  # characters; MLflow limits tags to 8000 bytes
MAX_PARAMS = 400  # configurations of hundreds of domains have more


@contextmanager
def tracked(run: Run, step: Step, tracker: Tracker) -> Iterator[None]:
    """Track a step as a parent run; the report is added to those of finished steps."""
    parents = _parent_steps(run, step)
    for parent in parents:
        tags = code_tags(run.log.fingerprint(parent.name), commit_of(run))
        tags["mixopt.corpus_hash"] = corpus_hash(run.path / "corpus")
        name = f"{run.path.resolve().name}/{parent.name}"
        tracker.start(parent.name, run_params(run, parent), tags, name=name, folder=parent.trials)
    _add_outcomes(run, tracker)
    yield
    _add_outcomes(run, tracker)
    for parent in parents:
        files: list[Path] = []
        for pattern in parent.artifacts:
            files += sorted(run.path.glob(pattern))
        tracker.end(parent.name, files=files, tags=_machine_tags(run, parent))


def _parent_steps(run: Run, step: Step) -> list[Step]:
    """Return the steps with a parent run that a step changes."""
    with_artifacts = [parent for parent in STEPS if parent.artifacts]
    if step is REPORT:
        return [parent for parent in with_artifacts if run.is_done(parent.name)]
    return [parent for parent in with_artifacts if parent is step]


def _machine_tags(run: Run, step: Step) -> dict[str, str]:
    """Return the nodes and devices of a step's trials, as far as known."""
    attempts = read_attempts(step.trial_folder(run.path))
    nodes = {attempt.node for attempt in attempts}
    devices = {attempt.kind for attempt in attempts}
    tags: dict[str, str] = {}
    if attempts:
        tags["mixopt.nodes"] = ", ".join(sorted(nodes))
        tags["mixopt.devices"] = ", ".join(sorted(devices))
    return tags


def code_tags(fingerprint: str, commit: str | None) -> dict[str, str]:
    """Return tags of provenance: configuration, versions, and the commit if known."""
    versions = ", ".join(f"{name} {version}" for name, version in package_versions().items())
    tags = {
        FINGERPRINT: fingerprint,
        "mixopt.version": __version__,
        "mixopt.versions": versions,
        "mlflow.source.name": f"mixopt {__version__}",
    }
    if commit is not None:
        tags["mixopt.git_commit"] = commit
        tags["mlflow.source.git.commit"] = commit.removesuffix("+")
    return tags


def run_params(run: Run, step: Step) -> dict[str, Any]:
    """Return the parameters of a parent run: all fields of the configuration."""
    config = run.config
    tokens = config.proxy.tokens if step.name == "sweep" else config.validation_tokens
    params = {"domains": len(config.corpus.domains), "tokens": tokens}
    fields = dump_sections(config)
    fields.pop("tracking", None)
    params |= dict(_leaves(fields))
    return dict(islice(params.items(), MAX_PARAMS))


def _leaves(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each set field with its dotted name."""
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        elif value is not None and value != []:
            yield f"{prefix}{name}", value


def _add_outcomes(run: Run, tracker: Tracker) -> None:
    """Add the present outcome of a run; errors become warnings."""
    if not tracker.enabled:
        return
    objective: dict[str, Any] = {}
    try:
        with suppress(MixoptError):  # some objectives need trained trials
            objective["objective"] = run.objective.to_json()
        tags = description_tags(run)
        outcomes = {"sweep": run_outcome(run), "validate": validation_outcome(run)}
        for step, values in outcomes.items():
            finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
            tracker.add(step, metrics=finite, tags=tags, **objective)
    except Exception as error:
        tracker.complain(f"outcomes are not recorded: {type(error).__name__}: {error}")


def run_outcome(run: Run) -> dict[str, float]:
    """Return the outcome of a whole run, for the sweep's parent run."""
    values: dict[str, float] = {}
    if run.is_done("sweep"):
        values |= _sweep_outcome(run)
    if run.is_done("fit"):
        values |= _fit_outcome(run)
    if run.is_done("propose"):
        mixture = _best_mixture(run)
        values |= {f"recommended/{name}": round(share, 6) for name, share in mixture.items()}
        values |= _spread(run.proposal.gains.get(NATURAL), "outcome/predicted_gain")
    if run.is_done("validate"):
        values |= _recommendation_outcome(run)
    return values


def _sweep_outcome(run: Run) -> dict[str, float]:
    """Return the best objective of a trial, the hours spent, and the effects of anneals."""
    objective = run.objective
    best = float(objective.value(objective.losses(run.trials.full_length)).min())
    values = {"outcome/best_trial": objective.turned_value(best)}
    attempts: list[AttemptRecord] = []
    for step in STEPS:
        if step.trains:
            attempts += read_attempts(step.trial_folder(run.path))
    spent = sweep_totals(attempts, ())
    values["spent/gpu_hours"] = spent["gpu_hours"]
    values["spent/cpu_hours"] = spent["cpu_hours"]
    if run.config.design.anneals is not None:
        for row in run.anneals.filter(pl.col("target").is_null()).iter_rows(named=True):
            ends = row["low"], row["high"]
            values |= _metrics("anneal_gain", row["difference"], *ends, f"/{row['source']}")
    return values


def _fit_outcome(run: Run) -> dict[str, float]:
    """Return the held-out scores of the chosen predictor, as far as known."""
    name, report = held_out_report(run.path / "fit")
    (scores,) = report.filter(predictor=name, target=OBJECTIVE).to_dicts()
    measures = [measure for measure in ("rmse", "spearman") if scores[measure] is not None]
    return {f"outcome/held_out_{measure}": scores[measure] for measure in measures}


def _recommendation_outcome(run: Run) -> dict[str, float]:
    """Return the validated and the predicted gain over the natural mixture."""
    decision = run.recommendation
    if decision.chosen == NATURAL:  # no gain over itself
        return _metrics("outcome/validated_gain", 0.0, 0.0, 0.0)
    values = _spread(decision.gains.get(NATURAL), "outcome/validated_gain")
    predicted = decision.predicted_gains.get(NATURAL)
    return values | _spread(predicted, "outcome/predicted_gain")


def _best_mixture(run: Run) -> Mixture:
    """Return the recommended mixture, or the proposed one before the validation."""
    if run.is_done("validate"):
        return run.recommendation.mixture
    return run.proposal.mixture


def validation_outcome(run: Run) -> dict[str, float]:
    """Return the outcome of the validation for its parent run; empty before it is done."""
    if not run.is_done("validate"):
        return {}
    validation = run.validation
    decision = run.recommendation
    values = {f"objective/{name}": validation.mean(name) for name in validation.mixtures}
    for baseline, gain in decision.gains.items():
        values |= _spread(gain, "gain", f"/{baseline}")
    for baseline, gain in decision.predicted_gains.items():
        values[f"predicted_gain/{baseline}"] = gain.mean
    for name, gain in decision.other_losses.items():
        values[f"loss_gain/{name}"] = gain.mean
    return values


def _spread(gain: Difference | None, name: str, inner: str = "") -> dict[str, float]:
    """Return the metrics of a difference; empty if it is None."""
    return {} if gain is None else _metrics(name, gain.mean, gain.low, gain.high, inner)


def _metrics(
    name: str, mean: float | None, low: float | None, high: float | None, inner: str = ""
) -> dict[str, float]:
    """Return a mean and its interval, as far as known: `name`, `name_low` and `name_high`."""
    values = {f"{name}{inner}": mean, f"{name}_low{inner}": low, f"{name}_high{inner}": high}
    return {metric: value for metric, value in values.items() if value is not None}


def description_tags(run: Run) -> dict[str, str]:
    """Return tags to filter by, and the description that MLflow shows, as in the terminal."""
    if not run.is_done("propose"):
        return {}
    from mixopt.reporting import proposal_text, recommendation_text

    if run.is_done("validate"):
        decision = run.recommendation
        tags = {"mixopt.recommended": decision.chosen, "mixopt.standing": decision.standing}
        text = recommendation_text(run)
    else:
        tags = {"mixopt.recommended": "not validated yet"}
        text = proposal_text(run.proposal)
    ranked = sorted(_best_mixture(run).items(), key=lambda entry: -entry[1])
    tags["mixopt.weights"] = ", ".join(f"{name} {share_text(share)}" for name, share in ranked)
    # A code block is not rendered as Markdown: names come from the user.
    plain_text = text.replace("`", "'").strip()
    tags[NOTE] = f"```\n{plain_text[:MAX_NOTE]}\n```"
    return tags


class SyncResult(NamedTuple):
    """Result of sending.

    Attributes:
        server: The server or database.
        sent: Numbers of metric points, trials, files and runs sent.
        trouble: Why something remains, in one line; None if nothing does.
    """

    server: str
    sent: Mapping[str, int]
    trouble: str | None

    def __str__(self) -> str:
        line = f"sent {sent_words(self.sent)} to {self.server}"
        if not self.trouble:
            return line
        trouble = self.trouble.removeprefix(f"{self.server}: ")
        return f"{line}; the rest is not sent: {trouble}"


def sync(
    directory: str | Path, uri: str | None = None, *, trust: bool = False, say: Say = silent
) -> SyncResult:
    """Send what MLflow does not have of a run yet, in order and once.

    The destination is `uri`, else MLFLOW_TRACKING_URI, else a database in the directory. A server
    named only by the directory is used with `trust` only, so that a directory of unknown origin
    sends nothing anywhere.

    Args:
        directory: The run directory.
        uri: Server or database.
        trust: Send to the server that the directory names.
        say: Called every few seconds with a line of progress.

    Raises:
        RunError: It is not a run directory, or only the directory names the server.
        ConfigError: MLflow is not installed.
    """
    path = Path(directory)
    inside(path, JOURNAL)
    if not wanted_runs(path):  # none, or of another version
        _record_again(path)
    given = uri or os.environ.get(URI_VARIABLE)
    destination = given or _recorded_server(path)
    server = None if destination is None else absolute_uri(destination)
    if server is not None and not (given or trust):
        raise RunError(
            f"{path}: only this directory names the server {server}, and nothing is sent to it; if"
            f" it is yours, name it: {uri_option(server)} (or {URI_VARIABLE}); to trust the"
            " directory: --trust"
        )
    process = SenderProcess(path, server)
    trouble = process.end(max(process.patience, ANSWER_SECONDS), say)
    return SyncResult(process.server, Sent.read(path).sent, trouble)


def _recorded_server(path: Path) -> str | None:
    """Return the server that the directory names last, if any."""
    server = None
    for wanted in wanted_runs(path).values():
        server = wanted.server
    return server


def _record_again(path: Path) -> None:
    """Record the finished steps of a run that was not tracked."""
    run = load_run(path)
    config = run.config.tracking.model_copy(update={"enabled": True})
    with tracked(run, REPORT, Tracker(config, run.config.name, path, sends=False)):
        pass
    if not wanted_runs(path):
        raise RunError(
            f"{path}: nothing to send: neither its sweep nor its validation is done; run it first"
        )
