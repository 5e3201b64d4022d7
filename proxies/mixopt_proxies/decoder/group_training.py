"""Train groups of trials of one size of decoder: how many at once, where, and what comes of it.

Trials begin with random weights, or where a checkpoint ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch

from mixopt.corpus import Corpus, document_ends
from mixopt.mixture import Mixture
from mixopt.trials import Losses, Progress, Training, Trial, TrialResult
from mixopt_proxies.decoder.decoder_stack import StackOrigin
from mixopt_proxies.decoder.devices import (
    memory_kept,
    resolve_device,
    resolve_precision,
    should_compile,
    thread_limit,
)
from mixopt_proxies.decoder.held_out_loss import Evaluations, steps_of
from mixopt_proxies.decoder.sizes import Compile, DecoderSize, Precision, check_choices
from mixopt_proxies.decoder.stack_trainer import (
    FIRST_STEPS,
    StackTrainer,
    result_of,
    untrained_losses,
)
from mixopt_proxies.decoder.training_passes import CHUNK_LOGITS, LARGE_VOCABULARY, Passes
from mixopt_proxies.decoder.trial_batches import TrialBatches, pools_of


class GroupTraining:
    """Trains the trials of a group as one stack.

    Attributes:
        size: Of each member, and how it is trained.
    """

    def __init__(
        self,
        size: DecoderSize,
        *,
        precision: Precision = "auto",
        compile: Compile = "auto",
        origin: StackOrigin | None = None,
        vocab_size: int | None = None,
        mask_documents: bool = False,
    ) -> None:
        """Note what is trained."""
        check_choices(precision, compile)
        self.size = size
        self._precision: Precision = precision
        self._compile: Compile = compile
        self._origin, self._vocab_size = origin, vocab_size
        self._mask_documents = mask_documents
        self._made: dict[tuple[object, ...], Passes] = {}

    def group_size(self, corpus: Corpus, training: Training) -> int:
        """Return how many trials to train together."""
        self._check_rates(self._steps(training))
        tokens = self._steps(training) * self.size.step_tokens
        pools_of(corpus, tokens, self.size.sequence_length, training)  # which checks the texts
        device = resolve_device(training.device)
        rule = members_by_rule(self.size, self._ids(corpus.vocab_size), device)
        passes = self._passes_of(rule, corpus, training)
        with thread_limit(training.threads), memory_kept(device):
            if passes.compiled and device.type == "cpu":
                Tuner(rule, passes).step()
                return rule
            return fastest(candidates(rule), lambda members: Tuner(members, passes).rate())

    def train(
        self,
        trials: Sequence[Trial],
        corpus: Corpus,
        training: Training,
        report: Callable[[Progress], None],
    ) -> list[TrialResult]:
        """Train the trials together and return a result for each, in their order."""
        started = time.monotonic()
        size, steps = self.size, self._steps(training)
        self._check_rates(steps)
        passes = self._passes_of(len(trials), corpus, training)
        shape = (size.sequence_length, size.batch)
        batches = TrialBatches(
            trials, corpus, training, batch=size.batch, length=size.sequence_length
        )
        evaluations = Evaluations.of(corpus, *shape, training, passes.device)
        with thread_limit(training.threads), memory_kept(passes.device):
            trainer = StackTrainer(trials, passes, steps=steps, origin=self._origin)
            courses = trainer.run(batches, evaluations, report)
        seconds = (time.monotonic() - started) / len(trials)
        parameters = size.parameters(passes.vocab_size)
        return [
            result_of(trial, course, size.step_tokens, parameters, seconds)
            for trial, course in zip(trials, courses, strict=True)
        ]

    def origin_losses(self, corpus: Corpus, training: Training) -> Losses:
        """Return the held-out losses of the origin itself, on what trials are evaluated on."""
        assert self._origin is not None, "random weights are no origin"
        device = resolve_device(training.device)
        passes = self._passes(corpus.vocab_size, device, self._document_ends(corpus))
        shape = (self.size.sequence_length, self.size.batch)
        evaluations = Evaluations.of(corpus, *shape, training, device)
        with thread_limit(training.threads), memory_kept(device):
            return untrained_losses(passes, self._origin, evaluations)

    def parameters(self, vocab_size: int) -> int:
        """Return how many weights a trial has."""
        return self.size.parameters(self._ids(vocab_size))

    def tokens_per_second(self, vocab_size: int, training: Training) -> float:
        """Return how fast one worker trains, by half a second of steps that are not compiled."""
        device = resolve_device(training.device)
        members = members_by_rule(self.size, self._ids(vocab_size), device)
        ends = (0,) if self._mask_documents else ()  # as fast as with any id
        with thread_limit(training.threads), memory_kept(device):
            return Tuner(members, self._passes(vocab_size, device, ends)).rate()

    def _passes_of(self, members: int, corpus: Corpus, training: Training) -> Passes:
        """Return what computes the steps of a group, compiled where that pays."""
        device = resolve_device(training.device)
        flops = self.size.step_flops(self._ids(corpus.vocab_size)) * self._steps(training) * members
        compiled = should_compile(self._compile, device, flops)
        ends = self._document_ends(corpus)
        return self._passes(corpus.vocab_size, device, ends, compiled=compiled)

    def _document_ends(self, corpus: Corpus) -> tuple[int, ...]:
        return document_ends(corpus) if self._mask_documents else ()

    def _passes(
        self,
        vocab_size: int,
        device: torch.device,
        document_ends: tuple[int, ...],
        *,
        compiled: bool = False,
    ) -> Passes:
        # Kept from group to group, and with them what was compiled.
        key = (vocab_size, device, document_ends, compiled)
        if key not in self._made:
            self._made[key] = Passes(
                self.size,
                self._ids(vocab_size),
                device=device,
                dtype=resolve_precision(self._precision, device),
                compiled=compiled,
                document_ends=document_ends,
            )
        return self._made[key]

    def _check_rates(self, steps: int) -> None:
        if self._origin is None:
            self.size.check_steps(steps)
        else:
            self._origin.rates(steps)

    def _ids(self, of_corpus: int) -> int:
        return of_corpus if self._vocab_size is None else self._vocab_size

    def _steps(self, training: Training) -> int:
        return steps_of(training, self.size.step_tokens)


FULL_TOKENS = {"cpu": 2048, "cuda": 32_768}
# Of all memory of a host, which other workers share, and of what is free on a GPU.
MEMORY_SHARE = {"cpu": 0.25, "cuda": 0.5}
SECONDS_EACH = 0.5
MIN_STEPS = 3
GAIN = 1.05


def members_by_rule(size: DecoderSize, vocab_size: int, device: torch.device) -> int:
    """Return the power of two that brings the tokens of a step to where a machine is full."""
    most = usable_memory(device) - shared_bytes(vocab_size, device)
    fitting = max(0, most) // member_bytes(size, vocab_size)
    return power_of_two(min(FULL_TOKENS[device.type] // size.step_tokens, fitting))


def candidates(rule: int) -> list[int]:
    """Return the group sizes to measure: the rule's, its half and its double."""
    return [rule] if rule == 1 else [rule // 2, rule, rule * 2]


def fastest(sizes: list[int], rate: Callable[[int], float]) -> int:
    """Return the group size with the best rate; a larger one must be faster by `GAIN`."""
    if len(sizes) == 1:
        return sizes[0]
    best, best_rate = sizes[0], rate(sizes[0])
    for members in sizes[1:]:
        found = rate(members)
        if found > GAIN * best_rate:
            best, best_rate = members, found
    return best


class Tuner:
    """Takes steps of a stack on random tokens: to measure it, or to have it compiled."""

    def __init__(self, members: int, passes: Passes) -> None:
        size, self._device = passes.size, passes.device
        self._step_tokens = members * size.step_tokens
        trials = [Trial(f"tune-{k}", Mixture({"any": 1.0}), seed=k) for k in range(members)]
        self._trainer = StackTrainer(trials, passes, steps=1)
        shape = (members, size.batch, size.sequence_length + 1)
        generator = torch.Generator().manual_seed(0)
        tokens = torch.randint(passes.vocab_size, shape, generator=generator)
        self._tokens = tokens.to(passes.device)

    def step(self) -> None:
        """Take a step and wait for it."""
        self._trainer.step(self._tokens)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def rate(self) -> float:
        """Return the tokens per second of half a second of steps; 0 if memory is too short."""
        try:
            for _ in range(FIRST_STEPS + 1 if self._device.type == "cuda" else 1):
                self.step()
        except torch.OutOfMemoryError:
            return 0.0
        steps, start = 0, time.perf_counter()
        while steps < MIN_STEPS or time.perf_counter() - start < SECONDS_EACH:
            self.step()
            steps += 1
        return steps * self._step_tokens / (time.perf_counter() - start)


def usable_memory(device: torch.device) -> int:
    """Return the bytes of memory to fill: a share of the host's, or of what is free on a GPU."""
    if device.type == "cuda":
        free, _total = torch.cuda.mem_get_info(device)
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(MEMORY_SHARE["cuda"] * (free + kept))
    import psutil

    return int(MEMORY_SHARE["cpu"] * psutil.virtual_memory().total)


def shared_bytes(vocab_size: int, device: torch.device) -> int:
    """Return the memory of what all members take in turns: a large vocabulary's logits, fp32."""
    return 4 * CHUNK_LOGITS[device.type] if vocab_size >= LARGE_VOCABULARY else 0


def member_bytes(size: DecoderSize, vocab_size: int) -> int:
    """Estimate the memory of one member: five fp32 copies of the weights, and activations."""
    inner, copies = size.ff, 0
    if size.experts is not None:
        inner = size.experts.top_k * size.experts.expert_ff
        copies = 4 * size.experts.top_k * size.width
    # Weights, two moments, gradients as they come and in one piece, and a copy in bf16.
    states = 22 * size.parameters(vocab_size)
    logits = 0 if vocab_size >= LARGE_VOCABULARY else 2 * vocab_size
    channels = size.layers * (10 * size.width + 4 * inner + copies) + logits
    scores = size.layers * size.heads * min(size.sequence_length, 256)
    return states + 4 * size.step_tokens * (channels + scores)


def power_of_two(number: int) -> int:
    """Return the largest power of two that is not above a number, at least 1."""
    return 1 << max(number.bit_length() - 1, 0) if number > 0 else 1
