"""The estimator interface: a state machine that changes the mixture during training.

An estimator has no training loop and no torch. The loop asks for a plan, trains on it, reports its
observations, and asks again:

    estimator.start(setting)
    while training:
        plan = estimator.plan()
        ...  # train plan.steps steps on plan.weights_D
        estimator.observe(observation)  # once or more during the plan, and always at its end

Observations are sums and counts over all ranks of consumed tokens: a domain without tokens has
count 0, never loss 0. An estimator is a function of its setting and its observations, so that a
loaded state leads to the same plans, bit for bit. `plan` has no side effects: in the middle of a
plan it returns the rest of it.

With prefetched batches new weights take effect some steps later: the observed tokens tell what was
trained on. A plan's steps count from the last observation; those of a plan that ends in an
evaluation count from where its weights take effect, so that it is evaluated after that many steps
on its weights.

Shapes: D domains, M evaluation domains.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np

from mixopt.errors import EstimatorError, did_you_mean
from mixopt.sampling import MixtureSampler, at_least
from mixopt.system import Array, build_plugin

Need = Literal["training_loss", "held_out"]
Lengths = float | Mapping[str, float]
Bounds = Mapping[str, tuple[float, float]]
Evaluate = Callable[[], Mapping[str, tuple[float, int]]]


@dataclass(frozen=True)
class Setting:
    """The run, as known to an estimator before it starts.

    Attributes:
        domains: Names of the training domains, in order.
        steps: Optimiser steps of the whole run, >= 1.
        tokens_per_step: Tokens of one step over all ranks, >= 1.
        reference_D: The mixture that the run starts from and may return to; adds up to 1.
        natural_D: Shares of the domains in the corpus; adds up to 1.
        evaluations: Names of the evaluation domains, in order; held-out text of a training domain
            has the domain's name.
        objective_M: Weight of each evaluation domain's loss in the objective; adds up to 1.
        lower_D: Minimum share of each domain.
        upper_D: Maximum share of each domain.
        seed: Seed of the estimator's random draws.
    """

    domains: tuple[str, ...]
    steps: int
    tokens_per_step: int
    reference_D: Array
    natural_D: Array
    evaluations: tuple[str, ...]
    objective_M: Array
    lower_D: Array
    upper_D: Array
    seed: int = 0

    def __post_init__(self) -> None:
        lower_D = self.lower_D
        upper_D = self.upper_D
        _check_mixture("reference_D", self.reference_D)
        if not (lower_D.sum() <= 1 + 1e-9 and upper_D.sum() >= 1 - 1e-9):
            raise EstimatorError(
                f"no mixture is within the bounds: the minimums add up to {lower_D.sum():.4g},"
                f" the maximums to {upper_D.sum():.4g}"
            )
        bounded = zip(self.domains, self.reference_D, lower_D, upper_D, strict=True)
        for name, share, low, high in bounded:
            if not low - 1e-9 <= share <= high + 1e-9:
                raise EstimatorError(
                    f"domain {name!r}: the reference mixture has {share:.4g}, outside its bounds"
                    f" {low:.4g} to {high:.4g}"
                )


@dataclass(frozen=True)
class Plan:
    """The mixture of the next steps.

    Attributes:
        weights_D: Share of tokens of each domain; adds up to 1.
        steps: Number of optimiser steps, >= 0, until the next plan. 0 requests held-out losses
            first.
        tag: Reason in a few words, for the log: `sweep 1 of 4: web`.
        held_out: Whether held-out losses are requested after the last step.
        perturbs: Whether the weights only serve measurement, as in a sweep. The loop counts their
            cost, and never freezes at them.
    """

    weights_D: Array
    steps: int
    tag: str
    held_out: bool = False
    perturbs: bool = False

    def __post_init__(self) -> None:
        _check_mixture(f"plan {self.tag!r}: weights_D", self.weights_D)
        if self.steps < 0 or (self.steps == 0 and not self.held_out):
            raise EstimatorError(f"plan {self.tag!r}: {self.steps} steps; at least 1")


@dataclass(frozen=True)
class HeldOut:
    """Held-out losses of the present model.

    Attributes:
        losses_M: Mean loss of each evaluation domain, nats per token.
        tokens: Evaluated tokens, over all ranks.
    """

    losses_M: Array
    tokens: int = 0


@dataclass(frozen=True)
class Observation:
    """Sums since the last observation, over all ranks.

    Attributes:
        step: Optimiser steps since the start of the run.
        tokens_D: Consumed tokens of each domain.
        loss_sum_D: Sum of the training losses of each domain's tokens, nats.
        loss_count_D: Number of tokens in that sum; 0 for a domain without tokens.
        held_out: Held-out losses after the last step, if requested or available.
        learning_rate: Learning rate of the last step; 0 if unknown.
    """

    step: int
    tokens_D: Array
    loss_sum_D: Array
    loss_count_D: Array
    held_out: HeldOut | None = None
    learning_rate: float = 0.0


class Estimator(Protocol):
    """Changes the mixture during training; options are keyword arguments of its constructor."""

    @property
    def needs(self) -> frozenset[Need]:
        """Observations that the loop must provide beyond consumed tokens."""
        ...

    def start(self, setting: Setting) -> None:
        """Begin a run.

        Raises:
            EstimatorError: It does not support this setting.
        """
        ...

    def plan(self) -> Plan:
        """Return the next plan, or the rest of the present one; no side effects.

        A plan has at most the run's remaining steps. After the last step: one more of the same.
        """
        ...

    def observe(self, observation: Observation) -> None:
        """Add an observation since the last one.

        Requested held-out losses may come with the observation of a plan's last step, or in one
        more at the same step; until then the plan has 0 steps.

        Raises:
            EstimatorError: The observation is invalid or incomplete; nothing is changed.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the state after `start` as JSON values."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a state, after `start`.

        Raises:
            EstimatorError: The state has another estimator, other options or other domains.
        """
        ...


def make_estimator(name: str, options: Mapping[str, Any] | None = None) -> Estimator:
    """Build an estimator by name.

    Args:
        name: An entry point's name in `mixopt.estimators`, or `package.module:Name`.
        options: Keyword arguments of its constructor.

    Raises:
        PluginError: There is no such estimator.
        ConfigError: An unknown option.
        EstimatorError: An invalid value of an option.
    """
    estimator: Estimator = build_plugin("estimator", name, options or {})
    return estimator


@dataclass(frozen=True, kw_only=True, eq=False)
class DriverOptions:
    """The run, and settings of the driver.

    Attributes:
        steps: Optimiser steps of the whole run.
        tokens_per_sample: Tokens of a sample, for all domains or by domain.
        accumulation: Global batches in an optimiser step.
        evaluations: Names of the evaluation domains; None: the domains.
        objective: Weight of each evaluation domain's loss; None: equal weights.
        natural: Share of each domain in the corpus; None: of the sampler's rows.
        bounds: Minimum and maximum share by domain; 0 and 1 if not given.
        seed: Seed of the estimator's random draws.
        evaluate: Evaluates held-out text: for each evaluation domain, the sum of this rank's losses
            in nats, and the number of tokens. Called on every rank.
        observe_every: Steps between sums over ranks.
        spike: Rise of losses in nats per token that freezes the mixture; None: never.
        shadow: Log the changes without applying them.
        log: The mixture log, JSON lines, written by rank 0.
    """

    steps: int
    tokens_per_sample: Lengths
    accumulation: int = 1
    evaluations: Sequence[str] | None = None
    objective: Mapping[str, float] | None = None
    natural: Mapping[str, float] | None = None
    bounds: Bounds | None = None
    seed: int = 0
    evaluate: Evaluate | None = None
    observe_every: int = 10
    spike: float | None = 1.0
    shadow: bool = False
    log: Path | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "accumulation", "observe_every"):
            object.__setattr__(self, name, at_least(1, name, getattr(self, name)))

    def check_needs(self, estimator: Estimator) -> None:
        """Check that the loop provides what an estimator needs.

        Raises:
            EstimatorError: Something is missing; the message says how to provide it.
        """
        name = type(estimator).__name__
        if "held_out" in estimator.needs and self.evaluate is None:
            raise EstimatorError(
                f"{name} needs held-out losses: DriverOptions(evaluate=), which returns"
                " {name: (loss_sum, tokens)} of this rank"
            )
        for need in sorted(estimator.needs - set(get_args(Need))):
            raise EstimatorError(f"{name} needs {need!r}, which this driver does not provide")

    def setting(self, sampler: MixtureSampler) -> Setting:
        """Return the setting, with the mixture of the sampler's next batch as reference.

        Raises:
            EstimatorError: An unknown domain, an evaluation domain that is not evaluated, or
                invalid numbers.
        """
        domains = sampler.domains
        lengths_D = lengths_of(self.tokens_per_sample, domains)
        tokens_D = lengths_D * list(sampler.sizes.values())
        natural = self.natural or dict(zip(domains, tokens_D, strict=True))
        names = tuple(domains if self.evaluations is None else self.evaluations)
        objective = self.objective or dict.fromkeys(names, 1.0)
        bounds = self.bounds or {}
        _check_names("bounds", bounds, domains)
        lower_D, upper_D = np.array([bounds.get(name, (0, 1)) for name in domains], float).T
        reference_D = sampler.mixture_at(sampler.batch).array
        mean_length = 1.0 / (reference_D / lengths_D).sum()
        step_samples = sampler.batch_size * self.accumulation
        return Setting(
            domains=domains,
            steps=self.steps,
            tokens_per_step=max(round(step_samples * mean_length), 1),
            reference_D=reference_D,
            natural_D=_shares("natural", natural, domains),
            evaluations=names,
            objective_M=_shares("objective", objective, names),
            lower_D=lower_D,
            upper_D=upper_D,
            seed=self.seed,
        )


def lengths_of(tokens_per_sample: Lengths, domains: Sequence[str]) -> Array:
    """Return the tokens of a sample of each domain, shape (D,)."""
    lengths = tokens_per_sample
    if not isinstance(lengths, Mapping):
        lengths = dict.fromkeys(domains, lengths)
    _check_names("tokens_per_sample", lengths, domains)
    lengths_D = np.array([float(lengths.get(name, 0)) for name in domains])
    for name, length in zip(domains, lengths_D, strict=True):
        if not length > 0:
            fault = f"{length:g} is not above 0" if name in lengths else "is left out"
            raise EstimatorError(f"tokens_per_sample: domain {name!r}: {fault}")
    return lengths_D


def _shares(field: str, weights: Mapping[str, float], names: Sequence[str]) -> Array:
    """Return shares of names; missing names have a share of 0."""
    _check_names(field, weights, names)
    values = np.array([float(weights.get(name, 0.0)) for name in names])
    if not (np.isfinite(values).all() and (values >= 0).all() and values.sum() > 0):
        raise EstimatorError(
            f"{field}: {dict(weights)}; weights must be >= 0, and at least one > 0"
        )
    return np.asarray(values / values.sum())


def _check_mixture(name: str, shares: Array) -> None:
    if shares.ndim != 1 or not ((shares >= 0).all() and abs(shares.sum() - 1) < 1e-6):
        raise EstimatorError(f"{name}: {shares.tolist()} is not a mixture")


def _check_names(field: str, names: Iterable[str], valid: Sequence[str]) -> None:
    for name in names:
        if name not in valid:
            kind = "a domain of the sampler"
            if field == "objective":
                kind = "an evaluation domain"
            raise EstimatorError(f"{field}: {name!r} is not {kind}{did_you_mean(name, valid)}")
