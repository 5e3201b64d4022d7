"""All that can be told of an experiment before any work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixopt.errors import ConfigError, InfeasibleError, MixoptError
from mixopt.fitting import OFTEN
from mixopt.mixture import Mixture
from mixopt.pipeline.cost_estimate import (
    VALIDATION,
    Costs,
    KnownSizes,
    ScoringCost,
    known_sizes,
    measured_speed,
    proxy_parameters,
    scoring_cost,
    training_parts,
    written_bytes,
)
from mixopt.pipeline.trial_start import check_start
from mixopt.system import load_plugin

if TYPE_CHECKING:
    from mixopt.config import Config
    from mixopt.constraints import Constraints
    from mixopt.run_directory import Run
    from mixopt.trials import Proxy


def check_token_unit(config: Config) -> None:
    """Check for a tokenizer to tell the bytes of tokens, where the objective needs them."""
    sources = {**config.corpus.sources, **config.evaluation}
    of_tokens = [name for name, source in sources.items() if source.is_tokens]
    if not of_tokens or config.objective.unit != "bits_per_byte":
        return
    from mixopt.corpus import known_tokenizer

    name = config.corpus.tokenizer
    if known_tokenizer(name) is None:
        raise ConfigError(
            f"objective.unit: bits_per_byte needs the bytes of each token, and the tokenizer"
            f" {name!r} of {of_tokens[0]!r} is not here: set objective.unit: nats_per_token, or"
            " corpus.tokenizer to a folder with its tokenizer.json"
        )


_SHOWN = 5  # domains that a line names


@dataclass(frozen=True)
class Shortage:
    """A domain of whose sample a trial may read too much."""

    domain: str
    weight: float
    epochs: float
    full_epochs: float | None
    needed: int

    @property
    def text(self) -> str:
        """The domain in short: `web 7.3 times at a weight of 1 (12.0M tokens needed)`."""
        from mixopt.system import short_count

        return (
            f"{self.domain} {self.epochs:.1f} times at a weight of {self.weight:.2g}"
            f" ({short_count(self.needed)} tokens needed)"
        )


def shortages(
    config: Config,
    sample: dict[str, int],
    inventory: dict[str, int],
    most: Mixture | dict[str, float],
) -> list[Shortage]:
    """Return the domains whose sample is too small, the most repeated first."""
    corpus = config.corpus
    here = [n for n in sample if corpus.prepared is not None or corpus.domains[n].has_text]
    found = [one for name in here for one in _short(config, name, sample, inventory, most[name])]
    return sorted(found, key=lambda one: -one.epochs)


def say_shortages(found: list[Shortage]) -> str | None:
    """Name the samples that are too small in one line; None if there are none."""
    if not found:
        return None
    named = ", ".join(one.text for one in found[:_SHOWN])
    more = f", and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return (
        f"the prepared text is small for proxy.tokens: a trial may repeat {named}{more}, more often"
        " than the full run; prepare more text, lower proxy.tokens, or cap these domains in"
        " constraints.bounds"
    )


def run_shortages(run: Run) -> list[Shortage]:
    """Return the domains of a prepared run whose sample is too small."""
    most = largest_weights(run.config, run.natural, run.constraints)
    return shortages(run.config, run.corpus.inventory, run.inventory, most)


def largest_weights(config: Config, natural: Mixture, constraints: Constraints) -> dict[str, float]:
    """Return the largest weight of each domain that a design may have."""
    from mixopt.trials import anneal_mixtures, design_constraints

    design = config.design
    if design.anneals is not None and len(design.planned_rounds) == 1:
        tried = [mixture for _, mixture in anneal_mixtures(design.anneals, natural)]
        return {name: max(mixture[name] for mixture in tried) for name in natural}
    allowed = design_constraints(design, natural, constraints)
    return dict(zip(allowed.domains, allowed.upper_D.tolist(), strict=True))


def _short(
    config: Config, name: str, sample: dict[str, int], inventory: dict[str, int], weight: float
) -> Iterator[Shortage]:
    tokens, target = config.proxy.tokens, config.propose.target_tokens
    epochs = weight * tokens / sample[name]
    full = None if target is None else weight * target / inventory[name]
    if config.proxy.simulate_epochs and target is not None:
        needed = min(inventory[name] * min(tokens / target, 1.0), weight * tokens)
        too_often = needed > 1.01 * sample[name]  # rounding to whole steps moves it by less
    else:
        needed = weight * tokens / max(full or 0.0, 1.0)
        too_often = epochs > OFTEN and needed > 1.01 * sample[name]
    if too_often:
        yield Shortage(name, weight, epochs, full, round(needed))


@dataclass(frozen=True)
class PreCheck:
    """The answer of `mixopt check`."""

    config: Config
    problems: list[MixoptError]
    warnings: list[str]
    sizes: KnownSizes
    costs: Costs
    devices: list[str] = field(default_factory=list)
    scoring: ScoringCost | None = None

    @property
    def natural(self) -> Mixture | None:
        """Shares of the whole domains, where their sizes are known."""
        return None if self.sizes.inventory is None else Mixture.natural(self.sizes.inventory)

    @property
    def without_validation(self) -> PreCheck:
        """The same check of a run that ends before its validation."""
        parts = tuple(one for one in self.costs.parts if one.name != VALIDATION)
        written = {k: size for k, size in self.costs.written.items() if k != VALIDATION}
        return replace(self, costs=replace(self.costs, parts=parts, written=written))

    def refuse(self) -> None:
        """Raise the first problem, if there is one, with the count of the others."""
        if not self.problems:
            return
        first, more = self.problems[0], len(self.problems) - 1
        if not more:
            raise first
        raise type(first)(f"{first} (and {more} more; mixopt check lists all)") from first


def check_experiment(
    config: Config, *, out: Path | None = None, source: str = "", probe: bool = False
) -> PreCheck:
    """Check an experiment with no more than the first document of each domain; write nothing."""
    problems: list[MixoptError] = []
    sizes = _sizes(config, out, source, problems)
    proxy = _proxy(config, problems)
    for check in (_sources, _units, _objective, _guardrails):
        problems += check(config)
    problems += _limits_and_design(config, sizes)
    scoring = _scoring(config, problems)
    warnings = _warnings(config, sizes)
    names = _devices(config, problems, warnings)
    costs = _costs(config, sizes, proxy, len(names), probe=probe and not problems)
    return PreCheck(config, problems, warnings, sizes, costs, names, scoring)


def fold_fault(config: Config, mixtures: int) -> str | None:
    """Say what is wrong where a first round has fewer mixtures than there are folds."""
    folds = config.fit.folds
    if mixtures >= folds:
        return None
    field_name = "the first of design.rounds" if config.design.rounds else "design.trials"
    return (
        f"fit.folds: {folds} folds need at least {folds} different mixtures, and the design has"
        f" {mixtures}; raise {field_name}, or lower fit.folds"
    )


def _tried(check: Callable[[], object]) -> Iterator[MixoptError]:
    """Yield the error that a check raises, if any."""
    try:
        check()
    except MixoptError as error:
        yield error


def _sizes(
    config: Config, out: Path | None, source: str, problems: list[MixoptError]
) -> KnownSizes:
    try:
        return known_sizes(config, out, source)
    except MixoptError as error:
        problems.append(error)
        return known_sizes(config, None, source)


def _scoring(config: Config, problems: list[MixoptError]) -> ScoringCost | None:
    try:
        return scoring_cost(config)
    except MixoptError as error:
        problems.append(error)
        return None


def _proxy(config: Config, problems: list[MixoptError]) -> Proxy | None:
    """Build the proxy, which checks its options; None if it fails."""
    from mixopt.trials import make_proxy

    name, proxy = config.proxy.name, None
    try:
        proxy = make_proxy(name, config.proxy.all_options)
        able = getattr(load_plugin("proxy", name), "simulates_epochs", False)
        if config.proxy.simulate_epochs and not able:
            raise ConfigError(
                f"proxy.simulate_epochs: proxy {name!r} cannot simulate epochs; leave it out"
            )
        if config.proxy.start is not None:
            check_start(config, proxy)
        check_here = getattr(proxy, "check_here", None)
        if callable(check_here) and config.sweep.executor == "local":
            check_here()
    except MixoptError as error:
        problems.append(error)
        return None
    return proxy


def _sources(config: Config) -> Iterator[MixoptError]:
    """Find missing files and columns of domains, and a missing prepared corpus."""
    from mixopt.corpus import check_prepared, check_text, check_token_files

    if config.corpus.prepared is not None:
        yield from _tried(partial(check_prepared, config.corpus.prepared))
        return
    for name, source in {**config.corpus.sources, **config.evaluation}.items():
        check = check_token_files if source.is_tokens else check_text
        yield from _tried(partial(check, name, source.under(config.corpus.root)))


def _units(config: Config) -> Iterator[MixoptError]:
    yield from _tried(partial(check_token_unit, config))


def _objective(config: Config) -> Iterator[MixoptError]:
    from mixopt.objective import Objective

    yield from _tried(lambda: Objective.from_config(config.aim, config.losses))


def _guardrails(config: Config) -> Iterator[MixoptError]:
    from mixopt.constraints import Constraints

    only = type(config.constraints)(guardrails=config.constraints.guardrails)
    guardrails = Constraints.from_config(only, dict.fromkeys(config.corpus.domains, 1)).guardrails
    if guardrails is not None:
        yield from _tried(lambda: guardrails.margins(config.losses))


def _limits_and_design(config: Config, sizes: KnownSizes) -> Iterator[MixoptError]:
    from mixopt.trials import design_constraints, make_design

    known, natural = _as_far_as_known(config, sizes)
    constraints: Constraints | None = None
    try:
        constraints = _constraints(known, sizes)
        design_constraints(known.design, natural, constraints)
        if sizes.inventory is not None:
            trials = make_design(known.design, natural, constraints, config.seed)
            mixtures = len({trial.mixture for trial in trials})
        else:
            mixtures = known.design.first_round + len(known.design.anchors)
    except InfeasibleError as error:
        if sizes.is_exact or sizes.inventory is None:
            yield error
        return
    except MixoptError as error:
        yield error
        return
    fault = None if config.design.anneals else fold_fault(config, mixtures)
    if fault is not None:
        yield ConfigError(fault)


def _as_far_as_known(config: Config, sizes: KnownSizes) -> tuple[Config, Mixture]:
    """Return the experiment without the constraints that need unknown sizes."""
    domains = tuple(config.corpus.domains)
    if sizes.inventory is not None:
        return config, Mixture.natural(sizes.inventory)
    limits: dict[str, Any] = {"max_epochs": None, "max_epochs_of": None}
    radius = config.constraints.radius
    if radius is not None and radius.reference == "natural":
        limits["radius"] = None
    known = {
        "constraints": config.constraints.model_copy(update=limits),
        "design": config.design.model_copy(update={"max_usage": None}),
    }
    return config.model_copy(update=known), Mixture.uniform(domains)


def _constraints(config: Config, sizes: KnownSizes) -> Constraints:
    from mixopt.constraints import Constraints

    inventory = sizes.inventory or dict.fromkeys(config.corpus.domains, 1)
    return Constraints.from_config(
        config.constraints, inventory, target_tokens=config.propose.target_tokens
    )


def _devices(config: Config, problems: list[MixoptError], warnings: list[str]) -> list[str]:
    """Name the device of each worker; find a requested GPU that is not here."""
    from mixopt.sweeps import worker_devices

    asked, device = config.sweep, config.proxy.device
    if asked.executor != "local":
        return [f"executor {asked.executor}"] * (asked.workers or 1)
    try:
        devices = worker_devices(device, asked.workers, asked.gpus, warnings.append)
    except ConfigError as error:
        problems.append(error)
        return ["GPU"] * (asked.workers or 1)
    if device.startswith("cuda") and not all(one.gpus for one in devices):
        problems.append(
            ConfigError(f"proxy.device: {device}: no GPU is visible here; use auto or cpu")
        )
    return [str(one) for one in devices]


def _costs(
    config: Config, sizes: KnownSizes, proxy: Proxy | None, workers: int, *, probe: bool
) -> Costs:
    from mixopt.trials import Training

    parts = training_parts(config)
    parameters = None if proxy is None else proxy_parameters(proxy, sizes.vocab_size)
    rate: float | None = None
    if probe and proxy is not None and getattr(proxy, "is_probed", True):
        asked = config.proxy
        training = Training(asked.tokens, eval_tokens=asked.eval_tokens, device=asked.device)
        speed = measured_speed(asked.name, asked.all_options, sizes.vocab_size, training)
        rate, parameters = speed.tokens_per_second, parameters or speed.parameters
    written = written_bytes(config, parts, sizes.sample, sizes.vocab_size)
    return Costs(parts, parameters, rate, workers, written)


def _warnings(config: Config, sizes: KnownSizes) -> list[str]:
    found = []
    if sizes.inventory is None and config.propose.target_tokens is not None:
        found.append(
            "the sizes of the domains are not given, so shares and epochs refer to the prepared"
            " text: run mixopt count CONFIG --out inventory.yaml, and set corpus.inventory"
        )
    if sizes.basis == "estimated":
        found.append(
            "sizes in bytes are converted at 4 bytes per token until the text is prepared;"
            " constraints that depend on them are checked then"
        )
    if sizes.inventory is not None and sizes.sample is not None:
        found += _short_samples(config, sizes.sample, sizes.inventory)
    return found


def _short_samples(config: Config, sample: dict[str, int], inventory: dict[str, int]) -> list[str]:
    try:
        limits = _constraints(config, KnownSizes(inventory, sample, "stated", 0))
        most = largest_weights(config, Mixture.natural(inventory), limits)
    except MixoptError:
        return []  # a problem already
    line = say_shortages(shortages(config, sample, inventory, most))
    return [] if line is None else [line]
