"""Train groups of trials of one size of decoder: how many at once, where, and what comes of it.

The proxies that are decoders are made of this: one whose trials begin with random weights, and one
whose trials begin where a checkpoint ended.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from mixopt.corpus import Corpus, document_ends
from mixopt.errors import ConfigError
from mixopt.trials import Losses, Progress, Training, Trial, TrialResult
from mixopt_proxies.decoder.autotune import Tuner, candidates, fastest, members_by_rule
from mixopt_proxies.decoder.batches import TrialBatches, make_pools, training_shards
from mixopt_proxies.decoder.compiling import Compile, should_compile
from mixopt_proxies.decoder.device_precision import (
    Precision,
    resolve_device,
    resolve_precision,
    thread_limit,
)
from mixopt_proxies.decoder.held_out_tasks import HeldOutTasks
from mixopt_proxies.decoder.held_out_windows import HeldOutWindows
from mixopt_proxies.decoder.learning_curve import CurveSample
from mixopt_proxies.decoder.memory import memory_kept
from mixopt_proxies.decoder.named_sizes import DecoderSize
from mixopt_proxies.decoder.origin import StackOrigin
from mixopt_proxies.decoder.passes import Passes
from mixopt_proxies.decoder.trainer import StackTrainer, untrained_losses
from mixopt_proxies.decoder.trial_results import result_of


@dataclass(frozen=True)
class _GroupSetting:
    """Where and how a group runs."""

    device: torch.device
    dtype: torch.dtype
    vocab_size: int
    compiled: bool
    document_ends: tuple[int, ...] = ()


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
        """Note what is trained.

        Args:
            size: Of each member, and how it is trained.
            precision: `float32`, `bfloat16`, or `auto`: bf16 where the hardware has it.
            compile: true, false, or `auto`: where there is a compiler and the run pays it back.
            origin: Where all members begin; None for random weights, each trial's own.
            vocab_size: Ids that the members know; those of the corpus's tokenizer when None.
            mask_documents: Whether documents of a sequence do not see each other.

        Raises:
            ConfigError: A precision or a `compile` that there is not.
        """
        one_of("precision", precision, ("auto", "float32", "bfloat16"))
        one_of("compile", compile, ("auto", True, False))
        self.size = size
        self._precision: Precision = precision
        self._compile: Compile = compile
        self._origin, self._vocab_size = origin, vocab_size
        self._mask_documents = mask_documents
        self._passes: dict[_GroupSetting, Passes] = {}

    def group_size(self, corpus: Corpus, training: Training) -> int:
        """Return how many trials to train together.

        Compiled code on a CPU follows the rule, since measuring would compile every
        candidate; the rule's is compiled here, once, and its code is then on disk for all
        workers. Anything else is measured for a few seconds near the rule, as it will be
        trained: compiled and from a graph on a GPU.

        Raises:
            CorpusError: A domain, or its pool, with fewer tokens than one sequence.
            ConfigError: Warm-up and decay are longer than a trial.
        """
        self._check_rates(self._steps(training))
        for domain in corpus.domains:
            training_shards(domain, self.size.sequence_length)
        tokens, length = self._steps(training) * self.size.step_tokens, self.size.sequence_length
        make_pools(corpus, tokens, length, training.target_tokens, training.inventory)
        device = resolve_device(training.device)
        rule = members_by_rule(self.size, self._ids(corpus.vocab_size), device)
        setting = self._setting(rule, corpus, training)
        with thread_limit(training.threads), memory_kept(device):
            if setting.compiled and device.type == "cpu":
                self._tuner(rule, setting).step()
                return rule
            return fastest(candidates(rule), lambda members: self._tuner(members, setting).rate())

    def train(
        self,
        trials: Sequence[Trial],
        corpus: Corpus,
        training: Training,
        report: Callable[[Progress], None],
    ) -> list[TrialResult]:
        """Train the trials together and return a result for each, in their order.

        Raises:
            CorpusError: A domain with fewer tokens than one sequence.
            ConfigError: A device that is not here, or warm-up and decay longer than a trial.
        """
        started = time.monotonic()
        size, steps = self.size, self._steps(training)
        self._check_rates(steps)
        setting = self._setting(len(trials), corpus, training)
        batches = TrialBatches(
            trials,
            corpus,
            steps=steps,
            batch=size.batch,
            length=size.sequence_length,
            target_tokens=training.target_tokens,
            inventory=training.inventory,
        )
        held_out = HeldOutWindows(corpus, size, training.eval_tokens, setting.device)
        tasks = HeldOutTasks(corpus, size, setting.device)
        sample = CurveSample.of(corpus, size, steps, training.curve_points, setting.device)
        with thread_limit(training.threads), memory_kept(setting.device):
            trainer = StackTrainer(
                trials,
                setting.vocab_size,
                self._passes_for(setting),
                steps=steps,
                device=setting.device,
                dtype=setting.dtype,
                origin=self._origin,
            )
            at = eval_steps(training, size.step_tokens)
            course = trainer.run(batches, held_out, tasks, at, report, sample)
        seconds = (time.monotonic() - started) / len(trials)
        parameters = size.parameters(setting.vocab_size)
        return [
            result_of(trial, course.of_member(k), size.step_tokens, parameters, seconds)
            for k, trial in enumerate(trials)
        ]

    def origin_losses(self, corpus: Corpus, training: Training) -> Losses:
        """Return the held-out losses of the origin itself, on what trials are evaluated on.

        Raises:
            CorpusError: A domain has fewer held-out tokens than one window.
            ConfigError: A device that is not here.
        """
        assert self._origin is not None, "random weights are no origin"
        device = resolve_device(training.device)
        dtype = resolve_precision(self._precision, device)
        ids, ends = self._ids(corpus.vocab_size), self._document_ends(corpus)
        setting = _GroupSetting(device, dtype, ids, compiled=False, document_ends=ends)
        held_out = HeldOutWindows(corpus, self.size, training.eval_tokens, device)
        tasks = HeldOutTasks(corpus, self.size, device)
        passes = self._passes_for(setting)
        with thread_limit(training.threads), memory_kept(device):
            return untrained_losses(passes, setting.vocab_size, self._origin, held_out, tasks)

    def parameters(self, vocab_size: int) -> int:
        """Return how many weights a trial has."""
        return self.size.parameters(self._ids(vocab_size))

    def tokens_per_second(self, vocab_size: int, training: Training) -> float:
        """Return how fast one worker trains, by half a second of steps that are not compiled.

        Raises:
            ConfigError: A device that is not here.
        """
        device, ids = resolve_device(training.device), self._ids(vocab_size)
        members = members_by_rule(self.size, ids, device)
        dtype = resolve_precision(self._precision, device)
        ends = (0,) if self._mask_documents else ()  # as fast as with any id
        setting = _GroupSetting(device, dtype, ids, compiled=False, document_ends=ends)
        with thread_limit(training.threads), memory_kept(device):
            return self._tuner(members, setting).rate()

    def _tuner(self, members: int, setting: _GroupSetting) -> Tuner:
        passes = self._passes_for(setting)
        device, dtype = setting.device, setting.dtype
        return Tuner(members, setting.vocab_size, passes, device=device, dtype=dtype)

    def _setting(self, members: int, corpus: Corpus, training: Training) -> _GroupSetting:
        device, ids = resolve_device(training.device), self._ids(corpus.vocab_size)
        flops = self.size.step_flops(ids) * self._steps(training) * members
        return _GroupSetting(
            device=device,
            dtype=resolve_precision(self._precision, device),
            vocab_size=ids,
            compiled=should_compile(self._compile, device, flops),
            document_ends=self._document_ends(corpus),
        )

    def _document_ends(self, corpus: Corpus) -> tuple[int, ...]:
        return document_ends(corpus) if self._mask_documents else ()

    def _passes_for(self, setting: _GroupSetting) -> Passes:
        # Kept from group to group, and with them what was compiled.
        if setting not in self._passes:
            self._passes[setting] = Passes(
                self.size,
                setting.vocab_size,
                device=setting.device,
                dtype=setting.dtype,
                compiled=setting.compiled,
                document_ends=setting.document_ends,
            )
        return self._passes[setting]

    def _check_rates(self, steps: int) -> None:
        if self._origin is None:
            self.size.check_steps(steps)
        else:
            self._origin.rates(steps)

    def _ids(self, of_corpus: int) -> int:
        return of_corpus if self._vocab_size is None else self._vocab_size

    def _steps(self, training: Training) -> int:
        return steps_of(training, self.size.step_tokens)


def steps_of(training: Training, step_tokens: int) -> int:
    """Return how many steps a trial takes."""
    return max(1, math.ceil(training.tokens / step_tokens))


def eval_steps(training: Training, step_tokens: int) -> set[int]:
    """Return after how many steps held-out text is evaluated, besides at the end."""
    if training.eval_every == 0:
        return set()
    every = max(1, round(training.eval_every / step_tokens))
    return set(range(every, steps_of(training, step_tokens) + 1, every))


def one_of(option: str, value: object, known: tuple[object, ...]) -> None:
    """Refuse a value of an option that it does not have.

    Raises:
        ConfigError: It is none of them.
    """
    if value not in known:
        names = ", ".join(str(entry).lower() for entry in known)
        raise ConfigError(f"proxy.options.{option}: {value!r} must be one of {names}")
