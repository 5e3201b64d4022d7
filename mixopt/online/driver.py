"""Run an estimator in any training loop: it sees losses by domain and changes the mixture.

    driver = Driver(estimator, loader, steps=1000, tokens_per_sample=512)
    driver.start()
    for batch in loader:
        ...
        driver.record(losses, batch["domain"])  # of each token, or the mean of each sequence
        ...
        driver.step(learning_rate=rate)  # once an optimiser step, on every rank

Losses are added up on the device as whole numbers and summed over ranks while training goes on:
the sum is asked for every `observe_every` steps and at the end of a plan, and waited for `lead`
steps later. The estimator runs on rank 0; what it decides goes to all ranks, with the batch from
which it holds. A plan made of what was seen up to step s holds from step s + 1 + lead; where
worker processes fetch ahead, as many steps later as they are ahead. After an evaluation, which
holds all ranks up anyway, nothing is in hand to wait for, and it holds without `lead`.

The mixture freezes, and training goes on, where losses are not finite or jump up, a held-out loss
is not finite, the estimator raises, or a plan cannot be: outside its bounds, or beyond what a
domain may be drawn. Where it freezes in a perturbation, it goes back to the weights before it.

Shapes: B sequences, T tokens, D domains.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mixopt.errors import EstimatorError
from mixopt.loading import MixtureLoader
from mixopt.online.contract import Estimator, Need, Setting
from mixopt.online.cost import Cost, Meter
from mixopt.online.decider import Decider
from mixopt.online.decisions import Decisions
from mixopt.online.held_out import Evaluate
from mixopt.online.mixture_log import MixtureLog
from mixopt.online.needs import check_needs
from mixopt.online.reduce import from_first
from mixopt.online.run_setting import Bounds, Lengths, setting_of
from mixopt.online.steering import Steering
from mixopt.online.stream_steps import StreamSteps
from mixopt.online.watch import Watch
from mixopt.sampling import MixtureSampler

FORMAT = "mixopt-driver/1"


class Driver:
    """One on every rank; all of them call the same methods at the same steps."""

    def __init__(
        self,
        estimator: Estimator,
        mixture: MixtureLoader | MixtureSampler,
        *,
        steps: int,
        tokens_per_sample: Lengths,
        evaluations: Sequence[str] | None = None,
        objective: Mapping[str, float] | None = None,
        evaluate: Evaluate | None = None,
        gives: Collection[Need] = (),
        natural: Mapping[str, float] | None = None,
        inventory: Mapping[str, float] | None = None,
        bounds: Bounds | None = None,
        observe_every: int = 10,
        lead: int = 1,
        accumulation: int = 1,
        shadow: bool = False,
        log: Path | None = None,
        spike: float | None = 1.0,
        seed: int = 0,
    ) -> None:
        """Join an estimator and a mixture.

        Args:
            estimator: Changes the mixture; made on every rank, run on rank 0.
            mixture: Where the batches come from. Its next batch's mixture is the reference.
            steps: Optimiser steps of the whole run.
            tokens_per_sample: Tokens of a sample, for all domains or by domain.
            evaluations: Names of the evaluation domains; the domains if not given.
            objective: Weight of each evaluation domain's loss; all alike if not given.
            evaluate: Evaluates held-out text: for each evaluation domain the sum of this rank's
                losses in nats, how many tokens they are of, and optionally the sum of their
                squares. Called on every rank.
            gives: What the loop records besides losses: 'excess_loss', 'alignment'.
            natural: Share of each domain in the corpus; by default of the sampler's rows.
            inventory: Distinct tokens of each domain; by default those of the sampler's rows.
            bounds: Least and most share of domains; 0 and 1 where not given.
            observe_every: Steps between sums over ranks.
            lead: Steps that a sum has until it is waited for.
            accumulation: Global batches of an optimiser step.
            shadow: Log what would be done, and change nothing.
            log: The mixture log, JSON lines, written by rank 0.
            spike: Rise of losses in nats per token that freezes the mixture; None for any.
            seed: Of what the estimator draws.

        Raises:
            EstimatorError: The estimator needs what the loop does not give, cannot work in this
                setting, or a name or number cannot be right.
        """
        check_needs(estimator, gives, evaluates=evaluate is not None)
        self._gives = frozenset(gives)
        self._stream = StreamSteps(
            mixture, _whole(1, "accumulation", accumulation), tokens_per_sample
        )
        setting = setting_of(
            self._stream.sampler,
            steps=_whole(1, "steps", steps),
            step_samples=self._stream.step_samples,
            lengths_D=self._stream.lengths_D,
            evaluations=evaluations,
            objective=objective,
            natural=natural,
            inventory=inventory,
            bounds=bounds,
            seed=seed,
        )
        needs_losses = "training_loss" in estimator.needs
        self._decider = Decider(estimator, setting)
        self._steering = Steering(self._stream, setting, MixtureLog(log), shadow=shadow)
        self._watch = Watch(self._stream, setting, spike=spike, needs_losses=needs_losses)
        self._meter = Meter(setting.tokens_per_step)
        self._decisions = Decisions(
            self._stream,
            self._decider,
            self._steering,
            self._watch,
            self._meter,
            evaluate=evaluate,
            observe_every=_whole(1, "observe_every", observe_every),
            lead=_whole(0, "lead", lead),
        )
        self._started = False

    @property
    def setting(self) -> Setting:
        """What the estimator knows of the run."""
        return self._decider.setting

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
        return dict(zip(self.setting.domains, self._steering.plan.weights, strict=True))

    @property
    def frozen(self) -> str | None:
        """Why the mixture is frozen; None where it is not."""
        return self._steering.frozen

    @property
    def cost(self) -> Cost:
        """What was spent on evaluation and perturbation since the start of the run."""
        return self._meter.cost

    def start(self) -> None:
        """Ask for the first plan, so that it holds from the first batch.

        Call it before the loop asks for a batch, and after states were loaded: it goes on where
        they are. Left out, the first plan is asked for after the first step.

        Raises:
            EstimatorError: The loader has handed out batches.
        """
        if not self._started:
            if self.steps_done == 0:
                self._stream.begin()
            self._started, first = True, self.steps_done + 1
            self._decisions.begin(first, first=first, now=first)
        self._meter.lap()

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
            raise EstimatorError("record: reference_losses= is missing; Driver(gives=) names it")
        self._watch.record(losses, domain, mask, reference_losses)

    def record_alignment(self, values_D: Any) -> None:
        """Add the inner product of each domain's gradient with the objective's.

        Args:
            values_D: The same on every rank (mixopt.online.alignment), shape (D,).

        Raises:
            EstimatorError: Another shape.
        """
        if self.frozen is None:
            self._watch.add_alignment(values_D)

    def step(self, *, learning_rate: float = 0.0) -> None:
        """Note an optimiser step; on every rank.

        Args:
            learning_rate: That of the step.

        Raises:
            EstimatorError: The loop does not do what it was said to: another accumulation, no
                losses recorded, or an evaluation domain without held-out text.
        """
        decisions = self._decisions
        decisions.step += 1
        decisions.learning_rate = float(learning_rate)
        self._stream.check(decisions.step)
        seconds = self._meter.lap()
        if self._steering.perturbs(decisions.step):
            self._meter.add_perturbed(seconds)
        if not self._started:
            self._started = True
            decisions.begin(decisions.step, first=decisions.next_free(), now=decisions.step)
        if self.frozen is None:
            decisions.after_step()

    def thaw(self) -> None:
        """Let the estimator go on after a freeze, between two steps; on every rank.

        What was seen meanwhile is lost to it, but for the tokens consumed.
        """
        self._decisions.thaw()

    def state_dict(self) -> dict[str, Any]:
        """Return the state: small, the same on every rank; every rank has to call it."""
        state = {
            "format": FORMAT,
            "domains": list(self.setting.domains),
            "reference": self.setting.reference_D.tolist(),
            "step": self.steps_done,
            "learning_rate": self._decisions.learning_rate,
            "started": self._started,
            "cost": asdict(self.cost),
            "watch": self._watch.state_dict(),
            "stream": self._stream.state_dict(),
            "steering": self._steering.state_dict(),
            "decider": self._decider.state_dict(),
        }
        return dict(from_first(state))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state, on any number of ranks; load the loader's state too.

        The estimator maps domains by name. Where they are not those of the state, the reference
        is the sampler's mixture from here on, and the next plan is asked for anew.

        Raises:
            EstimatorError: The state is of another run, or the estimator cannot go on from it.
        """
        if state.get("format") != FORMAT:
            raise EstimatorError(f"not a state of format {FORMAT!r}: {state.get('format')!r}")
        same = tuple(state["domains"]) == self.setting.domains
        if same:
            reference_D = np.array(state["reference"], np.float64)
            self._decider.begin(replace(self.setting, reference_D=reference_D))
        self._decider.load_state_dict(state["decider"])
        self._decisions.step = state["step"]
        self._decisions.learning_rate = state["learning_rate"]
        self._stream.load_state_dict(state["stream"], state["step"], same=same)
        self._steering.load_state_dict(state["steering"], self.setting, same=same)
        self._meter.cost = Cost(**state["cost"])
        self._started = state["started"] and same
        if same:
            self._watch.load_state_dict(state["watch"])
        else:
            self._watch.clear()


def _whole(least: int, name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise EstimatorError(f"{name}: {value!r} is not a whole number >= {least}")
    return value
