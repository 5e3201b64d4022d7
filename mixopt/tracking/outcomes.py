"""What MLflow shall have of a run directory: parent runs, and outcomes; `mixopt sync` sends it.

The sweep's parent run stands for the whole run, so that each run is one row of an experiment; what
its metrics are is in docs/mlflow.md. A gain is another mixture's objective - that of the
recommended one: above 0 this one is better.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from mixopt.config import dump_config
from mixopt.corpus import corpus_hash
from mixopt.errors import ConfigError, MixoptError, RunError
from mixopt.fitting import OBJECTIVE, held_out_tables
from mixopt.proposals import Interval
from mixopt.run_directory import (
    FIT,
    PROPOSE,
    REPORT,
    STEPS,
    SWEEP,
    VALIDATE,
    Run,
    Step,
    commit_of,
    is_sent,
    load_run,
)
from mixopt.sweeps import read_attempts, sweep_totals
from mixopt.system import (
    ANSWER_SECONDS,
    Say,
    ServerUri,
    __version__,
    package_versions,
    share_text,
    silent,
)
from mixopt.tracking.record import (
    ADVISED,
    FINGERPRINT,
    JOURNAL,
    LOCAL,
    LOG,
    Sent,
    Tracker,
    absolute_uri,
    check_own,
    counted,
    patience_for,
    start_sender,
    wait_for_sender,
    wanted_runs,
)
from mixopt.tracking.sender import NOTE

URI_VARIABLE = "MLFLOW_TRACKING_URI"
NATURAL = "natural"
MAX_NOTE = 4_800  # characters; MLflow's limit of a tag is 8000 bytes
MAX_PARAMS = 400  # a configuration of hundreds of domains has more
WITH_OUTCOMES = (SWEEP, FIT, PROPOSE, VALIDATE)  # steps after which more is known of a run


def open_tracker(run: Run, warn: Say) -> Tracker:
    """Return the tracker of a run; its process starts with the first step that is tracked."""
    return Tracker(run.config.tracking, run.config.name, run.path, warn, sends=is_sent(run))


@contextmanager
def tracked(run: Run, step: Step, tracker: Tracker) -> Iterator[None]:
    """Track a step of a run: as a parent run, or into those of the steps that are done."""
    parents = (step,) if step.artifacts else ()
    with _parent_runs(run, _done(run) if step is REPORT else parents, tracker):
        yield
        if step in WITH_OUTCOMES:
            _add_outcomes(run, tracker)


def code_tags(fingerprint: str, commit: str | None) -> dict[str, str]:
    """Return tags that say what made a run: configuration, versions, commit if it is known."""
    versions = ", ".join(f"{name} {version}" for name, version in package_versions().items())
    tags = {
        FINGERPRINT: fingerprint,
        "mixopt.version": __version__,
        "mixopt.versions": versions,
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
        tracker.add(step.name, **_objective(run))
    yield
    for step in steps:
        attempts = read_attempts(step.trial_folder(run.path))
        places = {"mixopt.nodes": {one.node for one in attempts}}
        places["mixopt.devices"] = {one.kind for one in attempts}
        tracker.add(step.name, tags={tag: ", ".join(sorted(p)) for tag, p in places.items() if p})
        files = [file for pattern in step.artifacts for file in sorted(run.path.glob(pattern))]
        tracker.files(step.name, files)
        tracker.end(step.name)


def run_params(run: Run, step: Step) -> dict[str, Any]:
    """Return the parameters of a step's parent run: all fields of the configuration."""
    config, content = run.config, dump_config(run.config)
    content.pop("tracking", None)
    tokens = config.proxy.tokens if step is SWEEP else config.validation_tokens
    params = {"domains": len(config.corpus.domains), "tokens": tokens}
    return dict(islice((params | dict(_leaves(content))).items(), MAX_PARAMS))


