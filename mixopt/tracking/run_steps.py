"""What MLflow shall have of the steps of a run directory: parent runs of sweep and validation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mixopt.run_directory import STEPS, SWEEP, VALIDATE, Step
from mixopt.sweeps import METRICS, read_attempts
from mixopt.system import Say, silent
from mixopt.tracking.datasets import corpus_datasets
from mixopt.tracking.decision_record import GAINS, decision_tags
from mixopt.tracking.tracker import Tracker

if TYPE_CHECKING:
    from mixopt.run_directory import Run
    from mixopt.sweeps import AttemptRecord

LONGEST_TAG = 2000  # characters; MLflow's limit is 8000 bytes


def open_tracker(run: Run, warn: Say = silent) -> Tracker:
    """Return the tracker of a run; its process starts with the first step that is tracked.

    A run whose configuration is its directory's own record notes what to send, and sends nothing.
    """
    sends = not run.is_foreign
    return Tracker(run.config.tracking, run.config.name, run.path, warn, sends=sends)


@contextmanager
def tracked(run: Run, step: Step, tracker: Tracker) -> Iterator[None]:
    """Track a step of a run: as a parent run, or into those of the steps that are done.

    A step that has no parent run and leaves no files for another's is not tracked.

    Args:
        run: The run.
        step: What is done in the block.
        tracker: The run's; it is not closed, and serves the next step too.
    """
    parents = (step,) if step.artifacts else ()
    with _parent_runs(run, _done(run) if step.completes_records else parents, tracker):
        yield


def record_again(run: Run) -> None:
    """Want the steps of a run recorded that are done, though they were not tracked when done.

    `mixopt.tracking.sending` sends them; where none is done, nothing is written.
    """
    config = run.config.tracking.model_copy(update={"enabled": True})
    tracker = Tracker(config, run.config.name, run.path, sends=False)
    with tracker, _parent_runs(run, _done(run), tracker):
        pass


def _done(run: Run) -> tuple[Step, ...]:
    """Return the steps with a parent run that are done."""
    return tuple(step for step in STEPS if step.artifacts and run.is_done(step.name))


@contextmanager
def _parent_runs(run: Run, steps: Sequence[Step], tracker: Tracker) -> Iterator[None]:
    """Open the parent run of each step, and add its files when the block has ended."""
    for step in steps:
        tracker.start(
            step.name,
            _params(run, step),
            {
                **code_tags(run.fingerprint(step.name), run.commit),
                "mixopt.executor": run.config.sweep.executor,
            },
            name=f"{run.path.resolve().name}/{step.name}",
            folder=step.trials,
            datasets=corpus_datasets(run.path / "corpus", run.natural),
        )
        for name in (METRICS, *((GAINS,) if step is VALIDATE else ())):
            tracker.follow(step.name, step.trial_folder(run.path) / name)
    yield
    for step in steps:
        places = place_tags(read_attempts(step.trial_folder(run.path)))
        if places:
            tracker.tags(step.name, places)
        if step is VALIDATE and run.is_done(step.name):
            tracker.tags(step.name, decision_tags(run.recommendation))
        found = (file for pattern in step.artifacts for file in sorted(run.path.glob(pattern)))
        tracker.files(step.name, found)
        tracker.end(step.name)


def place_tags(attempts: Iterable[AttemptRecord]) -> dict[str, str]:
    """Return tags that say on which nodes and kinds of device trials were trained."""
    found = sorted({(attempt.node, attempt.kind) for attempt in attempts})
    if not found:
        return {}
    nodes = ", ".join(dict.fromkeys(node for node, _ in found))
    kinds = ", ".join(sorted({kind for _, kind in found}))
    return {"mixopt.nodes": nodes[:LONGEST_TAG], "mixopt.devices": kinds[:LONGEST_TAG]}


def _params(run: Run, step: Step) -> dict[str, Any]:
    config = run.config
    length = config.validation_tokens
    params: dict[str, Any] = {
        "seed": config.seed,
        "domains": len(config.corpus.domains),
        "tokenizer": config.corpus.tokenizer,
        "proxy": config.proxy.name,
        "tokens": config.proxy.tokens if step is SWEEP else length,
        **{f"proxy/{name}": value for name, value in config.proxy.options.items()},
    }
    if step is SWEEP:
        params |= {f"design/{name}": value for name, value in config.design}
    else:
        names = [one.name for one in config.validation.baselines]
        params |= {name: getattr(config.validation, name) for name in ("seeds", "rounds")}
        params |= {"max_seeds": config.validation.most_seeds, "baselines": names}
    return params


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
