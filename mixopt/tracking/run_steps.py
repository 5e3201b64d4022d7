"""What MLflow shall have of the steps of a run directory: parent runs of sweep and validation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mixopt.corpus import corpus_hash
from mixopt.run_directory import FIT, PROPOSE, STEPS, SWEEP, VALIDATE, Step
from mixopt.sweeps import METRICS, read_attempts
from mixopt.system import Say, package_versions, silent
from mixopt.tracking.datasets import corpus_datasets
from mixopt.tracking.outcome_files import add_outcome, outcome_file
from mixopt.tracking.run_params import run_params
from mixopt.tracking.step_images import IMAGES
from mixopt.tracking.tracker import Tracker

if TYPE_CHECKING:
    from mixopt.run_directory import Run
    from mixopt.sweeps import AttemptRecord

PICTURE = ".png"
LONGEST_TAG = 2000  # characters; MLflow's limit is 8000 bytes
WITH_OUTCOMES = (SWEEP, FIT, PROPOSE, VALIDATE)  # steps after which more is known of a run


def open_tracker(run: Run, warn: Say = silent) -> Tracker:
    """Return the tracker of a run; its process starts with the first step that is tracked.

    Where only the directory names a server, what to send is noted, and nothing is sent.
    """
    return Tracker(run.config.tracking, run.config.name, run.path, warn, sends=run.is_sent)


@contextmanager
def tracked(run: Run, step: Step, tracker: Tracker) -> Iterator[None]:
    """Track a step of a run: as a parent run, or into those of the steps that are done.

    What is known of the run then is added to the sweep's parent run, which stands for all of it.
    Fit and proposal have no parent run: where no process sends yet, the next step's will.

    Args:
        run: The run.
        step: What is done in the block.
        tracker: The run's; it is not closed, and serves the next step too.
    """
    parents = (step,) if step.artifacts else ()
    with _parent_runs(run, _done(run) if step.completes_records else parents, tracker):
        yield
        if step in WITH_OUTCOMES:
            _add_outcomes(run, tracker)


def record_again(run: Run) -> None:
    """Want the steps of a run recorded that are done, though they were not tracked when done.

    `mixopt.tracking.sending` sends them; where none is done, nothing is written.
    """
    config = run.config.tracking.model_copy(update={"enabled": True})
    tracker = Tracker(config, run.config.name, run.path, sends=False)
    with tracker, _parent_runs(run, _done(run), tracker):
        _add_outcomes(run, tracker)


def _done(run: Run) -> tuple[Step, ...]:
    """Return the steps with a parent run that are done."""
    return tuple(step for step in STEPS if step.artifacts and run.is_done(step.name))


@contextmanager
def _parent_runs(run: Run, steps: Sequence[Step], tracker: Tracker) -> Iterator[None]:
    """Open the parent run of each step, and add its files when the block has ended."""
    for step in steps:
        tracker.start(
            step.name,
            run_params(run, step),
            {
                **code_tags(run.fingerprint(step.name), run.commit),
                **package_tags(),
                "mixopt.executor": run.config.sweep.executor,
                "mixopt.corpus_hash": corpus_hash(run.path / "corpus"),
            },
            name=f"{run.path.resolve().name}/{step.name}",
            folder=step.trials,
            datasets=corpus_datasets(run.path / "corpus", run.natural),
        )
        tracker.follow(step.name, outcome_file(run.path, step.name))
        tracker.follow(step.name, step.trial_folder(run.path) / METRICS)
    yield
    for step in steps:
        places = place_tags(read_attempts(step.trial_folder(run.path)))
        if places:
            tracker.tags(step.name, places)
        found = [file for pattern in step.artifacts for file in sorted(run.path.glob(pattern))]
        tracker.files(step.name, [file for file in found if file.suffix != PICTURE])
        if pictures := [file for file in found if file.suffix == PICTURE]:
            tracker.files(step.name, pictures, IMAGES)
        tracker.end(step.name)


def _add_outcomes(run: Run, tracker: Tracker) -> None:
    """Add what is known of a run now; a fault in that is said, and no error."""
    if not tracker.enabled:
        return
    from mixopt.tracking.outcome_metrics import run_outcome, validation_outcome
    from mixopt.tracking.run_description import description_tags

    try:
        add_outcome(outcome_file(run.path, SWEEP.name), run_outcome(run))
        add_outcome(outcome_file(run.path, VALIDATE.name), validation_outcome(run))
        tags = description_tags(run)
    except Exception as error:
        tracker.complain(f"outcomes are not recorded: {type(error).__name__}: {error}")
        return
    for step in (SWEEP, VALIDATE):
        if tags:
            tracker.tags(step.name, tags)


def place_tags(attempts: Iterable[AttemptRecord]) -> dict[str, str]:
    """Return tags that say on which nodes and kinds of device trials were trained."""
    found = sorted({(attempt.node, attempt.kind) for attempt in attempts})
    if not found:
        return {}
    nodes = ", ".join(dict.fromkeys(node for node, _ in found))
    kinds = ", ".join(sorted({kind for _, kind in found}))
    return {"mixopt.nodes": nodes[:LONGEST_TAG], "mixopt.devices": kinds[:LONGEST_TAG]}


def package_tags() -> dict[str, str]:
    """Return a tag with the versions of the packages that results depend on."""
    versions = ", ".join(f"{name} {found}" for name, found in package_versions().items())
    return {"mixopt.versions": versions[:LONGEST_TAG]}


def code_tags(fingerprint: str, commit: str | None) -> dict[str, str]:
    """Return tags that say what made a run: configuration, version, commit if it is known."""
    from mixopt.system import __version__

    tags = {
        "mixopt.fingerprint": fingerprint,
        "mixopt.version": __version__,
        "mlflow.source.name": f"mixopt {__version__}",
    }
    if commit is None:
        return tags
    clean = commit.removesuffix("+")
    return tags | {
        "mixopt.git_commit": commit,
        "mixopt.git_dirty": str(clean != commit).lower(),
        "mlflow.source.git.commit": clean,
    }
