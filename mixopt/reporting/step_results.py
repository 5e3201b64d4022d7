"""What each step of a run found, as plain values: the `--json` of a step's command."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mixopt.fitting import readiness
from mixopt.run_directory import DESIGN, FIT, PREPARE, PROPOSE, REPORT, SWEEP, VALIDATE

if TYPE_CHECKING:
    from mixopt.run_directory import Run


def step_result(run: Run, step: str) -> dict[str, Any]:
    """Return what a step that is done found.

    Args:
        run: The run.
        step: Name of the step.

    Raises:
        RunError: Its files are not what was written.
    """
    return _RESULTS[step](run)


def _prepared(run: Run) -> dict[str, Any]:
    corpus = run.corpus
    sizes = {"tokens": corpus.inventory, "vocab_size": corpus.vocab_size}
    return {"corpus": str(run.path / "corpus"), "tokenizer": run.config.corpus.tokenizer, **sizes}


def _designed(run: Run) -> dict[str, Any]:
    return {"trials": len(run.design), "roles": dict(Counter(one.role for one in run.design))}


def _swept(run: Run) -> dict[str, Any]:
    return {"trials": len(run.trials), "table": str(run.path / "trials.parquet")}


def _fitted(run: Run) -> dict[str, Any]:
    fit = run.fit
    ready = readiness(fit)
    return {"regressor": fit.name, "summary": fit.summary(), "readiness": ready.to_json()}


def _proposed(run: Run) -> dict[str, Any]:
    return run.proposal.to_json()


def _validated(run: Run) -> dict[str, Any]:
    found = run.recommendation.to_json()
    return {"recommendation": found, "validation": run.validation.to_json()}


def _reported(run: Run) -> dict[str, Any]:
    return {"report": str(run.path / "report.html")}


_RESULTS: dict[str, Callable[[Run], dict[str, Any]]] = {
    PREPARE.name: _prepared,
    DESIGN.name: _designed,
    SWEEP.name: _swept,
    FIT.name: _fitted,
    PROPOSE.name: _proposed,
    VALIDATE.name: _validated,
    REPORT.name: _reported,
}
