"""The contract of an estimator: a state machine that changes the mixture during training.

It has no training loop and no torch. The loop asks for a plan, trains on it for so many steps, says
what was seen, and asks again:

    estimator.start(setting)
    while training:
        plan = estimator.plan()
        ...  # train plan.steps steps on plan.weights_D
        estimator.observe(observation)  # once or more during the plan, and always at its end

What it is told are sums and counts over all ranks, of what was really consumed: a domain that was
not seen has count 0, never loss 0. An estimator is a function of its settings and of what it was
told, so that a state that is loaded leads to the same plans, bit for bit. Asking for a plan
changes nothing: asked in the middle of one, it says what is left of it.

A loop may be some steps behind, where batches were fetched ahead: the tokens that the estimator is
told of say what was trained on. A plan's steps count from the last that it was told of; those of a
plan that ends in an evaluation count from where it holds, so that it is evaluated after as many
steps on its weights.

Shapes: D domains, M evaluation domains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np

from mixopt.errors import EstimatorError, did_you_mean
from mixopt.sampling import MixtureSampler
from mixopt.system import Array, build_plugin

Need = Literal["training_loss", "held_out"]
Lengths = float | Mapping[str, float]
Bounds = Mapping[str, tuple[float, float]]
Evaluate = Callable[[], Mapping[str, tuple[float, int]]]


@dataclass(frozen=True)
class Setting:
    """What an estimator knows of the run before it starts.

    Attributes:
        domains: Names of the training domains, in order.
        steps: Optimiser steps of the whole run, >= 1.
        tokens_per_step: Tokens of one step over all ranks, >= 1.
        reference_D: The mixture that the run starts from and may return to; adds up to 1.
        natural_D: Shares of the domains in the corpus; adds up to 1.
        evaluations: Names of the evaluation domains, in order; of a training domain's held-out text
            it is the domain's name.
        objective_M: Weight of each evaluation domain's loss in what is minimised; adds up to 1.
        lower_D: Least share of each domain.
        upper_D: Most share of each domain.
        seed: Of whatever the estimator draws.
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
        if not self.domains or len(set(self.domains)) != len(self.domains):
            raise EstimatorError(f"domains {list(self.domains)}: give each a name of its own")
        for name in ("steps", "tokens_per_step"):
            if getattr(self, name) < 1:
                raise EstimatorError(f"{name}: {getattr(self, name)}; at least 1")
        domains = len(self.domains)
        _check_shares("reference_D", self.reference_D, domains)
        _check_shares("natural_D", self.natural_D, domains)
        _check_shares("objective_M", self.objective_M, len(self.evaluations))
        lower_D, upper_D = self.lower_D, self.upper_D
        for name, bounds_D in (("lower_D", lower_D), ("upper_D", upper_D)):
            _check_shape(name, bounds_D, domains)
        if not (lower_D.sum() <= 1 + 1e-9 and upper_D.sum() >= 1 - 1e-9):
            raise EstimatorError(
                f"no mixture is within the bounds: the leasts add up to {lower_D.sum():.4g},"
                f" the mosts to {upper_D.sum():.4g}"
            )
        for name, share, low, high in zip(
            self.domains, self.reference_D, lower_D, upper_D, strict=True
        ):
            if not low - 1e-9 <= share <= high + 1e-9:
                raise EstimatorError(
                    f"domain {name!r}: the reference mixture has {share:.4g}, outside its bounds"
                    f" {low:.4g} to {high:.4g}"
                )


@dataclass(frozen=True)
class Plan:
    """What to train on next.

    Attributes:
        weights_D: Share of the tokens of each domain; adds up to 1.
        steps: For how many optimiser steps, >= 0; the next plan is asked for after them. 0 asks
            for held-out losses before anything else.
        tag: Why, in a few words, for the log: `sweep 1 of 4: web`.
        held_out: Whether held-out losses are wanted after the last step.
        perturbs: Whether the weights are there to learn from and not to train on, as in a sweep.
            The loop counts what that costs, and does not stay with them where it freezes.
    """

    weights_D: Array
    steps: int
    tag: str
    held_out: bool = False
    perturbs: bool = False

    def __post_init__(self) -> None:
        _check_shares(f"plan {self.tag!r}: weights_D", self.weights_D, len(self.weights_D))
        if self.steps < 0 or (self.steps == 0 and not self.held_out):
            raise EstimatorError(f"plan {self.tag!r}: {self.steps} steps; at least 1")


