"""What MLflow shall have of the steps of a run directory: parent runs of sweep and validation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mixopt.system import Say, silent
from mixopt.tracking.datasets import corpus_datasets
from mixopt.tracking.tracker import Tracker

if TYPE_CHECKING:
    from mixopt.run_directory import Run

# Files of each parent run, as patterns in the run directory.
FILES: dict[str, tuple[str, ...]] = {
    "sweep": (
        "config.yaml",
        "design.parquet",
        "trials.parquet",
        "experts.parquet",
        "fit/fit.json",
        "fit/report.parquet",
        "fit/held_out.parquet",
        "proposal.yaml",
        "figures/[!v]*.svg",
        "report.html",
    ),
    "validate": ("validation.parquet", "validation_experts.parquet", "figures/v*.svg"),
}
FOLDERS = {"sweep": "trials", "validate": "validation"}


def open_tracker(run: Run, warn: Say = silent) -> Tracker:
    """Return the tracker of a run; its process starts with the first step that is tracked."""
    return Tracker(run.config.tracking, run.config.name, run.path, warn)


@contextmanager
def tracked(run: Run, step: str, tracker: Tracker) -> Iterator[Tracker]:
    """Track a step of a run: `sweep`, `validate`, or `report`, which adds to those two.

    Args:
        run: The run.
        step: What is done in the block.
        tracker: The run's; it is not closed, and serves the next step too.
    """
    steps = [step] if step in FILES else [name for name in FILES if run.is_done(name)]
    for name in steps:
        tracker.start(
            name,
            _params(run, name),
            code_tags(run.fingerprint(name)),
            name=f"{run.path.resolve().name}/{name}",
            folder=FOLDERS[name],
            datasets=corpus_datasets(run.path / "corpus", run.natural),
        )
    yield tracker
    for name in steps:
        found = (file for pattern in FILES[name] for file in sorted(run.path.glob(pattern)))
        tracker.files(name, found)
        tracker.end(name)


def record_again(run: Run) -> None:
    """Want the steps of a run recorded that are done, though they were not tracked when done.

    `mixopt.tracking.sending` sends them; where none is done, nothing is written.
    """
    config = run.config.tracking.model_copy(update={"enabled": True})
    tracker = Tracker(config, run.config.name, run.path, sends=False)
    with tracker, tracked(run, "record", tracker):
        pass


def _params(run: Run, step: str) -> dict[str, Any]:
    config = run.config
    length = config.validation.tokens or 2 * config.proxy.tokens
    params: dict[str, Any] = {
        "seed": config.seed,
        "domains": len(config.corpus.domains),
        "tokenizer": config.corpus.tokenizer,
        "proxy": config.proxy.name,
        "tokens": config.proxy.tokens if step == "sweep" else length,
        **{f"proxy/{name}": value for name, value in config.proxy.options.items()},
    }
    if step == "sweep":
        params |= {f"design/{name}": value for name, value in config.design}
    else:
        params |= {"seeds": config.validation.seeds, "baselines": config.validation.baselines}
    return params


def code_tags(fingerprint: str) -> dict[str, str]:
    """Return tags that say what made a run: configuration, version, commit."""
    from mixopt.system import __version__, git_commit

    commit = git_commit()
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
