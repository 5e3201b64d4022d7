"""Fit and propose with the configuration of a run, from its trials or from more."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mixopt.system import steady_progress

if TYPE_CHECKING:
    from mixopt.fitting import Fit
    from mixopt.proposals import Proposal
    from mixopt.run_directory import Run
    from mixopt.trials import Trials


def fit_of(run: Run, trials: Trials) -> Fit:
    """Fit the regressors of a run, and transfer the best by the run's pilots."""
    from mixopt.fitting import fit_trials

    config, pilots = run.config.fit, _pilots(run)
    with steady_progress("fit", len(config.regressors) * config.folds) as update:
        chosen = fit_trials(
            trials,
            config,
            run.objective,
            run.config.seed,
            repetition=run.repetition,
            update=update,
        )
    return chosen if pilots is None else chosen.with_pilots(pilots)


def _pilots(run: Run) -> Trials | None:
    """Read the runs at the target size, if there are any."""
    from mixopt.fitting import aligned
    from mixopt.trials import TableOptions

    config = run.config.fit.pilots
    if config is None:
        return None
    files = (config.mixtures, config.losses, config.trials)
    paths = [None if file is None else Path(file) for file in files]
    pilots = TableOptions(unit=run.config.objective.unit).read_pilots(*paths)
    return None if pilots is None else aligned(pilots, run.trials.finished, run.objective)


def proposal_of(run: Run, fit: Fit) -> Proposal:
    """Propose a mixture from a fit, with the configuration of the run."""
    from mixopt.pipeline.mixed_parts import with_parts
    from mixopt.proposals import propose_mixture, search_steps

    with steady_progress("propose", search_steps(run.config.propose)) as update:
        found = propose_mixture(
            fit,
            run.objective,
            run.constraints,
            run.natural,
            run.trials,
            run.config.propose,
            inventory=run.inventory,
            seed=run.config.seed,
            collapsed=run.collapsed,
            update=update,
        )
    return with_parts(found, run)
