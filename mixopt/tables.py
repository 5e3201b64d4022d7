"""From tables that a user already has: fit them, propose from them, test the fit on new runs.

`fit_tables` leaves `trials.parquet` and `fit/` in a folder, which `propose_from` and
`evaluate_fit` read; both read a run directory as well.

Shapes: N trials, M evaluation domains.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import ValidationError

from mixopt.config import ConstraintsConfig, FitConfig, ObjectiveConfig, ProposeConfig
from mixopt.constraints import Constraints
from mixopt.crossval import spearman
from mixopt.errors import ConfigError, RunError, TrialsError, did_you_mean
from mixopt.fitted import Fit
from mixopt.fitting import fit_trials
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.progress import progress
from mixopt.proposal_file import Proposal
from mixopt.proposals import propose_mixture
from mixopt.run_directory import load_run
from mixopt.trials import Trials

Array = NDArray[np.float64]
NINETY = 1.6448536269514722  # a normal error is within so many standard deviations at 90%


def fit_tables(
    mixtures: str | Path,
    losses: str | Path,
    out: str | Path,
    *,
    regressors: Sequence[str] = (),
    targets: Sequence[str] = (),
    seed: int = 0,
) -> Fit:
    """Fit regressors to published or exported tables and keep the fit in a folder.

    Args:
        mixtures: CSV, a row for each trial: its key, and the weight of each domain.
        losses: CSV, a row for each trial: its key, and its losses in nats per token.
        out: The folder; it must not hold a run.
        regressors: Which compete; the usual ones when empty.
        targets: What is minimised: the mean of these; of all losses when empty.
        seed: Of folds and regressors.

    Raises:
        TrialsError: A table cannot be used.
        ConfigError: An unknown target.
        RunError: The folder is a run directory, or cannot be written.
    """
    out = Path(out)
    if (out / "config.yaml").exists():
        raise RunError(f"{out}: is the directory of a run; use another --out")
    trials = Trials.from_csv(mixtures, losses)
    objective = _mean_of(targets, trials)
    config = FitConfig(regressors=list(regressors)) if regressors else FitConfig()
    with progress("fit", len(config.regressors) * config.folds) as update:
        fitted = fit_trials(trials, config, objective, seed, update=update)
    trials.write(out / "trials.parquet")
    fitted.save(out / "fit")
    return fitted


def load_fit(directory: str | Path) -> Fit:
    """Read the fit of a run directory or of a folder that `fit_tables` made.

    Raises:
        RunError: There is none.
    """
    path = Path(directory) / "fit"
    if not (path / "fit.json").exists():
        raise RunError(
            f"{directory}: holds no fit; make one: mixopt run CONFIG --out {directory}, or"
            f" mixopt fit --mixtures W.csv --losses L.csv --out {directory}"
        )
    return Fit.load(path)


def propose_from(
    directory: str | Path,
    *,
    target: str | None = None,
    tokens: int | None = None,
    constraints: str | Path | None = None,
    seed: int = 0,
) -> Proposal:
    """Propose a mixture from a fit, for another target, length or constraints than before.

    What is not given is as the run's configuration has it, where the directory is a run's.

    Args:
        directory: A run directory, or a folder that `fit_tables` made.
        target: An evaluation domain; the fit's own objective when None.
        tokens: Length of the full run, for epochs and `max_epochs`.
        constraints: A YAML file of `bounds` and `max_epochs`, in place of the run's.
        seed: Of the search, where the directory is no run's.

    Raises:
        ConfigError: An unknown target or domain, or constraints that cannot be read.
        InfeasibleError: Constraints that no mixture meets.
    """
    directory = Path(directory)
    fitted = load_fit(directory)
    objective = fitted.objective
    if target is not None:
        config = ObjectiveConfig(target=target, unit=objective.unit)
        objective = Objective.from_config(config, fitted.targets)
    limits, search = ConstraintsConfig(), ProposeConfig()
    if (directory / "config.yaml").exists():
        config_of_run = load_run(directory).config
        limits, search = config_of_run.constraints, config_of_run.propose
        seed = config_of_run.seed
    if constraints is not None:
        limits = _read_constraints(Path(constraints))
    if tokens is not None:
        search = search.model_copy(update={"target_tokens": tokens})
    inventory = _inventory(directory)
    with progress("propose", search.bootstrap) as update:
        return propose_mixture(
            fitted,
            objective,
            _constraints(limits, inventory, fitted.domains, search.target_tokens),
            Mixture.natural(inventory) if inventory else Mixture.uniform(fitted.domains),
            fitted.trials,
            search,
            inventory=inventory,
            seed=seed,
            update=update,
        )


def evaluate_fit(directory: str | Path, mixtures: str | Path, losses: str | Path) -> dict[str, Any]:
    """Test a fit against runs that it has not seen.

    Returns:
        `mean_spearman`; and by target, and for `mean` (of all targets): `spearman`, `rmse` in
        nats per token, `coverage90` (share of the runs within the 90% interval), and of the
        run that the fit would pick its `rank` (1 is the best) and `regret` in nats per token.

    Raises:
        TrialsError: A table cannot be used, or has other domains or targets than the fit.
    """
    fitted = load_fit(directory)
    if fitted.objective.unit != "nats_per_token":
        raise TrialsError(
            f"{directory}: its fit is in bits per byte, and tables are in nats per token; a run"
            " with objective.unit: nats_per_token can be tested on them"
        )
    unseen = Trials.from_csv(mixtures, losses)
    if set(unseen.domains) != set(fitted.domains):
        odd = sorted(set(unseen.domains) ^ set(fitted.domains))[0]
        raise TrialsError(f"{mixtures}: domain {odd!r} is not in both the table and the fit")
    order = [unseen.domains.index(name) for name in fitted.domains]
    targets = [name for name in fitted.targets if name in unseen.targets]
    if not targets:
        raise TrialsError(f"{losses}: has none of the fit's targets: {', '.join(fitted.targets)}")
    prediction = fitted.predict(unseen.weights()[:, order])
    ours = [fitted.targets.index(name) for name in targets]
    observed_NM = unseen.losses(fitted.objective.unit)[
        :, [unseen.targets.index(n) for n in targets]
    ]
    predicted_NM, std_NM = prediction.losses_NM[:, ours], prediction.std_NM[:, ours]
    rows = {
        name: _scores(predicted_NM[:, m], observed_NM[:, m], std_NM[:, m])
        for m, name in enumerate(targets)
    }
    held_out_N = fitted.held_out_errors()[:, ours].mean(axis=1)
    spread_N = np.full(len(observed_NM), math.sqrt(float((held_out_N**2).mean())))
    mean = _scores(predicted_NM.mean(axis=1), observed_NM.mean(axis=1), spread_N)
    ranks = [row["spearman"] for row in rows.values() if row["spearman"] is not None]
    return {
        "regressor": fitted.name,
        "runs": len(observed_NM),
        "mean_spearman": float(np.mean(ranks)) if ranks else None,
        "targets": rows,
        "mean": mean,
    }


def _scores(predicted_N: Array, observed_N: Array, std_N: Array) -> dict[str, Any]:
    errors_N = observed_N - predicted_N
    pick = int(np.argmin(predicted_N))
    return {
        "spearman": spearman(predicted_N, observed_N),
        "rmse": float(np.sqrt((errors_N**2).mean())),
        "coverage90": float((np.abs(errors_N) <= NINETY * std_N).mean()),
        "rank": 1 + int((observed_N < observed_N[pick]).sum()),
        "regret": float(observed_N[pick] - observed_N.min()),
    }


def _mean_of(targets: Sequence[str], trials: Trials) -> Objective:
    weights = dict.fromkeys(targets or trials.targets, 1.0)
    config = ObjectiveConfig(mean=weights, unit="nats_per_token")
    return Objective.from_config(config, trials.targets)


def _inventory(directory: Path) -> dict[str, int] | None:
    """Return the tokens of each domain where the folder has a corpus."""
    from mixopt.corpus import Corpus

    path = directory / "corpus"
    return Corpus.open(path, verify=False).inventory if path.exists() else None


def _constraints(
    config: ConstraintsConfig,
    inventory: dict[str, int] | None,
    domains: tuple[str, ...],
    tokens: int | None,
) -> Constraints:
    if config.max_epochs is not None and inventory is None:
        raise ConfigError("constraints.max_epochs needs a corpus, whose tokens are counted")
    return Constraints.from_config(
        config, inventory=inventory or dict.fromkeys(domains, 1), target_tokens=tokens
    )


def _read_constraints(path: Path) -> ConstraintsConfig:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return ConstraintsConfig.model_validate(content)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "the file"
        if first["type"] == "extra_forbidden":
            near = did_you_mean(field, ConstraintsConfig.model_fields)
            raise ConfigError(f"{path}: {field}: unknown field{near}") from error
        raise ConfigError(f"{path}: {field}: {first['msg']}, got {first['input']!r}") from error
