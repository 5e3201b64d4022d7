"""Train groups of trials of one decoder size: group size, device and results.

Trials start from random weights or from a checkpoint.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from mixopt.corpus import Corpus, document_ends
from mixopt.errors import ConfigError
from mixopt.mixture import Mixture
from mixopt.sweeps import Progress, Training
from mixopt.trials import Losses, Trial, TrialResult
from mixopt_proxies.decoder.decoder_stack import StackOrigin
from mixopt_proxies.decoder.devices import (
    memory_kept,
    resolve_device,
    resolve_precision,
    should_compile,
    thread_limit,
)
from mixopt_proxies.decoder.held_out_loss import Evaluations
from mixopt_proxies.decoder.size_options import DecoderSize
from mixopt_proxies.decoder.stack_trainer import (
    EPS,
    FIRST_STEPS,
    Course,
    StackTrainer,
    learning_rates,
    result_of,
)
from mixopt_proxies.decoder.training_passes import CHUNK_LOGITS, LARGE_VOCABULARY, Passes
from mixopt_proxies.decoder.trial_batches import TrialBatches, part_of, pools_of, steps_of

FULL_TOKENS = {"cpu": 2048, "cuda": 32_768}  # tokens of a step that fill a device
# Share of a host's total memory, which other workers share, and of a GPU's free memory.
MEMORY_SHARE = {"cpu": 0.25, "cuda": 0.5}
MEASURED_SECONDS = 0.5  # of the steps that measure the speed


class TrialTraining:
    """Trains trials together, in steps of `batch` sequences of `length` tokens each."""

    def __init__(self, length: int, batch: int) -> None:
        """Store the shape of a step."""
        self._length = length
        self._batch = batch
        self._step_tokens = length * batch

    def train(
        self,
        trials: Sequence[Trial],
        corpus: Corpus,
        training: Training,
        report: Callable[[Progress], None],
    ) -> list[TrialResult]:
        """Train the trials together and return a result for each, in their order."""
        started = time.monotonic()
        device = resolve_device(training.device)
        with thread_limit(training.threads), memory_kept(device):
            trainer = self._course(trials, corpus, training)
            batches = TrialBatches(trials, corpus, training, batch=self._batch, length=self._length)
            evaluations = Evaluations(corpus, self._length, self._batch, training, device)
            courses = trainer.run(batches, evaluations, report)
            if training.part[1] < 1:
                trainer.save([state_file(training, trial) for trial in trials])
        seconds = (time.monotonic() - started) / len(trials)
        parameters = self.parameters(corpus.vocab_size)
        return [
            result_of(trial, course, self._step_tokens, parameters, seconds)
            for trial, course in zip(trials, courses, strict=True)
        ]

    def origin_losses(self, corpus: Corpus, training: Training) -> Losses:
        """Return the losses of the origin, before any step, on the trials' held-out text."""
        device = resolve_device(training.device)
        evaluations = Evaluations(corpus, self._length, self._batch, training, device)
        origin = Trial("origin", Mixture.uniform(corpus.domain_names), seed=0)
        with thread_limit(training.threads), memory_kept(device):
            trainer = self._course([origin], corpus, training, trains=False)
            (losses,), _ = trainer.evaluate(evaluations, 0, lambda progress: None)
        return losses

    def group_size(self, corpus: Corpus, training: Training) -> int:
        """Check that texts and parts of trials are long enough, and return 1."""
        part_of(training, self._step_tokens)
        pools_of(corpus, self._steps(training) * self._step_tokens, self._length, training)
        return 1

    def parameters(self, vocab_size: int) -> int:
        """Return how many weights a trial has."""
        raise NotImplementedError

    def _steps(self, training: Training) -> int:
        return steps_of(training, self._step_tokens)

    def _course(
        self, trials: Sequence[Trial], corpus: Corpus, training: Training, *, trains: bool = True
    ) -> Course:
        """Return the training run of trials before its first step."""
        raise NotImplementedError


