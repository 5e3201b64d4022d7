"""Fit tables or the trials of a run; propose and predict from a saved fit."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from mixopt.config import read_inventory
from mixopt.corpus import tokens_per_byte
from mixopt.errors import ConfigError, MixoptError, MixtureError, RunError
from mixopt.fitting import Fit, FitReadiness, ObjectiveLike, fit_content, fit_trials, readiness
from mixopt.mixture import Mixture
from mixopt.objective import Direction, Objective, Scale, Unit
from mixopt.proposals import (
    Forecast,
    Proposal,
    ProposalRequest,
    Recommendation,
    predict_mixture,
    propose_mixture,
)
from mixopt.run_directory import (
    RECOMMENDATION,
    CheckedPart,
    Run,
    carried_trials,
    load_run,
    repetition_of,
    request_of,
)
from mixopt.system import check_links, checked_as, read_yaml, steady_progress, visible_files
from mixopt.trials import Trials

FIT_COMMAND = "mixopt fit W.csv L.csv --out DIR"
PARTS = "parts"  # field of the provenance of an answer
Parts = Mapping[str, Mapping[str, float]]
Answer = TypeVar("Answer", Proposal, Recommendation)


def read_tables(
    paths: Sequence[str | Path],
    *,
    unit: Unit | None = None,
    ignore: Sequence[str] = (),
    drop_incomplete: bool = False,
    key: str | None = None,
    tolerance: float = 0.01,
) -> Trials:
    """Read trials from a table of mixtures and one of losses, or from one of both.

    Args:
        paths: Two tables as CSV or Parquet; one CSV exported from MLflow or W&B
            (`Trials.from_csv`); or one table that mixopt wrote.
        unit: Unit of the losses in two tables; None: nats per token.
        ignore: Columns that are neither weights nor losses.
        drop_incomplete: Drop rows with missing numbers.
        key: Column to join two tables by; None: found by its name and values.
        tolerance: How far the sum of weights may be from 1.

    Raises:
        ConfigError: Not one or two tables, or options for two tables given with one.
        TrialsError: A table cannot be read.
    """
    if len(paths) == 1 and Path(paths[0]).suffix.lower() != ".csv":
        if ignore or drop_incomplete or key is not None:
            raise ConfigError(
                f"{paths[0]}: one table of trials is read as it is; leave out options"
            )
        return Trials.read(paths[0])
    if not 1 <= len(paths) <= 2:
        raise ConfigError(
            "give two tables, W.csv of mixtures and L.csv of losses, or one of trials; got"
            f" {len(paths)}"
        )
    return Trials.from_csv(
        *paths,
        tolerance=tolerance,
        key=key,
        unit=unit or "nats_per_token",
        ignore=ignore,
        drop_incomplete=drop_incomplete,
    )


def fit_tables(
    trials: Trials,
    out: str | Path,
    *,
    regressors: Sequence[str] = (),
    objective: ObjectiveLike | None = None,
    direction: Mapping[str, Direction] | None = None,
    scale: Scale = "none",
    at: Mapping[str, float] | None = None,
) -> tuple[Fit, FitReadiness]:
    """Fit trials, and write fit and trials to a folder for `propose` and `predict`.

    Args:
        trials: The trials.
        out: The folder.
        regressors: Regressors that compete (as in `Trials.fit`, like the arguments below).
        objective: What to minimise; None: the mean of all losses.
        direction: `higher` for each loss, by name or glob, of which higher is better.
        scale: `spread` divides each loss by its standard deviation over the trials.
        at: `parameters` and `tokens` to predict at, from trials of several sizes.

    Returns:
        The fit, and the readiness of its losses.

    Raises:
        RunError: The folder is a run directory.
        ConfigError: An invalid argument, or an objective that is only noise.
    """
    out = Path(out)
    if (out / "config.yaml").exists():
        raise RunError(f"{out}: is a run directory; use another --out")
    fit = trials.fit(
        regressors=tuple(regressors),
        objective=objective,
        direction=direction,
        scale=scale,
        size=at or None,
    )
    ready = readiness(fit)
    if objective is not None and getattr(objective, "noise", None) != "allow":
        ready.refuse_noise()
    trials.with_targets(fit.targets).write(out / "trials.parquet")
    fit.save(out / "fit")
    return fit, ready


def load_fit(directory: str | Path, *, trust: bool = False) -> Fit:
    """Read the fit of a run directory, or of a folder written by `mixopt fit` or `Fit.save`.

    Args:
        directory: The directory.
        trust: Whether to trust the directory: import code that it names, and follow links that
            lead out of it.

    Raises:
        RunError: There is no fit, or its files were changed.
        PluginError: The fit names code and is not trusted.

    Examples:
        >>> mixopt.load_fit("runs/mine").domains
        ('code', 'prose')
    """
    directory = Path(directory)
    if not trust:
        check_links(directory)
    for path in (directory / "fit", directory):
        if (path / "fit.json").exists():
            return Fit.load(path, trust=trust)
    raise RunError(
        f"{directory}: contains no fit; make one: mixopt run CONFIG --out {directory}, or"
        f" mixopt fit W.csv L.csv --out {directory}"
    )


def verify_fit_folder(directory: Path) -> list[CheckedPart]:
    """Verify a folder that `mixopt fit` made from tables."""
    path = directory / "fit" if (directory / "fit").is_dir() else directory
    if not (path / "fit.json").exists():
        raise RunError(f"{directory}: contains neither a run nor a fit; nothing to verify")
    files = visible_files(path)
    size = sum(file.stat().st_size for file in files)
    part = CheckedPart("fit", "whole", len(files), size)
    try:
        fit_content(path)
    except MixoptError as error:
        file, _, fault = str(error).partition(": ")
        part = replace(part, state="damaged", faults={file: fault}, fix=FIT_COMMAND)
    return [part]


def fit_of(run: Run, trials: Trials, objective: Objective | None = None, title: str = "fit") -> Fit:
    """Fit the regressors of a run; the objective is the run's if omitted."""
    config = run.config.fit
    with steady_progress(title, len(config.regressors) * config.folds) as update:
        return fit_trials(
            trials,
            config,
            objective or run.objective,
            run.config.seed,
            repetition=repetition_of(run),
            carried=carried_trials(run),
            update=update,
        )


