"""The training data of a trial: sequences in the exact proportions of its mixture.

The number of sequences of each domain over the whole trial is its share rounded by largest
remainder, so the realised shares are off by less than one sequence; their order is random. A
domain's rows are its non-overlapping windows in a random order, from a random offset, then again
from another offset for the next epoch. All randomness comes from the trial's own seed. With
simulated epochs, a domain's rows are those of its pool (mixopt.loading.simulated_epochs): windows
at multiples of the sequence length.

Shapes: K members, D domains, S sequences of a trial, B sequences of a step, T tokens.
"""

import math
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mixopt.corpus import Corpus, Domain, TokenShards
from mixopt.errors import ConfigError, CorpusError
from mixopt.loading import Pool, make_pools
from mixopt.mixture import Phases, whole_counts
from mixopt.sweeps import Training
from mixopt.system import IntArray
from mixopt.trials import Trial

PAIRED = ("control", "anneal")  # roles of trials with common seeds and text
PREFETCHED = 2  # blocks


class TrialBatches:
    """The batches of a group of trials, read in blocks from the token shards."""

    def __init__(
        self,
        trials: Sequence[Trial],
        corpus: Corpus,
        training: Training,
        *,
        batch: int,
        length: int,
    ) -> None:
        """Draw every trial's sequences; read no text."""
        steps = steps_of(training, length * batch)
        self._phases = None if training.phases is None else Phases(training.phases)
        self._shards = [training_shards(domain, length) for domain in corpus.domains]
        self._pools = pools_of(corpus, steps * batch * length, length, training)
        self.domains = corpus.domain_names
        self._batch = batch
        self._length = length
        drawn = [self._draw(trial, steps * batch) for trial in trials]
        self.domain_KS = np.stack([domain_S for domain_S, _ in drawn])
        self._start_KS = np.stack([start_S for _, start_S in drawn])

    def block(self, first: int, stop: int) -> NDArray[np.int32]:
        """Return the tokens of steps [first, stop), shape (steps, K, B, T + 1)."""
        part = slice(first * self._batch, stop * self._batch)
        domain_KS = self.domain_KS[:, part]
        start_KS = self._start_KS[:, part]
        tokens_KSW = np.empty((*domain_KS.shape, self._length + 1), np.int32)
        for d in np.unique(domain_KS).tolist():
            in_domain = domain_KS == d
            tokens_KSW[in_domain] = self._shards[d].rows(start_KS[in_domain], self._length + 1)
        by_step = tokens_KSW.reshape(len(domain_KS), stop - first, self._batch, -1)
        return np.ascontiguousarray(by_step.swapaxes(0, 1))

    def _draw(self, trial: Trial, sequences: int) -> tuple[IntArray, IntArray]:
        """Return the domain and the start of each sequence, shape (S,)."""
        domain_S = self._domains_of(trial, sequences)
        start_S = np.empty(sequences, np.int64)
        for d, name in enumerate(self.domains):
            generator = random_generator(trial.seed, f"rows of {name}")
            in_domain = domain_S == d
            count = int(in_domain.sum())
            if name in self._pools:
                start_S[in_domain] = self._pools[name].draw(count, generator) * self._length
            else:
                start_S[in_domain] = window_starts(
                    self._shards[d].tokens,
                    self._length + 1,
                    count,
                    generator,
                    nested=trial.role in PAIRED,
                )
        return domain_S, start_S

    def _domains_of(self, trial: Trial, sequences: int) -> IntArray:
        """Return the domain of each sequence, phases in order and in whole steps, shape (S,)."""
        parts = {"": trial.mixture}
        ends = [sequences]
        if self._phases is not None:
            parts = self._phases.split(trial.mixture)
            steps = np.cumsum(list(self._phases.values())) * sequences / self._batch
            ends = (np.rint(steps).astype(int) * self._batch).tolist()
        drawn = []
        for (phase, mixture), count in zip(parts.items(), np.diff(ends, prepend=0), strict=True):
            counts_D = whole_counts(mixture.over(self.domains).array, int(count))
            domain_S = np.repeat(np.arange(len(counts_D)), counts_D)
            random_generator(trial.seed, f"order {phase}".strip()).shuffle(domain_S)
            drawn.append(domain_S)
        return np.concatenate(drawn)