@dataclass(frozen=True)
class HeldOut:
    """Held-out losses of the model as it is.

    Attributes:
        losses_M: Mean loss of each evaluation domain, nats per token.
        tokens: Tokens that were evaluated, over all ranks.
    """

    losses_M: Array
    tokens: int = 0


@dataclass(frozen=True)
class Observation:
    """What happened since the last observation, over all ranks.

    Attributes:
        step: Optimiser steps done since the start of the run.
        tokens_D: Tokens of each domain that were trained on (realised, not nominal).
        loss_sum_D: Sum of the training losses of each domain's tokens, nats.
        loss_count_D: Tokens in that sum; 0 for a domain that was not seen.
        held_out: Held-out losses after the last step, where they were asked for or are at hand.
        learning_rate: In force at the last step; 0 where unknown.
    """

    step: int
    tokens_D: Array
    loss_sum_D: Array
    loss_count_D: Array
    held_out: HeldOut | None = None
    learning_rate: float = 0.0


class Estimator(Protocol):
    """Changes the mixture while training runs; options are keyword arguments of its constructor."""

    @property
    def needs(self) -> frozenset[Need]:
        """What the loop must be able to tell it beyond the tokens consumed."""
        ...

    def start(self, setting: Setting) -> None:
        """Begin a run.

        Raises:
            EstimatorError: The setting is not one that it can work in.
        """
        ...

    def plan(self) -> Plan:
        """Return what to train on next, or what is left of it; nothing is changed.

        Never more steps than the run has left. After its last step: one more of the same.
        """
        ...

    def observe(self, observation: Observation) -> None:
        """Take in what happened since the last observation.

        Held-out losses that a plan asks for may come with the observation of its last step or in
        one more at the same step; until then the plan is one of 0 steps.

        Raises:
            EstimatorError: It cannot be right, or lacks what is needed; nothing is changed.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the state after `start`, made of what JSON has."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a state, after `start`.

        Raises:
            EstimatorError: The state is of another estimator, other options or other domains.
        """
        ...


def make_estimator(name: str, options: Mapping[str, Any] | None = None) -> Estimator:
    """Build an estimator by name.

    Args:
        name: An entry point's name in `mixopt.estimators`, or `package.module:Name`.
        options: Keyword arguments of its constructor.

    Raises:
        PluginError: There is no such estimator.
        ConfigError: An option that it does not take.
        EstimatorError: A value that an option cannot have.
    """
    estimator: Estimator = build_plugin("estimator", name, options or {})
    return estimator


