"""Train a stack of decoders together, each with its own data and seed.

The loop never waits for the device: losses stay there until training ends, tokens are prefetched,
and on a GPU steps are replayed from a CUDA graph.

Shapes: K members, B sequences, W tokens of a window, S steps.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import Tensor

from mixopt.routing import ExpertCounts
from mixopt.sweeps import Doing, Progress
from mixopt.system import write_bytes
from mixopt.trials import Losses, Trial, TrialResult
from mixopt_proxies.decoder.decoder_stack import StackedWeights, StackOrigin
from mixopt_proxies.decoder.experts import ExpertCounter, Routed
from mixopt_proxies.decoder.held_out_loss import Evaluations, HeldOutWindows, corrected_curve
from mixopt_proxies.decoder.size_options import DecoderSize
from mixopt_proxies.decoder.training_passes import Passes
from mixopt_proxies.decoder.trial_batches import TrialBatches, blocks, random_generator

BLOCK_TOKENS = {"cpu": 1 << 16, "cuda": 1 << 20}  # of all members, read at once
REPORT_SECONDS = 0.5  # between two reports
EPS = 1e-8  # of AdamW
MOMENTS = ("exp_avg", "exp_avg_sq")
FIRST_STEPS = 3  # eager steps on a GPU before one is captured

logger = logging.getLogger(__name__)
Report = Callable[[Progress], None]


class MemberCourse(NamedTuple):
    """What a member's training run gave."""

    losses_S: Tensor  # training losses by step
    curve: tuple[Losses, ...]  # held-out losses; the last are those at the end
    experts: ExpertCounts | None


