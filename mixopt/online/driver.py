"""Run an estimator in any training loop: observe losses by domain, change the mixture.

    driver = Driver(estimator, loader, DriverOptions(steps=1000, tokens_per_sample=512))
    driver.start()
    for batch in loader:
        ...
        driver.record(losses, batch["domain"])  # token losses, or sequence means
        ...
        driver.step(learning_rate=rate)  # once for each optimiser step, on every rank

Losses are accumulated on the device as integers, and summed over ranks every `observe_every` steps
and at the end of a plan. The estimator runs on rank 0; its plans are broadcast to all ranks with
the first batch of their weights. A plan from observations up to step s takes effect at step s + 1,
or later by the steps that worker processes have prefetched.

The mixture freezes, and training continues, if losses are not finite or jump up, a held-out loss is
not finite, the estimator raises, or a plan is invalid: outside its bounds, or beyond the maximum
epochs of a domain. If it freezes in a perturbation, the weights before that are restored.

Shapes: B sequences, T tokens, D domains.
"""

import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch

from mixopt.errors import EstimatorError, MixoptError, MixtureError
from mixopt.loading import MixtureLoader
from mixopt.online.contract import DriverOptions, Estimator, Setting
from mixopt.online.loss_sums import LossWindows, from_first, held_out_losses, is_first, on_first
from mixopt.online.mixture_log import MixtureLog
from mixopt.online.standing_plan import StandingPlan, StreamSteps, why_impossible
from mixopt.sampling import MixtureSampler, check_ranks
from mixopt.system import StateFields, one_line, shown_value

FORMAT = "mixopt-driver/5"
_WHERE = "the driver's state"
_ROUNDED_CHANGE = 2e-4  # of a share, by rounding alone