def proposal_of(run: Run, fit: Fit) -> Proposal:
    """Propose a mixture from a fit, with the configuration of the run."""
    return with_parts(propose_mixture(request_of(run, fit)), run)


def propose(
    directory: str | Path,
    *,
    target: ObjectiveLike | None = None,
    tokens: int | None = None,
    constraints: Path | None = None,
    inventory: Path | None = None,
    free: Sequence[str] = (),
    reference: Mixture | None = None,
    trust: bool = False,
) -> Proposal:
    """Propose a mixture from a fit, also for another target, length or constraints.

    Args:
        directory: A run directory, or a folder with a fit (`load_fit`).
        target: What to minimise (`Fit.propose`); None: the fit's objective.
        tokens: Length of the full run in tokens; None: the run's.
        constraints: YAML of changes to the run's constraints.
        inventory: YAML of tokens by domain; None: the run's.
        free: Domains, branches or globs that may change; all others are frozen. Empty: all may.
        reference: The mixture that frozen domains keep; None: the run's recommendation.
        trust: Whether the directory is trusted (`load_fit`).

    Raises:
        ConfigError: An unknown target, or unreadable constraints.
        InfeasibleError: No mixture meets the constraints.

    Examples:
        >>> mixopt.propose("runs/mine", target="prose").objective
        'prose'
    """
    request, run = request_from(
        directory,
        target,
        tokens=tokens,
        constraints=constraints,
        inventory=inventory,
        free=free,
        reference=reference,
        trust=trust,
    )
    answer = propose_mixture(request)
    return answer if run is None else with_parts(answer, run)


def predict(
    directory: str | Path,
    mixture: Mixture | Mapping[str, float] | str | Path | None = None,
    *,
    target: ObjectiveLike | None = None,
    tokens: int | None = None,
    constraints: Path | None = None,
    inventory: Path | None = None,
    trust: bool = False,
) -> Forecast:
    """Predict the losses of a mixture with intervals, and list the limits that it breaks.

    Args:
        directory: A run directory, or a folder with a fit (`load_fit`).
        mixture: Weights of the fit's domains (with phases, also one mixture for all of them), or a
            file with weights, such as a proposal; None: the run's recommendation.
        target: What to minimise (`propose`); None: the fit's objective.
        tokens: Length of the full run in tokens (`propose`).
        constraints: YAML of constraints.
        inventory: YAML of tokens by domain.
        trust: Whether the directory is trusted (`load_fit`).

    Raises:
        MixtureError: The weights do not add up to 1, or name other domains than the fit.
        ConfigError: An unknown target, or unreadable constraints.
        InfeasibleError: No mixture meets the constraints.

    Examples:
        >>> mixopt.predict("runs/mine", {"code": 0.4, "prose": 0.6}, tokens=10_000_000).broken
        ()
    """
    if mixture is None:
        mixture = load_run(directory, trust=trust).outcome.result.mixture
    request, _ = request_from(
        directory, target, tokens=tokens, constraints=constraints, inventory=inventory, trust=trust
    )
    return predict_mixture(request, mixture)


