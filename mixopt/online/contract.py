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

A loop may be some steps behind: what is made of all that was seen up to one step holds from a
later one on, and the tokens that the estimator is told of say what was trained on. A plan's steps
count from the last that it was told of; those of a plan that ends in an evaluation count from
where it holds, so that it is evaluated after as many steps on its weights.

Shapes: D domains, M evaluation domains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from mixopt.errors import EstimatorError
from mixopt.system import Array

Need = Literal["training_loss", "held_out", "excess_loss", "alignment"]


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
        inventory_D: Distinct training tokens of each domain, where known.
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
    inventory_D: Array | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Check names, shapes, shares and bounds."""
        if not self.domains or len(set(self.domains)) != len(self.domains):
            raise EstimatorError(f"domains {list(self.domains)}: give each a name of its own")
        for name in ("steps", "tokens_per_step"):
            if getattr(self, name) < 1:
                raise EstimatorError(f"{name}: {getattr(self, name)}; at least 1")
        for name, size in (
            ("reference_D", len(self.domains)),
            ("natural_D", len(self.domains)),
            ("objective_M", len(self.evaluations)),
        ):
            _check_shares(name, getattr(self, name), size)
        for name in ("lower_D", "upper_D", "inventory_D"):
            array = getattr(self, name)
            if array is not None:
                _check_shape(name, array, len(self.domains))
                if name != "inventory_D" and np.isnan(array).any():
                    raise EstimatorError(f"{name}: {np.asarray(array).tolist()} has no number")
        if self.lower_D.sum() > 1 + 1e-9 or self.upper_D.sum() < 1 - 1e-9:
            raise EstimatorError(
                f"no mixture is within the bounds: the leasts add up to {self.lower_D.sum():.4g},"
                f" the mosts to {self.upper_D.sum():.4g}"
            )
        outside_D = (self.reference_D < self.lower_D - 1e-9) | (
            self.reference_D > self.upper_D + 1e-9
        )
        if outside_D.any():
            d = int(np.argmax(outside_D))
            raise EstimatorError(
                f"domain {self.domains[d]!r}: the reference mixture has {self.reference_D[d]:.4g},"
                f" outside its bounds {self.lower_D[d]:.4g} to {self.upper_D[d]:.4g}"
            )

    def tokens_before(self, step: int) -> int:
        """Return the tokens of the steps before a step, counted from 0."""
        return step * self.tokens_per_step


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
        """Check the shares and the length."""
        _check_shares(f"plan {self.tag!r}: weights_D", self.weights_D, len(self.weights_D))
        if self.steps < 0 or (self.steps == 0 and not self.held_out):
            raise EstimatorError(f"plan {self.tag!r}: {self.steps} steps; at least 1")


@dataclass(frozen=True)
class HeldOut:
    """Held-out losses of the model as it is.

    Attributes:
        losses_M: Mean loss of each evaluation domain, nats per token.
        errors_M: Standard error of each, nats per token; 0 where unknown.
        tokens: Tokens that were evaluated, over all ranks.
    """

    losses_M: Array
    errors_M: Array
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
        excess_sum_D: Sum over the same tokens of max(loss - reference model's loss, 0), nats, for
            an estimator that needs `excess_loss`.
        alignment_D: Inner product of each domain's gradient with the objective's over the mean
            norm of the domains' gradients, for one that needs `alignment`.
        learning_rate: In force at the last step; 0 where unknown.
    """

    step: int
    tokens_D: Array
    loss_sum_D: Array
    loss_count_D: Array
    held_out: HeldOut | None = None
    excess_sum_D: Array | None = None
    alignment_D: Array | None = None
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
        """Return the state after `start`, made of what JSON has; domains go by name."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a state, after `start`; domains are mapped by name.

        Raises:
            EstimatorError: The state is of another estimator, other options, or of domains
                between which nothing can be carried over.
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
    from mixopt.system import build_plugin

    estimator: Estimator = build_plugin("estimator", name, options or {})
    return estimator


def _check_shape(name: str, array: Array, size: int) -> None:
    if np.shape(array) != (size,):
        raise EstimatorError(f"{name}: shape {np.shape(array)}; it takes ({size},)")


def _check_shares(name: str, shares: Array, size: int) -> None:
    _check_shape(name, shares, size)
    if not (np.isfinite(shares).all() and (shares >= 0).all() and abs(shares.sum() - 1) < 1e-6):
        raise EstimatorError(f"{name}: {np.asarray(shares).tolist()} is not a mixture")