class Driver:
    """Connects estimator and loop; all ranks call the same methods at the same steps.

    Attributes:
        setting: The estimator's setting.
        mixture: The loader or sampler of the batches.
        accumulation: Global batches in an optimiser step.
        steps_done: Optimiser steps since the start of the run.
        frozen: Why the mixture is frozen, or None.
        perturbed_steps: Optimiser steps on perturbing plans.
        evaluated_tokens: Tokens of held-out text evaluated for plans, over all ranks.
    """

    frozen: str | None

    def __init__(
        self, estimator: Estimator, mixture: MixtureLoader | MixtureSampler, options: DriverOptions
    ) -> None:
        """Connect an estimator and a loader or sampler.

        Args:
            estimator: The estimator; created on every rank, run on rank 0.
            mixture: The loader or sampler; the mixture of its next batch is the reference.
            options: The run, and settings of the driver.

        Raises:
            EstimatorError: The loop does not provide what the estimator needs, the estimator does
                not support this setting, or a name or number is invalid.
        """
        options.check_needs(estimator)
        self.mixture = mixture
        self.accumulation = options.accumulation
        self._estimator = estimator
        self._options = options
        self._stream = StreamSteps(mixture, options.accumulation, options.tokens_per_sample)
        self.setting: Setting = options.setting(self._stream.sampler)
        self._windows = LossWindows(
            self._stream, spike=options.spike, needs_losses="training_loss" in estimator.needs
        )
        self._log = MixtureLog(options.log if is_first() else None)
        self._fault: str | None = None  # on rank 0, until it is broadcast with the next plan
        self._observed = 0  # the last observed step
        self._started = False
        self._moved = False  # whether a plan left the reference mixture
        self._learning_rate = 0.0
        self.steps_done = 0
        self.frozen = None
        self.perturbed_steps = 0
        self.evaluated_tokens = 0
        on_first(lambda: estimator.start(self.setting))
        self._plan = StandingPlan.reference(self.setting)
        self._before = self._plan  # the plan before it, until it takes effect
        self._steady = self._plan  # the last plan that does not perturb

    @property
    def weights(self) -> dict[str, float]:
        """The last planned weights by domain, which may take effect at a later batch."""
        return self._plan.named(self.setting)

    # The loop -------------------------------------------------------------------------------

    def start(self) -> None:
        """Request the first plan, so that it takes effect at the first batch.

        Call it before the first batch, and after states were loaded.

        Raises:
            EstimatorError: The loader has delivered batches.
        """
        if not self._started:
            self._started = True
            self._stream.begin()
            self._log.cut(0)
            self._write(self._plan)
            self._decide(1, 1)

    def record(
        self, losses: torch.Tensor, domain: torch.Tensor, mask: torch.Tensor | None = None
    ) -> None:
        """Add the training losses of a batch of this rank; they stay on their device.

        Args:
            losses: Loss of each token, shape (B, T), or mean of each sequence, shape (B,); nats.
            domain: Domain index of each sequence, shape (B,): the batch's `domain`.
            mask: Tokens that count, shape (B, T); all false for a skipped step.

        Raises:
            EstimatorError: Shapes do not match.
        """
        if self.frozen is None:
            self._windows.record(losses, domain, mask)

    def step(self, *, learning_rate: float = 0.0) -> None:
        """Record an optimiser step; call it on every rank.

        Args:
            learning_rate: Learning rate of the step.

        Raises:
            EstimatorError: The loop contradicts the options: another accumulation, no losses
                recorded, or an evaluation domain without held-out text.
        """
        if not self._started:
            raise EstimatorError("step: the driver has not started: call start() before it")
        self.steps_done += 1
        self._learning_rate = float(learning_rate)
        self._stream.check(self.steps_done)
        plan = self._plan if self.steps_done >= self._plan.first else self._before
        self.perturbed_steps += plan.perturbs and not self._options.shadow
        if self.frozen is None:
            self._observe_if_due()
        is_idle = self.frozen is None and not self._moved
        if self.steps_done == self.setting.steps and is_idle and is_first():
            logging.getLogger("mixopt.online").warning(
                "%s never moved the mixture in %s steps: it saw no difference between domains"
                " beyond noise; train longer, or leave it out",
                type(self._estimator).__name__,
                f"{self.setting.steps:,}",
            )

    def _next_free(self) -> int:
        """Return the first step whose batches are not fetched yet."""
        return self.steps_done + 1 + self._stream.lag(self.steps_done)

    # Observations ---------------------------------------------------------------------------

    def _observe_if_due(self) -> None:
        """Observe at the end of a plan, and every few steps within it."""
        step = self.steps_done
        plan = self._plan
        ends = step == plan.last
        waits = plan.held_out and step >= plan.until
        if ends or (step % self._options.observe_every == 0 and not waits):
            self._observe(evaluates=ends and plan.held_out)
            if ends and self.frozen is None:
                self._decide(self._next_free(), step)

    def _observe(self, *, evaluates: bool) -> None:
        """Pass the sums since the last observation to the estimator, or freeze."""
        observation = self._windows.close(self.steps_done, self._learning_rate)
        if isinstance(observation, str):
            self._freeze(observation)
            return
        if evaluates:
            assert self._options.evaluate is not None  # plans with held-out losses need it
            held_out = held_out_losses(self._options.evaluate, self.setting.evaluations)
            if isinstance(held_out, str):
                self._freeze(held_out)
                return
            self.evaluated_tokens += held_out.tokens
            observation = replace(observation, held_out=held_out)
        self._observed = self.steps_done
        if is_first() and self._fault is None:
            try:
                self._estimator.observe(observation)
            except Exception as error:
                self._fault = f"{type(error).__name__} in observe: {error}"

    # Plans ----------------------------------------------------------------------------------

    def _decide(self, first: int, now: int, *, is_second: bool = False) -> None:
        """Request a plan, and evaluate first if the plan requires it."""
        if first > self.setting.steps:
            return
        plan = from_first(self._ask(first, now) if is_first() else None)
        if isinstance(plan, str):
            self._freeze(plan)
        elif not plan.is_evaluation:
            self._apply(plan)
        elif is_second:
            self._freeze(f"plan {plan.why!r}: held-out losses are requested twice in a row")
        else:
            self._observe(evaluates=True)
            if self.frozen is None:
                self._decide(first, now, is_second=True)

    def _ask(self, first: int, now: int) -> StandingPlan | str:
        """Return the estimator's plan, or the error."""
        if self._fault is not None:
            return self._fault
        try:
            plan = self._estimator.plan()
        except Exception as error:
            self._fault = f"{type(error).__name__} in plan: {error}"
            return self._fault
        evaluates = self._options.evaluate is not None
        reason = why_impossible(plan, self.setting, self._stream, first, evaluates=evaluates)
        if reason is not None:
            self._fault = f"plan {plan.tag!r}: {reason}"
            return self._fault
        return StandingPlan.of(plan, self.setting, self._observed, now=now, first=first)

    # Application of plans -------------------------------------------------------------------

    def _apply(self, plan: StandingPlan) -> None:
        """Apply a plan; unchanged weights are neither set nor logged."""
        if plan.weights != self._plan.weights:
            try:
                self._set(plan)
            except MixtureError as error:
                self._freeze_from(plan.first, f"plan {plan.why!r}: {error}")
                return
            self._write(plan)
        distance_D = abs(np.array(plan.weights) - self.setting.reference_D)
        self._moved = self._moved or bool(distance_D.max() > _ROUNDED_CHANGE)
        self._before = self._plan
        self._plan = plan
        if not plan.perturbs:
            self._steady = plan

    def _freeze(self, reason: str) -> None:
        self._windows.clear()
        self._freeze_from(self._next_free(), reason)

    def _freeze_from(self, first: int, reason: str) -> None:
        """Freeze the weights, or the last ones before a perturbation, for the rest of the run."""
        self.frozen = reason
        if is_first():
            logging.getLogger("mixopt.online").warning("the mixture is frozen: %s", reason)
        plan = replace(self._steady, first=first, why=f"frozen: {reason}")
        if plan.weights != self._plan.weights:
            self._set(plan)
        self._write(plan)
        self._before = self._plan
        self._plan = plan

    def _set(self, plan: StandingPlan) -> None:
        if not self._options.shadow and plan.first <= self.setting.steps:
            self._stream.set_weights(plan.first, plan.named(self.setting))

    def _write(self, plan: StandingPlan) -> None:
        batch = self._stream.batch(plan.first)
        weights = plan.named(self.setting)
        self._log.write(batch, plan.first, weights, plan.why, shadow=self._options.shadow)

    # State ----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the state, small and the same on every rank; all ranks call it.

        Raises:
            SamplerError: Ranks have different orders of samples; the message names the rank.
            EstimatorError: The estimator has no state; raised on every rank.
        """
        check_ranks(self._stream.sampler)
        plans = {
            "plan": asdict(self._plan),
            "before": asdict(self._before),
            "steady": asdict(self._steady),
        }
        state = {
            "format": FORMAT,
            "domains": list(self.setting.domains),
            "reference": self.setting.reference_D.tolist(),
            "step": self.steps_done,
            "started": self._started,
            "moved": self._moved,
            "frozen": self.frozen,
            "trouble": self._fault,
            "observed": self._observed,
            "log_size": self._log.size,
            "perturbed_steps": self.perturbed_steps,
            "evaluated_tokens": self.evaluated_tokens,
            "plans": plans,
            "windows": self._windows.state_dict(),
            "stream": self._stream.state_dict(),
            "estimator": on_first(self._estimator.state_dict),
        }
        return dict(from_first(state))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a state, on any number of ranks, after loading the loader's state.

        Raises:
            EstimatorError: The state is of another run or other domains, is damaged, or the
                estimator cannot resume from it; nothing is changed.
        """
        parts = [self, self._windows, self._stream, self._log]
        if hasattr(self._estimator, "__dict__"):
            parts.append(self._estimator)
        before = [dict(vars(part)) for part in parts]
        try:
            self._load(StateFields(state, _WHERE, EstimatorError))
        except BaseException:
            for part, values in zip(parts, before, strict=True):
                vars(part).clear()
                vars(part).update(values)
            raise

    def _load(self, fields: StateFields) -> None:
        fields.check_format(FORMAT)
        domains = self.setting.domains
        step = fields.whole("step")
        if tuple(fields.texts("domains")) != domains:
            fields.refuse("domains", f"not those of this run, {', '.join(domains)}")
        self.steps_done = step
        self._observed = fields.whole("observed", 0, step)
        self._started = fields.flag("started")
        self._moved = fields.flag("moved")
        self.frozen = fields.maybe("frozen", fields.text)
        self._fault = fields.maybe("trouble", fields.text)
        self.perturbed_steps = fields.whole("perturbed_steps")
        self.evaluated_tokens = fields.whole("evaluated_tokens")
        plans = fields.part("plans")
        self._plan = StandingPlan.read(plans.part("plan"), len(domains))
        self._before = StandingPlan.read(plans.part("before"), len(domains))
        self._steady = StandingPlan.read(plans.part("steady"), len(domains))
        self._windows.load(fields.part("windows"))
        self._stream.load(fields.part("stream"))
        reference_D = fields.array("reference", (len(domains),), 0)
        size = fields.whole("log_size")
        self.setting = replace(self.setting, reference_D=reference_D)
        on_first(lambda: _resume(self._estimator, self.setting, fields.get("estimator")))
        on_first(lambda: self._log.cut(size))
        self._log.size = size


def _resume(estimator: Estimator, setting: Setting, state: Any) -> None:
    """Load an estimator's state; a foreign error becomes one line."""
    if not isinstance(state, Mapping):
        raise EstimatorError(f"{_WHERE}: estimator: {shown_value(state)} is not a mapping")
    try:
        estimator.start(setting)
        estimator.load_state_dict(state)
    except MixoptError:
        raise
    except Exception as error:
        name = type(estimator).__name__
        raise EstimatorError(f"{name} cannot resume from {_WHERE}: {one_line(error)}") from error