class Course:
    """The training run of members that step together; subclasses define steps and losses."""

    def __init__(
        self,
        members: int,
        steps: int,
        step_tokens: int,
        device: torch.device,
        *,
        compiled: bool,
        first: int = 0,
    ) -> None:
        """Prepare the run before its step `first`."""
        self.members = members
        self.device = device
        self._steps = steps
        self._step_tokens = step_tokens
        self._first = first
        self._last = steps
        self._compiled = compiled
        self._losses_SK = torch.zeros(steps, members, device=device)
        self._place = torch.full((1,), first, device=device)

    def step(self, tokens_KBW: Tensor) -> Routed | None:
        """Run the next step, `_record` its losses, and return its routing."""
        raise NotImplementedError

    def _evaluated(self, tokens_KBW: Tensor) -> tuple[Tensor, Routed | None]:
        """Return the mean loss of each sequence, shape (K, B), and the routing."""
        raise NotImplementedError

    def _token_losses(self, tokens_KBW: Tensor, place_P: Tensor) -> Tensor:
        """Return the losses of chosen tokens, shape (K, P)."""
        raise NotImplementedError

    def _counter(self, batches: TrialBatches) -> ExpertCounter | None:
        """Return a counter of expert assignments; None: without experts."""
        return None

    def _record(self, loss_K: Tensor) -> None:
        """Store the losses of a step; extra steps, as run by a tuner, overwrite the last."""
        self._losses_SK.index_copy_(0, self._place, loss_K[None])
        self._place.add_(1).clamp_(max=self._steps - 1)

    def run(
        self, batches: TrialBatches, evaluations: Evaluations, report: Report
    ) -> list[MemberCourse]:
        """Run all steps and evaluations of this part of the training."""
        self._last = evaluations.last
        sample = evaluations.sample
        counter = self._counter(batches) if self._last == self._steps else None
        curve: list[list[Losses]] = []  # of all held-out text
        sampled_curve: list[list[Losses]] = []
        counts_LKWE: list[Tensor] = []  # of the experts, in the last evaluation
        reported = time.monotonic()
        report(self._progress(self._first, "compiling" if self._compiled else "training"))
        for step, tokens_KBW in self.stream(batches):
            routed = self.step(tokens_KBW)
            is_second_half = 2 * step >= self._steps - 1
            if counter is not None and routed is not None and is_second_half:
                counter.add(step, routed)
            if step == self._first or time.monotonic() - reported > REPORT_SECONDS:
                report(self._progress(step + 1))
                reported = time.monotonic()
            if sample is not None and step + 1 in evaluations.sampled_at:
                sampled, _ = self._losses(sample, step + 1, report)
                sampled_curve.append(sampled)
            if step + 1 in evaluations.at:
                losses, counts_LKWE = self.evaluate(evaluations, step + 1, report)
                curve.append(losses)
        if sample is not None:
            sampled_end, _ = self._losses(sample, self._last, report)
            curve = [*corrected_curve(sampled_curve, sampled_end, curve[-1]), *curve]
        report(self._progress(self._last))
        experts: list[ExpertCounts] | list[None] = [None] * self.members
        if counter is not None:
            experts = counter.with_held_out(counts_LKWE, evaluations.windows.counts)
        courses = []
        for k, losses_S in enumerate(self._losses_SK.cpu().T):
            curve_of_member = tuple(losses_K[k] for losses_K in curve)
            courses.append(MemberCourse(losses_S, curve_of_member, experts[k]))
        return courses

    def stream(self, batches: TrialBatches) -> Iterator[tuple[int, Tensor]]:
        """Yield each step's number and tokens, shape (K, B, W), read in blocks of steps."""
        step_tokens = self._step_tokens * self.members
        length = max(1, BLOCK_TOKENS[self.device.type] // step_tokens)
        firsts = range(self._first, self._last, length)
        spans = [(first, min(first + length, self._last)) for first in firsts]
        for first, block in blocks(batches.block, spans, self.device):
            yield from enumerate(block, start=first)

    def evaluate(
        self, evaluations: Evaluations, steps: int, report: Report
    ) -> tuple[list[Losses], list[Tensor]]:
        """Return each member's held-out losses and task metrics, and its experts' counts."""

        def token_losses(tokens_KBW: Tensor, place_P: Tensor) -> Tensor:
            report(self._progress(steps, "evaluating"))
            return self._token_losses(tokens_KBW, place_P)

        losses_K, counts_LKWE = self._losses(evaluations.windows, steps, report)
        scores_K = evaluations.task_scores(token_losses, self.members)
        complete_K = []
        for losses, scores in zip(losses_K, scores_K, strict=True):
            complete_K.append(replace(losses, tasks=scores))
        return complete_K, counts_LKWE

    def _losses(
        self, held_out: HeldOutWindows, steps: int, report: Report
    ) -> tuple[list[Losses], list[Tensor]]:
        counts_LKWE: list[Tensor] = []

        def sequence_losses(tokens_KBW: Tensor) -> Tensor:
            report(self._progress(steps, "evaluating"))
            losses_KB, routed = self._evaluated(tokens_KBW)
            if routed is not None:
                counts_LKWE.append(routed.counts_LKBE)
            return losses_KB

        losses = held_out.losses(sequence_losses, self.members, steps * self._step_tokens)
        return losses, counts_LKWE

    def _progress(self, steps: int, doing: Doing = "training") -> Progress:
        step_tokens = self._step_tokens * self.members
        done = (steps - self._first) * step_tokens
        total = (self._last - self._first) * step_tokens
        return Progress(done=done, total=total, doing=doing)

    def save(self, paths: Sequence[Path]) -> None:
        """Save the state of each member."""
        raise NotImplementedError


class StackTrainer(Course):
    """The training run of one group of trials, as a stack."""

    def __init__(
        self,
        trials: Sequence[Trial],
        passes: Passes,
        *,
        steps: int,
        origin: StackOrigin | None = None,
        first: int = 0,
    ) -> None:
        """Draw the members' initial weights, or start from an origin, before the step `first`."""
        super().__init__(
            len(trials),
            steps,
            passes.size.step_tokens,
            passes.device,
            compiled=passes.compiled,
            first=first,
        )
        self._passes = passes
        self.weights = passes.weights([initial_seed(trial) for trial in trials], origin)
        self._optimizer = StackedAdamW(self.weights, passes.size, steps, origin, first)
        self._run_step: Callable[[Tensor], Routed | None] = self._eager_step
        if passes.compiled and passes.device.type == "cuda":
            self._run_step = StepGraph(self._eager_step)

    def step(self, tokens_KBW: Tensor) -> Routed | None:
        """Run the next step; return its routing."""
        return self._run_step(tokens_KBW)

    def _evaluated(self, tokens_KBW: Tensor) -> tuple[Tensor, Routed | None]:
        return self._passes.evaluated(self.weights.leaves, tokens_KBW)

    def _token_losses(self, tokens_KBW: Tensor, place_P: Tensor) -> Tensor:
        return self._passes.token_losses(self.weights.leaves, tokens_KBW, place_P)

    def _counter(self, batches: TrialBatches) -> ExpertCounter | None:
        size = self._passes.size
        return ExpertCounter(batches, size, self.device) if size.experts else None

    def save(self, paths: Sequence[Path]) -> None:
        """Save each member's weights in fp32 and moments, as `<part>/<weight>`."""
        parts = {"weight": self.weights.master, **self._optimizer.moments}
        for k, path in enumerate(paths):
            state = {}
            for part, flat in parts.items():
                for weight in self.weights.weights:
                    values = self.weights.view(flat, weight)[k]
                    state[f"{part}/{weight.name}"] = values.contiguous()
            write_bytes(path, safetensors.torch.save(state))

    def _eager_step(self, tokens_KBW: Tensor) -> Routed | None:
        loss_K, gradients, routed = self._passes.gradients(self.weights.leaves, tokens_KBW)
        self._record(loss_K)
        self._optimizer.step(gradients)
        return routed


def initial_seed(trial: Trial) -> int:
    """Return the seed of a trial's initial weights."""
    return int(random_generator(trial.seed, "weights").integers(2**63))


def result_of(
    trial: Trial, course: MemberCourse, step_tokens: int, parameters: int, seconds: float
) -> TrialResult:
    """Return the result of a trial."""
    end = course.curve[-1]
    reason = _divergence(course, step_tokens)
    has_finished = reason is None
    return TrialResult(
        trial=trial.name,
        status="finished" if has_finished else "diverged",
        tokens=end.tokens,
        parameters=parameters,
        seconds=seconds,
        losses=end if has_finished else None,
        curve=tuple(point for point in course.curve if _bad_domain(point) is None),
        reason=reason,
        experts=course.experts if has_finished else None,
    )


def _divergence(course: MemberCourse, step_tokens: int) -> str | None:
    """Return an error for a loss that is not finite; None: all that matter are."""
    bad_steps = torch.nonzero(~torch.isfinite(course.losses_S)).flatten()
    if len(bad_steps):
        step = int(bad_steps[0])
        loss = float(course.losses_S[step])
        return (
            f"training loss is {loss} in step {step + 1} of {len(course.losses_S)}"
            f" ({step * step_tokens} tokens): lower proxy.options.lr or clip"
        )
    domain = _bad_domain(course.curve[-1])
    if domain is not None:
        return f"held-out loss of {domain!r} is not finite at the end"
    return None


def _bad_domain(losses: Losses) -> str | None:
    """Return the first domain or task whose value is not finite; None: there is none."""
    for name, value in (losses.nats_per_token | losses.tasks).items():
        if not math.isfinite(value):
            return name
    return None


class StackedAdamW:
    """AdamW on the weights of a stack, with clipping by member."""

    def __init__(
        self,
        weights: StackedWeights,
        size: DecoderSize,
        steps: int,
        origin: StackOrigin | None = None,
        first: int = 0,
    ) -> None:
        """Use the size's learning rates without moments, or rates and moments of an origin."""
        self._weights = weights
        self._size = size
        device = weights.master.device
        rates = learning_rates(size, steps) if origin is None else origin.rates(steps)
        self._rates_S = torch.tensor(rates, device=device)
        self._rate = torch.zeros((), device=device)
        self._place = torch.full((1,), first, device=device)
        self._gradients = {w.name: weights.view(weights.gradient, w) for w in weights.weights}
        end = weights.decayed
        decayed = _part(weights.master[:end], weights.gradient[:end])
        norms = _part(weights.master[end:], weights.gradient[end:])
        groups = [
            {"params": [decayed], "weight_decay": size.weight_decay},
            {"params": [norms], "weight_decay": 0.0},
        ]
        self._adam = torch.optim.AdamW(
            groups,
            lr=size.lr,
            betas=size.betas,
            eps=EPS if origin is None else origin.eps,
            fused=True,
            capturable=device.type == "cuda",
        )
        for group in self._adam.param_groups:
            group["lr"] = self._rate
        if origin is not None and origin.moments:
            self._load_moments(origin)

    @torch.no_grad()
    def step(self, gradients: Mapping[str, Tensor]) -> None:
        """Clip, update the weights, and refresh their copy in the compute precision."""
        summed = {name: gradients[name] for name in self._gradients}
        if self._size.tied:
            summed["embedding"] = summed["embedding"] + gradients["head"]
        sources = list(summed.values())
        targets = list(self._gradients.values())
        if self._size.clip > 0:
            write_clipped(sources, targets, self._size.clip)
        else:
            torch._foreach_copy_(targets, sources)
        self._rate.copy_(self._rates_S.index_select(0, self._place).squeeze(0))
        self._adam.step()
        self._weights.refresh()
        # Extra steps, as run by a tuner, keep the last rate.
        self._place.add_(1).clamp_(max=len(self._rates_S) - 1)

    @property
    def moments(self) -> dict[str, Tensor]:
        """Adam's moments by name, each as flat as the weights."""
        states = [self._adam.state[group["params"][0]] for group in self._adam.param_groups]
        return {name: torch.cat([state[name] for state in states]) for name in MOMENTS}

    def _load_moments(self, origin: StackOrigin) -> None:
        """Copy the moments and step of an origin to the members."""
        master = self._weights.master
        parts = [group["params"][0] for group in self._adam.param_groups]
        lengths = [len(part) for part in parts]
        for part in parts:
            step = torch.tensor(float(origin.step), device=master.device)
            self._adam.state[part] = {"step": step}
        for name, values in origin.moments.items():
            flat = torch.empty_like(master)
            self._weights.write_all(flat, values)
            for part, moments in zip(parts, torch.split(flat, lengths), strict=True):
                self._adam.state[part][name] = moments


def learning_rates(size: DecoderSize, steps: int) -> list[float]:
    """Return the learning rate of each step of a trial from random weights."""
    curve = size.rates(steps)
    return [size.lr * curve.rate(step) for step in range(steps)]


def write_clipped(gradients: list[Tensor], out: list[Tensor], limit: float) -> None:
    """Write each member's gradients in fp32, scaled to a norm of at most `limit`."""
    norms_WK = torch.stack(
        [torch.linalg.vector_norm(g.flatten(1), dim=1, dtype=torch.float32) for g in gradients]
    )
    scale_K = (limit / (torch.linalg.vector_norm(norms_WK, dim=0) + 1e-6)).clamp(max=1.0)
    for gradient, target in zip(gradients, out, strict=True):
        ones = [1] * (gradient.ndim - 1)
        torch.mul(gradient, scale_K.view(-1, *ones), out=target)


def _part(values: Tensor, gradient: Tensor) -> torch.nn.Parameter:
    part = torch.nn.Parameter(values)
    part.grad = gradient
    return part


class _CapturedStep(NamedTuple):
    """A captured step with the memory of its input and output."""

    graph: torch.cuda.CUDAGraph
    tokens: Tensor
    output: Any


class StepGraph:
    """Runs eager steps first, then replays a CUDA graph of the step.

    Outputs of replayed steps share the same memory.
    """

    def __init__(self, step: Callable[[Tensor], Any]) -> None:
        """Wrap a step; capture nothing yet."""
        self._step = step
        self._eager_left = FIRST_STEPS
        self._captured: _CapturedStep | None = None

    def __call__(self, tokens: Tensor) -> Any:
        """Run a step."""
        if self._eager_left == 0:
            self._capture(tokens)
        self._eager_left -= 1
        if self._captured is None:
            return self._step(tokens)
        self._captured.tokens.copy_(tokens)
        self._captured.graph.replay()
        return self._captured.output

    def _capture(self, tokens: Tensor) -> None:
        input_tokens = tokens.clone()
        try:
            graph = torch.cuda.CUDAGraph()
            # The prefetching thread makes calls that are forbidden in the capturing thread.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                output = self._step(input_tokens)
        except RuntimeError as error:  # an operation that cannot be captured, or out of memory
            first = str(error).strip().partition("\n")[0]
            logger.warning("no CUDA graph of the training step, continuing without it: %s", first)
            return
        self._captured = _CapturedStep(graph, input_tokens, output)
