"""Run an estimator in any training loop: it sees losses by domain and changes the mixture.

    driver = Driver(estimator, loader, DriverOptions(steps=1000, tokens_per_sample=512))
    driver.start()
    for batch in loader:
        ...
        driver.record(losses, batch["domain"])  # of each token, or the mean of each sequence
        ...
        driver.step(learning_rate=rate)  # once an optimiser step, on every rank

Losses are added up on the device as whole numbers and summed over ranks while training continues:
the sum is asked for every `observe_every` steps and at the end of a plan, and waited for `lead`
steps later. The estimator runs on rank 0; what it decides goes to all ranks, with the batch from
which it holds. A plan made of what was seen up to step s holds from step s + 1 + lead; where
worker processes fetch ahead, as many steps later as they are ahead. After an evaluation, which
holds all ranks up anyway, nothing is in hand to wait for, and it holds without `lead`.

The mixture freezes, and training continues, where losses are not finite or jump up, a held-out loss
is not finite, the estimator raises, or a plan cannot be: outside its bounds, or beyond what a
domain may be drawn. Where it freezes in a perturbation, it goes back to the weights before it.

Shapes: B sequences, T tokens, D domains.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from mixopt.errors import EstimatorError
from mixopt.loading import MixtureLoader
from mixopt.online.contract import Estimator, Setting
from mixopt.online.decision import Decisions
from mixopt.online.loss_sums import from_first
from mixopt.online.run_setting import DriverOptions
from mixopt.online.standing_plan import Cost
from mixopt.online.stream_steps import StreamSteps
from mixopt.sampling import MixtureSampler, check_ranks
from mixopt.system import StateFields

FORMAT = "mixopt-driver/1"


class Driver:
    """One on every rank; all of them call the same methods at the same steps."""

    def __init__(
        self,
        estimator: Estimator,
        mixture: MixtureLoader | MixtureSampler,
        options: DriverOptions,
    ) -> None:
        """Join an estimator and a mixture.

        Args:
            estimator: Changes the mixture; made on every rank, run on rank 0.
            mixture: Where the batches come from. Its next batch's mixture is the reference.
            options: The run, what its loop gives, and how the driver goes about it.

        Raises:
            EstimatorError: The estimator needs what the loop does not give, cannot work in this
                setting, or a name or number cannot be right.
        """
        options.check_needs(estimator)
        self._gives = frozenset(options.gives)
        self._stream = StreamSteps(mixture, options.accumulation, options.tokens_per_sample)
        setting = options.setting(self._stream.sampler)
        self._decisions = Decisions(estimator, setting, self._stream, options)

    @property
    def setting(self) -> Setting:
        """What the estimator knows of the run."""
        return self._decisions.setting

    @property
    def mixture(self) -> MixtureLoader | MixtureSampler:
        """Where the batches come from."""
        return self._stream.mixture

    @property
    def accumulation(self) -> int:
        """Global batches of an optimiser step."""
        return self._stream.accumulation

    @property
    def steps_done(self) -> int:
        """Optimiser steps since the start of the run."""
        return self._decisions.step

    @property
    def weights(self) -> dict[str, float]:
        """What was decided last, by domain; it may hold from a later batch on."""
        return self._decisions.plan.named(self.setting)

    @property
    def frozen(self) -> str | None:
        """Why the mixture is frozen; None where it is not."""
        return self._decisions.frozen

    @property
    def cost(self) -> Cost:
        """What was spent on evaluation and perturbation since the start of the run."""
        return self._decisions.meter.cost

    def start(self) -> None:
        """Ask for the first plan, so that it holds from the first batch.

        Call it before the loop asks for a batch, and after states were loaded: it continues where
        they are. Left out, the first plan is asked for after the first step.

        Raises:
            EstimatorError: The loader has handed out batches.
        """
        self._decisions.start()

    def record(
        self,
        losses: torch.Tensor,
        domain: torch.Tensor,
        mask: torch.Tensor | None = None,
        *,
        reference_losses: torch.Tensor | None = None,
    ) -> None:
        """Add the training losses of a batch of this rank; they stay on their device.

        Args:
            losses: Of each token, shape (B, T), or the mean of each sequence, shape (B,); nats.
            domain: Domain number of each sequence, shape (B,): the batch's `domain`.
            mask: Which tokens count, shape (B, T); none, where a loop skips a step.
            reference_losses: Of a reference model, in the shape of `losses`.

        Raises:
            EstimatorError: Shapes that do not fit, or no reference losses though the loop is
                said to give them.
        """
        if self.frozen is not None:
            return
        if reference_losses is None and "excess_loss" in self._gives:
            raise EstimatorError(
                "record: reference_losses= is missing, but DriverOptions(gives=) names it"
            )
        self._decisions.seen.record(losses, domain, mask, reference_losses)

    def record_alignment(self, values_D: Any) -> None:
        """Add the inner product of each domain's gradient with the objective's.

        Args:
            values_D: The same on every rank (mixopt.online.loss_sums), shape (D,).

        Raises:
            EstimatorError: Another shape.
        """
        if self.frozen is None:
            self._decisions.seen.add_alignment(values_D)

    def step(self, *, learning_rate: float = 0.0) -> None:
        """Note an optimiser step; on every rank.

        Args:
            learning_rate: That of the step.

        Raises:
            EstimatorError: The loop does not do what it was said to: another accumulation, no
                losses recorded, or an evaluation domain without held-out text.
        """
        self._decisions.after_step(float(learning_rate))

    def thaw(self) -> None:
        """Let the estimator resume after a freeze, between two steps; on every rank.

        What was seen meanwhile is lost to it, but for the tokens consumed.
        """
        self._decisions.thaw()

    def state_dict(self) -> dict[str, Any]:
        """Return the state: small, the same on every rank; every rank has to call it.

        Raises:
            SamplerError: Ranks have other orders of samples; the message names the rank.
            EstimatorError: The estimator has no state; on every rank.
        """
        check_ranks(self._stream.sampler)
        return dict(from_first({"format": FORMAT, **self._decisions.state_dict()}))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a state, on any number of ranks; load the loader's state too.

        The estimator maps domains by name. Where they are not those of the state, the reference
        is the sampler's mixture from here on, and the next plan is requested again.

        Raises:
            EstimatorError: The state is of another run or damaged, or the estimator cannot resume
                from it; nothing is changed.
        """
        StateFields(state, "the driver's state", EstimatorError).check_format(FORMAT)
        self._decisions.load_state_dict(state)
