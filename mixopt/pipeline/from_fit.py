"""Answers from a fit that is there: propose, predict, a front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mixopt.config import (
    RiskConfig,
    read_inventory,
    stated_tokens,
)
from mixopt.corpus import Corpus, tokens_per_byte
from mixopt.errors import MixoptError, MixtureError, RunError
from mixopt.fitting import ObjectiveLike
from mixopt.mixture import Mixture
from mixopt.proposals import (
    Forecast,
    Front,
    Proposal,
    ProposalRequest,
    Recommendation,
    predict_mixture,
    propose_front,
    propose_mixture,
    search_steps,
)
from mixopt.run_directory import (
    RECOMMENDATION,
    CheckedPart,
    Run,
    collapsed_trials,
    load_run,
    repetition_of,
    request_of,
)
from mixopt.system import check_links, checked_as, read_yaml, steady_progress, visible_files

if TYPE_CHECKING:
    from mixopt.fitting import Fit
    from mixopt.proposals import Proposal
    from mixopt.run_directory import Run
    from mixopt.trials import Trials


def check_fit_folder(out: str | Path) -> None:
    """Check that a fit from tables may be written into a folder."""
    if (Path(out) / "config.yaml").exists():
        raise RunError(f"{out}: is a run directory; use another --out")


def write_fit_folder(out: str | Path, trials: Trials, fit: Fit) -> None:
    """Write trials and their fit, from which proposals are made later."""
    check_fit_folder(out)
    trials.with_targets(fit.targets).write(Path(out) / "trials.parquet")
    fit.save(Path(out) / "fit")


def load_fit(directory: str | Path, *, trust: bool = False) -> Fit:
    """Read the fit of a run directory, of a folder that `mixopt fit` made, or that `Fit.save` made.

    Args:
        directory: The directory.
        trust: Whether its maker is trusted: code that it names is imported, and links that lead
            out of it are followed. Or the names of regressors that may be imported.

    Raises:
        RunError: There is none, or it is not what was written.
        PluginError: It names code and is not trusted.
    """
    from mixopt.fitting import Fit

    directory = Path(directory)
    if not trust:
        check_links(directory)
    for path in (directory / "fit", directory):
        if (path / "fit.json").exists():
            return Fit.load(path, trust=trust)
    raise RunError(
        f"{directory}: contains no fit; make one: mixopt run CONFIG --out {directory}, or"
        f" mixopt fit --mixtures W.csv --losses L.csv --out {directory}"
    )


def verify_fit_folder(directory: Path) -> list[CheckedPart]:
    """Check a folder that `mixopt fit` made from tables; a fit that is whole is also read."""
    from mixopt.fitting import check_fit_files

    path = directory / "fit" if (directory / "fit").is_dir() else directory
    if not (path / "fit.json").exists():
        raise RunError(f"{directory}: contains neither a run nor a fit; nothing to verify")
    files = visible_files(path)
    size = sum(file.stat().st_size for file in files)
    try:
        check_fit_files(path)
    except MixoptError as error:
        file, _, what = str(error).partition(": ")
        mend = "mixopt fit --mixtures W.csv --losses L.csv --out DIR"
        return [CheckedPart("fit", "damaged", len(files), size, {file: what}, mend)]
    return [CheckedPart("fit", "whole", len(files), size)]


Parts = Mapping[str, Mapping[str, float]]
PARTS = "parts"
Answer = TypeVar("Answer", Proposal, Recommendation)


def parts_of(run: Run) -> dict[str, dict[str, float]]:
    """Return the shares of the parts of each mixed domain of a run, as they were prepared."""
    mixed, corpus = run.config.corpus.mixed, run.path / "corpus"
    if not mixed:
        return {}
    if corpus.exists():
        return {name: made["shares"] for name, made in run.corpus.provenance["mixed"].items()}
    for file in (run.path / RECOMMENDATION, run.path / "proposal.yaml"):
        parts = parts_in(file) if file.exists() else {}
        if mixed.keys() <= parts.keys():
            return parts
    raise RunError(
        f"{corpus}: missing, so the shares of the parts of {', '.join(mixed)} are unknown; restore"
        " it, or prepare it again with mixopt run"
    )


def with_parts(found: Answer, run: Run) -> Answer:
    """Return a proposal or recommendation that says what its mixed domains are made of."""
    parts = parts_of(run)
    return replace(found, provenance={**found.provenance, PARTS: parts}) if parts else found


def parts_in(file: Path) -> dict[str, dict[str, float]]:
    """Return what the mixed domains of the file of an answer are made of."""
    content = read_yaml(file, error=MixtureError)
    about = content.get("provenance") if isinstance(content, dict) else None
    parts = about.get(PARTS, {}) if isinstance(about, dict) else {}
    where = f"{file}: provenance.{PARTS}"
    found: dict[str, dict[str, float]] = checked_as(
        dict[str, dict[str, float]], parts, where, MixtureError
    )
    return found


def spread_out(mixture: Mixture, parts: Parts) -> Mixture:
    """Return a mixture in which each mixed domain is replaced by its parts, share by share."""
    weights: dict[str, float] = {}
    for name, weight in mixture.items():
        weights |= {part: weight * share for part, share in parts.get(name, {name: 1.0}).items()}
    return Mixture(weights)


def spread_sizes(run: Run, sizes: Mapping[str, Any], parts: Parts) -> dict[str, Any]:
    """Return tokens by domain with those of parts in the place of mixed domains."""
    found: dict[str, Any] = {}
    for name, size in sizes.items():
        if name not in parts:
            found[name] = size
            continue
        whole = run.corpus.provenance["mixed"][name]["whole"]
        sources = run.config.corpus.mixed[name].domains
        found |= {part: sources[part].tokens or whole[part]["tokens"] for part in parts[name]}
    return found


def spread_samples(run: Run, parts: Parts) -> dict[str, float]:
    """Return mean tokens of a document with those of parts in the place of mixed domains."""
    found = {name: mean for name, mean in run.corpus.sample_tokens.items() if name not in parts}
    for name in parts:
        whole = run.corpus.provenance["mixed"][name]["whole"]
        found |= {
            part: one["tokens"] / one["documents"]
            for part, one in whole.items()
            if one["documents"]
        }
    return found


def fit_of(run: Run, trials: Trials) -> Fit:
    """Fit the regressors of a run."""
    from mixopt.fitting import fit_trials

    config = run.config.fit
    with steady_progress("fit", len(config.regressors) * config.folds) as update:
        return fit_trials(
            trials,
            config,
            run.objective,
            run.config.seed,
            repetition=repetition_of(run),
            update=update,
        )


def proposal_of(run: Run, fit: Fit) -> Proposal:
    """Propose a mixture from a fit, with the configuration of the run."""
    with steady_progress("propose", search_steps(run.config.propose)) as update:
        found = propose_mixture(request_of(run, fit), run.objective, update=update)
    return with_parts(found, run)


@dataclass(frozen=True)
class FitQuery:
    """What a proposal is asked for; what is None is as the run has it."""

    tokens: int | None = None
    constraints: Path | None = None
    inventory: Path | None = None
    risk: RiskConfig | None = None


def propose_from(
    directory: str | Path,
    *,
    target: ObjectiveLike | None = None,
    query: FitQuery | None = None,
    trust: bool = False,
) -> Proposal:
    """Propose a mixture from a fit, for another target, length or constraints than before."""
    directory = Path(directory)
    request = _request(directory, query or FitQuery(), trust)
    objective = request.resolve_objective(target)
    with steady_progress("propose", search_steps(request.search)) as update:
        found = propose_mixture(request, objective, update=update)
    if not (directory / "config.yaml").exists():
        return found
    return with_parts(found, load_run(directory, trust=trust))


def predict_from(
    directory: str | Path,
    mixture: Mixture | Mapping[str, float] | str | Path,
    *,
    target: ObjectiveLike | None = None,
    query: FitQuery | None = None,
    trust: bool = False,
) -> Forecast:
    """Predict what a mixture gives, with intervals, and which limits it breaks.

    Args:
        directory: A run directory, or a folder with a fit (`load_fit`).
        mixture: Weights of the fit's domains, or a file of them, such as a proposal.
        target: What is minimised (`propose_from`); the fit's own objective when None.
        query: The length of the run, limits and inventory, where others are meant.
        trust: Whether the directory is trusted (`load_fit`).

    Raises:
        MixtureError: The weights do not add up to 1, or are of other domains than the fit.
        ConfigError: An unknown target, or constraints that cannot be read.
        InfeasibleError: Constraints that no mixture meets.
    """
    if isinstance(mixture, (str, Path)):
        mixture = Mixture.from_file(mixture)
    elif not isinstance(mixture, Mixture):
        mixture = Mixture(mixture)
    request = _request(Path(directory), query or FitQuery(), trust)
    return predict_mixture(request, mixture, request.resolve_objective(target))


def propose_front_from(
    directory: str | Path,
    targets: Sequence[str],
    *,
    points: int = 9,
    query: FitQuery | None = None,
    trust: bool = False,
) -> Front:
    """Propose mixtures along the Pareto front of some targets."""
    request = _request(Path(directory), query or FitQuery(), trust)
    with steady_progress("front", points) as update:
        return propose_front(request, targets, points=points, update=update)


def _request(directory: Path, query: FitQuery, trust: bool) -> ProposalRequest:
    fit = load_fit(directory, trust=trust)
    sizes = known_inventory(directory, query.inventory, fit.domains, trust)
    if (directory / "config.yaml").exists():
        run = load_run(directory, trust=trust)
        return request_of(
            run,
            fit,
            tokens=query.tokens,
            constraints=query.constraints,
            inventory=sizes,
            risk=query.risk,
        )
    return ProposalRequest.of(
        fit,
        constraints=query.constraints,
        inventory=sizes,
        tokens=query.tokens,
        risk=query.risk,
        collapsed=collapsed_trials(directory),
    )


def known_inventory(
    directory: Path, asked: Path | None, domains: Sequence[str], trust: bool
) -> dict[str, int] | None:
    """Return the tokens of each domain that are asked for, or a run's, or those of a corpus."""
    path = directory / "corpus"
    corpus = Corpus.open(path, verify=False) if path.exists() else None
    if asked is not None:
        rates = None if corpus is None else tokens_per_byte(corpus)
        return read_inventory(asked, domains, tokens_per_byte=rates)
    if not (directory / "config.yaml").exists():
        return None if corpus is None else corpus.inventory
    run = load_run(directory, trust=trust)
    known = stated_tokens(run.config.corpus.domains) if corpus is None else run.inventory
    if known is None:
        raise RunError(
            f"{path}: missing, so the tokens of the domains are unknown; give --inventory FILE"
        )
    return known