def _leaves(content: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Yield each field that is set, by its name with dots."""
    for name, value in content.items():
        full = f"{before}{name}"
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{full}.")
        elif value is not None and value != []:
            yield full, value if isinstance(value, str) else json.dumps(value, default=str)


def _objective(run: Run) -> dict[str, Any]:
    """Return the objective of trials, where it is known before they are trained."""
    try:
        return {"objective": run.objective.to_json()}
    except MixoptError:
        return {}


def _add_outcomes(run: Run, tracker: Tracker) -> None:
    """Add what is known of a run now; a fault in that is a warning."""
    if not tracker.enabled:
        return
    try:
        tags = description_tags(run)
        for step, values in ((SWEEP, run_outcome(run)), (VALIDATE, validation_outcome(run))):
            finite = {name: float(v) for name, v in values.items() if math.isfinite(v)}
            tracker.add(step.name, metrics=finite, tags=tags, **_objective(run))
    except Exception as error:
        tracker.complain(f"outcomes are not recorded: {type(error).__name__}: {error}")


def run_outcome(run: Run) -> dict[str, float]:
    """Return what is known of a whole run, for the sweep's parent run."""
    values: dict[str, float] = {}
    mixture: Mapping[str, float] = {}
    if run.is_done(SWEEP.name):
        losses_NM = run.trials.finished.losses(run.objective.unit)
        values["outcome/best_trial"] = run.objective.value(losses_NM).min()
        folders = [step.trial_folder(run.path) for step in (SWEEP, VALIDATE)]
        totals = [sweep_totals(read_attempts(folder), ()) for folder in folders]
        for unit in ("gpu_hours", "cpu_hours"):
            values[f"spent/{unit}"] = sum(one[unit] for one in totals)
        if run.config.design.anneals is not None:
            values |= _anneals(run)
    if run.is_done(FIT.name):
        name, report, _ = held_out_tables(run.path / "fit")
        own = report.filter(pl.col("predictor") == name, pl.col("target") == OBJECTIVE)
        for key, value in own.select("rmse", "spearman").row(0, named=True).items():
            if value is not None:
                values[f"outcome/held_out_{key}"] = value
    if run.is_done(PROPOSE.name):
        mixture = run.proposal.mixture
        values |= _spread(run.proposal.gains.get(NATURAL), "outcome/predicted_gain")
    if run.is_done(VALIDATE.name):
        decision = run.recommendation
        mixture, gain = decision.mixture, decision.gains.get(NATURAL)
        if gain is not None:
            values |= _spread(gain.validated, "outcome/validated_gain")
            values |= _spread(gain.predicted, "outcome/predicted_gain")
        elif decision.chosen == NATURAL:  # which gains nothing over itself
            values |= _spread(Interval(0.0, 0.0, 0.0), "outcome/validated_gain")
    return values | {f"recommended/{name}": round(share, 6) for name, share in mixture.items()}


def _anneals(run: Run) -> dict[str, float]:
    """Return the effects of the sources of microanneals over the seeds that they have."""
    metrics: dict[str, float] = {}
    for row in run.anneals.iter_rows(named=True):
        if row["target"] is None and row["change"] is not None:
            ends = {"": row["change"], "_low": row["low"], "_high": row["high"]}
            metrics |= {f"anneal{e}/{row['source']}": v for e, v in ends.items() if v is not None}
    return metrics


def validation_outcome(run: Run) -> dict[str, float]:
    """Return what validation has shown, for its parent run; nothing before it is done."""
    if not run.is_done(VALIDATE.name):
        return {}
    validation, decision = run.validation, run.recommendation
    values = {f"objective/{name}": validation.mean(name) for name in validation.mixtures}
    for other, gain in decision.gains.items():
        values |= _spread(gain.validated, "gain", f"/{other}")
        if gain.predicted is not None:
            values[f"predicted_gain/{other}"] = gain.predicted.value
    return values | {f"loss_gain/{name}": -cost.value for name, cost in decision.costs.items()}


def _spread(gain: Interval | None, name: str, inner: str = "") -> dict[str, float]:
    """Return a gain and its bounds: `name`, `name_low` and `name_high`."""
    if gain is None:
        return {}
    values = {"": gain.value, "_low": gain.low, "_high": gain.high}
    return {f"{name}{end}{inner}": value for end, value in values.items()}


def description_tags(run: Run) -> dict[str, str]:
    """Return tags to filter by, and the description that MLflow shows first: as the terminal's."""
    from mixopt.reporting import proposal_text, recommendation_text

    if not run.is_done(PROPOSE.name):
        return {}
    if run.is_done(VALIDATE.name):
        decision = run.recommendation
        tags = {"mixopt.recommended": decision.chosen, "mixopt.standing": decision.standing}
        answer, text = decision.mixture, recommendation_text(run)
    else:
        tags = {"mixopt.recommended": "not validated yet"}
        answer, text = run.proposal.mixture, proposal_text(run.proposal)
    ranked = sorted(answer.items(), key=lambda entry: -entry[1])
    tags["mixopt.weights"] = ", ".join(f"{name} {share_text(share)}" for name, share in ranked)
    # A block of code is shown as it is: names come from the user.
    tags[NOTE] = f"```\n{text.replace('`', chr(39)).strip()[:MAX_NOTE]}\n```"
    return tags


class SyncResult(NamedTuple):
    """What came of sending.

    Attributes:
        server: The server or database.
        sent: How many points of metrics, trials, files and runs were sent.
        trouble: Why something is left, in a line; None where nothing is.
    """

    server: str
    sent: Mapping[str, int]
    trouble: str | None


def sync(
    directory: str | Path, uri: str | None = None, *, trust: bool = False, say: Say = silent
) -> SyncResult:
    """Send what of a run is not in MLflow yet, in order and once.

    Where to is what the user says: `uri`, else MLFLOW_TRACKING_URI; else a database in the
    directory itself. A server that only the directory names is used with `trust` alone: a directory
    of unknown origin sends nothing anywhere.

    Args:
        directory: The run directory.
        uri: Server or database; it gets all of the run that it has not.
        trust: Send to the server that the directory names.
        say: Called every few seconds with a line about what is sent.

    Raises:
        RunError: It is not a run directory, or only the directory names the server.
        ConfigError: MLflow is not installed.
    """
    path = Path(directory)
    if importlib.util.find_spec("mlflow") is None:
        raise ConfigError("sync: needs MLflow: pip install 'mixopt[all]'")
    check_own(path)
    given, experiment = _destination(path, uri, trust=trust)
    server = LOCAL if given is None else str(ServerUri(given))
    try:
        process = start_sender(path, given, experiment)
    except OSError as error:
        raise RunError(f"{path / LOG}: cannot be written: {error.strerror or error}") from error
    patience = max(patience_for(given), ANSWER_SECONDS)
    trouble = wait_for_sender(process, path, server, patience, say)
    return SyncResult(server, Sent.read(path).sent, trouble)


def sync_line(path: Path, result: SyncResult) -> str:
    """Say in a line what was sent, and whether something is left."""
    line = f"{path}: sent {counted(result.sent)} to {result.server}"
    return f"{line}; the rest is left: {result.trouble}" if result.trouble else line


def _destination(path: Path, uri: str | None, *, trust: bool) -> tuple[str | None, str]:
    """Return where to send a run, None for its own database; and the experiment's name."""
    if not (path / JOURNAL).exists():
        _record_again(path)
    runs = wanted_runs(path)
    last = runs[next(reversed(runs))] if runs else None
    experiment = last.experiment if last is not None else path.resolve().name
    stated = uri or os.environ.get(URI_VARIABLE)
    if stated:
        return absolute_uri(ServerUri(stated).given), experiment
    if last is None or last.server is None:
        return None, experiment
    if trust:
        return absolute_uri(last.server), experiment
    named = ServerUri(last.server)
    login = f" {ADVISED}" if named.address != named else ""
    raise RunError(
        f"{path}: only this directory names the server {named}, and nothing is sent to it; if it is"
        f" yours, name it: --uri {named.address}{login} (or {URI_VARIABLE}); to believe the"
        " directory: --trust"
    )


def _record_again(path: Path) -> None:
    """Put a run on record that was not tracked: the steps that are done."""
    if not (path / "config.yaml").exists():
        raise RunError(f"{path}: is not a run directory: it has neither {JOURNAL} nor config.yaml")
    try:
        run = load_run(path)
        config = run.config.tracking.model_copy(update={"enabled": True})
        tracker = Tracker(config, run.config.name, path, sends=False)
        with _parent_runs(run, _done(run), tracker):
            _add_outcomes(run, tracker)
    except MixoptError as error:
        raise RunError(
            f"{path}: nothing of it was tracked (tracking.enabled: false, or it came to no step),"
            " and only what is left of a sweep can be recorded afterwards"
        ) from error
    if not (path / JOURNAL).exists():
        raise RunError(
            f"{path}: nothing to send: neither its sweep nor its validation is done; run it first"
        )