def request_from(
    directory: str | Path,
    target: ObjectiveLike | None = None,
    *,
    tokens: int | None = None,
    constraints: Path | None = None,
    inventory: Path | None = None,
    free: Sequence[str] = (),
    reference: Mixture | None = None,
    trust: bool = False,
) -> tuple[ProposalRequest, Run | None]:
    """Return the request of `propose`, and the run; arguments that are None are the run's."""
    fit = load_fit(directory, trust=trust)
    is_run = (Path(directory) / "config.yaml").exists()
    run = load_run(directory, trust=trust) if is_run else None
    sizes = None if inventory is None else _read_sizes(inventory, fit, run)
    if run is None:
        request = ProposalRequest.of(
            fit,
            target,
            phases=fit.trials.phases,
            tokens=tokens,
            constraints=constraints,
            inventory=sizes,
        )
    else:
        request = request_of(
            run, fit, target, tokens=tokens, constraints=constraints, inventory=sizes
        )
    if not free:
        return request, run
    name = "the mixture"
    if reference is None:
        if run is None:
            raise ConfigError(
                f"--free {free[0]}: {directory} recommends no mixture to hold the others at; give"
                f" one: --free {free[0]}=FILE"
            )
        reference = run.outcome.result.mixture
        name = "the run"
    limits = request.constraints.frozen_but(free, reference, name)
    return replace(request, constraints=limits), run


def _read_sizes(inventory: Path, fit: Fit, run: Run | None) -> dict[str, int]:
    """Read tokens by domain; sizes in bytes are converted by the run's corpus, if there is one."""
    rates = None
    if run is not None and (run.path / "corpus").exists():
        rates = tokens_per_byte(run.corpus)
    return read_inventory(inventory, fit.domains, tokens_per_byte=rates)


def parts_of(run: Run) -> Parts:
    """Return the prepared shares of the parts of each mixed domain of a run."""
    mixed = run.config.corpus.mixed
    if not mixed:
        return {}
    corpus = run.path / "corpus"
    if corpus.exists():
        return {name: record["shares"] for name, record in run.corpus.provenance["mixed"].items()}
    for file in (run.path / RECOMMENDATION, run.path / "proposal.yaml"):
        if file.exists():
            parts = parts_in(file)
            if mixed.keys() <= parts.keys():
                return parts
    raise RunError(
        f"{corpus}: missing, so the shares of the parts of {', '.join(mixed)} are unknown; restore"
        " it, or prepare it again with mixopt run"
    )


def with_parts(answer: Answer, run: Run) -> Answer:
    """Return an answer with the parts of mixed domains in its provenance."""
    parts = parts_of(run)
    if not parts:
        return answer
    return replace(answer, provenance={**answer.provenance, PARTS: parts})


def parts_in(file: Path) -> Parts:
    """Return the parts of mixed domains from the file of a proposal or recommendation."""
    content: Any = read_yaml(file, error=MixtureError)
    for name in ("provenance", PARTS):
        content = content.get(name) if isinstance(content, dict) else None
    where = f"{file}: provenance.{PARTS}"
    parts: Parts = checked_as(dict[str, dict[str, float]], content or {}, where, MixtureError)
    return parts


def spread_out(mixture: Mixture, parts: Parts) -> Mixture:
    """Return a mixture in which each mixed domain is replaced by its parts."""
    weights: dict[str, float] = {}
    for name, weight in mixture.items():
        for part, share in parts.get(name, {name: 1.0}).items():
            weights[part] = weight * share
    return Mixture(weights)


def spread_sizes(run: Run, parts: Parts) -> dict[str, Any]:
    """Return tokens by domain, with mixed domains replaced by their parts.

    Without a prepared corpus, only stated sizes are returned.
    """
    sources = run.config.corpus.sources
    if not (run.path / "corpus").exists():
        return {
            name: source.tokens for name, source in sources.items() if source.tokens is not None
        }
    sizes = {name: size for name, size in run.inventory.items() if name not in parts}
    for part, record in _part_records(run, parts).items():
        sizes[part] = sources[part].tokens or record["tokens"]
    return sizes


def spread_samples(run: Run, parts: Parts) -> dict[str, float]:
    """Return mean tokens of a document, with mixed domains replaced by their parts."""
    means = {name: mean for name, mean in run.corpus.sample_tokens.items() if name not in parts}
    for part, record in _part_records(run, parts).items():
        if record["documents"]:
            means[part] = record["tokens"] / record["documents"]
    return means


def _part_records(run: Run, parts: Parts) -> dict[str, dict[str, Any]]:
    """Return the tokens and documents of the whole text of each part."""
    records: dict[str, dict[str, Any]] = {}
    for name in parts:
        records |= run.corpus.provenance["mixed"][name]["whole"]
    return records