@dataclass(frozen=True, kw_only=True, eq=False)
class DriverOptions:
    """The run that is driven, and how the driver goes about it.

    Attributes:
        steps: Optimiser steps of the whole run.
        tokens_per_sample: Tokens of a sample, for all domains or by domain.
        accumulation: Global batches of an optimiser step.
        evaluations: Names of the evaluation domains; the domains if not given.
        objective: Weight of each evaluation domain's loss; all alike if not given.
        natural: Share of each domain in the corpus; by default of the sampler's rows.
        bounds: Least and most share of domains; 0 and 1 where not given.
        seed: Of what the estimator draws.
        evaluate: Evaluates held-out text: for each evaluation domain the sum of this rank's
            losses in nats and how many tokens they are of. Called on every rank.
        observe_every: Steps between sums over ranks.
        spike: Rise of losses in nats per token that freezes the mixture; None for any.
        shadow: Log what would be done, and change nothing.
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
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise EstimatorError(f"{name}: {value!r} is not a whole number >= 1")

    def check_needs(self, estimator: Estimator) -> None:
        """Check that the loop gives an estimator what it needs.

        Raises:
            EstimatorError: Something is missing; the message says how to give it.
        """
        name = type(estimator).__name__
        if "held_out" in estimator.needs and self.evaluate is None:
            raise EstimatorError(
                f"{name} needs held-out losses: DriverOptions(evaluate=), which returns"
                " {name: (loss_sum, tokens)} of this rank"
            )
        if unknown := estimator.needs - set(get_args(Need)):
            needs = ", ".join(map(repr, sorted(unknown)))
            raise EstimatorError(f"{name} needs {needs}, which this driver does not provide")

    def setting(self, sampler: MixtureSampler) -> Setting:
        """Return the setting; the reference is the mixture of the sampler's next batch.

        Raises:
            EstimatorError: A domain that the sampler does not have, an evaluation domain that is
                not evaluated, or numbers that cannot be right.
        """
        domains = sampler.domains
        lengths_D = lengths_of(self.tokens_per_sample, domains)
        tokens_D = lengths_D * np.array(list(sampler.sizes.values()), np.float64)
        names = tuple(domains if self.evaluations is None else self.evaluations)
        reference_D = sampler.mixture_at(sampler.batch).array
        mean_length = 1.0 / (reference_D / lengths_D).sum()
        lower_D, upper_D = _bounds(self.bounds, domains)
        tokens = max(round(sampler.batch_size * self.accumulation * mean_length), 1)
        return Setting(
            domains=domains,
            steps=self.steps,
            tokens_per_step=tokens,
            reference_D=reference_D,
            natural_D=_shares("natural", self.natural, domains, tokens_D),
            evaluations=names,
            objective_M=_shares("objective", self.objective, names, np.ones(len(names))),
            lower_D=lower_D,
            upper_D=upper_D,
            seed=self.seed,
        )


def lengths_of(tokens_per_sample: Lengths, domains: Sequence[str]) -> Array:
    """Return the tokens of a sample of each domain, shape (D,)."""
    given = tokens_per_sample
    if not isinstance(given, Mapping):
        given = dict.fromkeys(domains, given)
    _check_names("tokens_per_sample", given, domains)
    lengths_D = np.array([float(given.get(name, 0)) for name in domains])
    for name, length in zip(domains, lengths_D, strict=True):
        if not length > 0:
            what = f"{length:g} is not above 0" if name in given else "is left out"
            raise EstimatorError(f"tokens_per_sample: domain {name!r}: {what}")
    return lengths_D


def _shares(
    field: str, given: Mapping[str, float] | None, names: Sequence[str], default: Array
) -> Array:
    """Return shares of names; those that are left out have none."""
    if given is None:
        shares: Array = default / default.sum()
        return shares
    _check_names(field, given, names)
    values = np.array([float(given.get(name, 0.0)) for name in names])
    if not (np.isfinite(values).all() and (values >= 0).all() and values.sum() > 0):
        raise EstimatorError(f"{field}: {dict(given)}; weights must be >= 0, and at least one > 0")
    return np.asarray(values / values.sum())


def _bounds(bounds: Bounds | None, domains: Sequence[str]) -> tuple[Array, Array]:
    _check_names("bounds", bounds or {}, domains)
    pairs = [(bounds or {}).get(name, (0.0, 1.0)) for name in domains]
    return np.array([float(low) for low, _ in pairs]), np.array([float(high) for _, high in pairs])


def _check_names(field: str, given: Iterable[str], known: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            kind = "an evaluation domain" if field == "objective" else "a domain of the sampler"
            raise EstimatorError(f"{field}: {name!r} is not {kind}{did_you_mean(name, known)}")


def _check_shape(name: str, array: Array, size: int) -> None:
    if np.shape(array) != (size,):
        raise EstimatorError(f"{name}: shape {np.shape(array)}; it takes ({size},)")


def _check_shares(name: str, shares: Array, size: int) -> None:
    _check_shape(name, shares, size)
    if not (np.isfinite(shares).all() and (shares >= 0).all() and abs(shares.sum() - 1) < 1e-6):
        raise EstimatorError(f"{name}: {np.asarray(shares).tolist()} is not a mixture")