class GroupTraining(TrialTraining):
    """Trains the trials of a group as one stack."""

    def __init__(self, size: DecoderSize, origin: StackOrigin | None = None) -> None:
        """Store size and origin."""
        super().__init__(size.sequence_length, size.batch)
        self.size = size
        self._origin = origin
        self._cache: dict[tuple[object, ...], Passes] = {}

    def group_size(self, corpus: Corpus, training: Training) -> int:
        """Return the number of trials that train together; on a CPU, compile ahead."""
        self._check_rates(self._steps(training))
        super().group_size(corpus, training)
        device = resolve_device(training.device)
        members = members_by_rule(self.size, self._ids(corpus.vocab_size), device)
        passes = self._passes(corpus.vocab_size, training, self._ends(corpus), members)
        if passes.compiled and device.type == "cpu":
            with thread_limit(training.threads), memory_kept(device):
                Tuner.of_stack(members, passes).step()
        return members

    def parameters(self, vocab_size: int) -> int:
        """Return the number of weights of a trial."""
        return self.size.parameters(self._ids(vocab_size))

    def tokens_per_second(self, vocab_size: int, training: Training) -> float:
        """Measure the tokens per second of one worker, in half a second of eager steps."""
        device = resolve_device(training.device)
        members = members_by_rule(self.size, self._ids(vocab_size), device)
        ends = (0,) if self.size.mask_documents else ()  # the speed does not depend on the id
        with thread_limit(training.threads), memory_kept(device):
            passes = self._passes(vocab_size, training, ends)
            return Tuner.of_stack(members, passes).rate()

    def _course(
        self, trials: Sequence[Trial], corpus: Corpus, training: Training, *, trains: bool = True
    ) -> Course:
        steps = self._steps(training)
        self._check_rates(steps)
        members = len(trials) if trains else 0
        passes = self._passes(corpus.vocab_size, training, self._ends(corpus), members)
        first, _ = part_of(training, self._step_tokens)
        origin = self._resumed(trials, training, first) if first else self._origin
        return StackTrainer(trials, passes, steps=steps, origin=origin, first=first)

    def _resumed(self, trials: Sequence[Trial], training: Training, first: int) -> StackOrigin:
        """Return the saved states of trials after `first` steps."""
        states = [load_file(state_file(training, trial)) for trial in trials]
        parts: dict[str, dict[str, Tensor]] = {}
        for name in states[0]:
            part, _, weight = name.partition("/")
            parts.setdefault(part, {})[weight] = torch.stack([state[name] for state in states])
        weights = parts.pop("weight")
        origin = self._origin
        if origin is None:
            rates = partial(learning_rates, self.size)
            return StackOrigin(weights, rates, moments=parts, step=first, eps=EPS)
        step = origin.step + first if origin.moments else first
        return replace(origin, weights=weights, moments=parts, step=step)

    def _ends(self, corpus: Corpus) -> tuple[int, ...]:
        return document_ends(corpus) if self.size.mask_documents else ()

    def _passes(
        self, vocab_size: int, training: Training, ends: tuple[int, ...], members: int = 0
    ) -> Passes:
        """Return the passes for a number of members, compiled if that is worthwhile."""
        device = resolve_device(training.device)
        ids = self._ids(vocab_size)
        flops = self.size.step_flops(ids) * self._steps(training) * members
        compiled = members > 0 and should_compile(self.size.compile, device, flops)
        # Cached over groups, with the compiled code.
        key = (vocab_size, device, ends, compiled)
        if key not in self._cache:
            self._cache[key] = Passes(
                self.size,
                ids,
                device=device,
                dtype=resolve_precision(self.size.precision, device),
                compiled=compiled,
                document_ends=ends,
            )
        return self._cache[key]

    def _check_rates(self, steps: int) -> None:
        if self._origin is None:
            self.size.check_steps(steps)
        else:
            self._origin.rates(steps)

    def _ids(self, vocab_size: int) -> int:
        """Return the number of ids of the model: the origin's, or the corpus's `vocab_size`."""
        if self._origin is None:
            return vocab_size
        return len(self._origin.weights["embedding"])


def state_file(training: Training, trial: Trial) -> Path:
    """Return the file of a trial's state between two parts of its training."""
    if training.files is None:
        raise ConfigError("a trial that is trained in parts needs Training.files")
    return Path(training.files) / trial.name / "state.safetensors"


def members_by_rule(size: DecoderSize, vocab_size: int, device: torch.device) -> int:
    """Return the power of two of members whose tokens per step fill the device."""
    # With a large vocabulary, members use the fp32 logits in turns.
    shared = 4 * CHUNK_LOGITS[device.type] if vocab_size >= LARGE_VOCABULARY else 0
    memory = max(0, usable_memory(device) - shared)
    fitting = memory // member_bytes(size, vocab_size)
    members = min(FULL_TOKENS[device.type] // size.step_tokens, fitting)
    return 1 << max(members.bit_length() - 1, 0)


class Tuner:
    """Runs steps on random tokens, to measure or to compile them."""

    def __init__(self, trainer: Course, shape: tuple[int, ...], vocab_size: int) -> None:
        *sequences, window = shape
        self._trainer = trainer
        self._step_tokens = math.prod(sequences) * (window - 1)
        self._device = trainer.device
        generator = torch.Generator().manual_seed(0)
        self._tokens = torch.randint(vocab_size, shape, generator=generator).to(self._device)

    @classmethod
    def of_stack(cls, members: int, passes: Passes) -> Tuner:
        """Return the tuner of a stack of `members`."""
        trials = [Trial(f"tune-{k}", Mixture({"any": 1.0}), seed=k) for k in range(members)]
        trainer = StackTrainer(trials, passes, steps=1)
        shape = (members, passes.size.batch, passes.size.sequence_length + 1)
        return cls(trainer, shape, passes.vocab_size)

    def step(self) -> None:
        """Run a step and wait for it."""
        self._trainer.step(self._tokens)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def rate(self) -> float:
        """Measure tokens per second in half a second of steps; 0 if out of memory."""
        warm_up = FIRST_STEPS + 1 if self._device.type == "cuda" else 1
        try:
            for _ in range(warm_up):
                self.step()
        except torch.OutOfMemoryError:
            return 0.0
        steps = 0
        start = time.perf_counter()
        while steps == 0 or time.perf_counter() - start < MEASURED_SECONDS:
            self.step()
            steps += 1
        return steps * self._step_tokens / (time.perf_counter() - start)


def usable_memory(device: torch.device) -> int:
    """Return the bytes to use: a share of the host's memory, or of the GPU's free memory."""
    if device.type == "cuda":
        free, _total = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(MEMORY_SHARE["cuda"] * (free + cached))
    import psutil

    return int(MEMORY_SHARE["cpu"] * psutil.virtual_memory().total)


def member_bytes(size: DecoderSize, vocab_size: int) -> int:
    """Estimate the memory of one member: five fp32 copies of the weights, and activations."""
    inner = size.ff
    copies = 0
    if size.experts:
        inner = size.top_k * size.expert_ff
        copies = 4 * size.top_k * size.width
    # Weights, two moments, gradients by weight and in the flat buffer, and a copy in bf16.
    states = 22 * size.parameters(vocab_size)
    logits = 0 if vocab_size >= LARGE_VOCABULARY else 2 * vocab_size
    channels = size.layers * (10 * size.width + 4 * inner + copies) + logits
    scores = size.layers * size.heads * min(size.sequence_length, 256)
    return states + 4 * size.step_tokens * (channels + scores)