def steps_of(training: Training, step_tokens: int) -> int:
    """Return the number of steps of a trial."""
    return max(1, math.ceil(training.tokens / step_tokens))


def part_of(training: Training, step_tokens: int) -> tuple[int, int]:
    """Return the step before which this part of the training begins, and that which ends it.

    Raises:
        ConfigError: No step would be before or after the cut.
    """
    steps = steps_of(training, step_tokens)
    begin, end = training.part
    first = round(begin * steps)
    last = round(end * steps)
    if not first < last or (end < 1 and last == steps):
        raise ConfigError(
            f"sweep.stop.at: {last} of a trial's {steps} steps of {step_tokens} tokens; raise or"
            " lower it, raise proxy.tokens, or leave sweep.stop out"
        )
    return first, last


def pools_of(corpus: Corpus, tokens: int, length: int, training: Training) -> dict[str, Pool]:
    """Return each domain's pool for trials of `tokens` tokens."""
    counts = {}
    for domain in corpus.domains:
        counts[domain.name] = (training_shards(domain, length).tokens - 1) // length
    return make_pools(
        corpus,
        counts,
        tokens=tokens,
        target_tokens=training.target_tokens,
        length=length,
        option="proxy.options.sequence_length",
        inventory=training.inventory,
    )


def window_starts(
    tokens: int, window: int, count: int, generator: np.random.Generator, *, nested: bool
) -> IntArray:
    """Draw non-overlapping windows by epoch; `nested`: a smaller draw is a prefix of a larger."""
    starts_S = np.empty(0, np.int64)
    while (missing := count - len(starts_S)) > 0:
        offset = int(generator.integers(min(window, tokens - window + 1)))
        windows = (tokens - offset) // window
        if nested:
            drawn = generator.permutation(windows)[:missing]
        else:
            drawn = generator.choice(windows, size=min(missing, windows), replace=False)
        starts_S = np.append(starts_S, offset + window * drawn)
    return starts_S


def random_generator(seed: int, purpose: str) -> np.random.Generator:
    """Return a trial's random generator for one purpose, independent of its other generators."""
    return np.random.default_rng([seed, zlib.crc32(purpose.encode())])


def training_shards(domain: Domain, length: int) -> TokenShards:
    """Return a domain's training tokens."""
    if domain.train is None:
        raise CorpusError(f"domain {domain.name!r} has no training tokens")
    return long_enough(domain.train, f"domain {domain.name!r}: training text", length)


def long_enough(shards: TokenShards, name: str, length: int) -> TokenShards:
    """Return the shards; raise if they have fewer than `length` + 1 tokens."""
    if shards.tokens < length + 1:
        raise CorpusError(
            f"{name} has {shards.tokens} tokens, but one sequence takes {length + 1}: add text,"
            f" or set proxy.options.sequence_length to {shards.tokens - 1} or less"
        )
    return shards


def blocks(
    read: Callable[[int, int], NDArray[np.int32]],
    spans: list[tuple[int, int]],
    device: torch.device,
) -> Iterator[tuple[int, Tensor]]:
    """Yield the first step of each block and its tokens as int64, prefetched by a thread."""

    def host_block(span: tuple[int, int]) -> Tensor:
        block = torch.from_numpy(read(*span))
        return block.pin_memory() if device.type == "cuda" else block

    with ThreadPoolExecutor(1, thread_name_prefix="tokens") as pool:
        ahead = deque[Future[Tensor]]()
        for place, (first, _) in enumerate(spans):
            unread = spans[place + len(ahead) : place + 1 + PREFETCHED]
            ahead.extend(pool.submit(host_block, span) for span in unread)
            yield first, ahead.popleft().result().to(device, non_blocking=True).long()
