"""The training data of a trial: sequences in the exact proportions of its mixture.

The number of sequences of each domain over the whole trial is its share rounded by largest
remainder, so the realised shares are off by less than one sequence; their order is random. A
domain's rows are its non-overlapping windows in a random order, from a random offset, and again
from another offset when they are used up. All of it comes from the trial's own seed. Where epochs
are simulated, a domain's rows are those of its pool (mixopt.trials.simulated_epochs), whose
sequences are windows that begin a sequence apart.

Shapes: K members, D domains, S sequences of a trial, B sequences of a step, T tokens.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mixopt.corpus import Corpus, Domain, TokenShards
from mixopt.errors import CorpusError
from mixopt.system import Array, IntArray
from mixopt.trials import Pool, SimulatedEpochs, Trial

PAIRED = ("control", "anneal")  # roles of trials that share their seeds and their text


class TrialBatches:
    """The batches of a group of trials, read block by block from the token shards.

    Attributes:
        domains: Names of the domains.
        domain_KS: Domain of each sequence, in the order in which they are trained on.
    """

    def __init__(
        self,
        trials: Sequence[Trial],
        corpus: Corpus,
        *,
        steps: int,
        batch: int,
        length: int,
        target_tokens: int | None = None,
        inventory: Mapping[str, int] | None = None,
    ) -> None:
        """Draw every trial's sequences; no text is read yet.

        Args:
            trials: The members of the group.
            corpus: Token shards by domain.
            steps: Steps of a trial.
            batch: Sequences of a step.
            length: Tokens of a sequence.
            target_tokens: Length of the full run whose epochs are simulated, if they are.
            inventory: Distinct tokens of each whole domain; the corpus's when None.

        Raises:
            CorpusError: A domain has fewer tokens than one window of `length` + 1, or its pool
                fewer than one sequence.
        """
        self._shards = [training_shards(domain, length) for domain in corpus.domains]
        self._length = length
        self._pools = make_pools(corpus, steps * batch * length, length, target_tokens, inventory)
        self.domains = corpus.domain_names
        self._batch = batch
        self._window = length + 1
        drawn = [self._draw(trial, steps * batch) for trial in trials]
        self.domain_KS = np.stack([domains for domains, _ in drawn])
        self._start_KS = np.stack([starts for _, starts in drawn])

    def counts(self, k: int) -> IntArray:
        """Return how many sequences member `k` draws from each domain, shape (D,)."""
        return np.bincount(self.domain_KS[k], minlength=len(self._shards))

    def block(self, first: int, stop: int) -> NDArray[np.int32]:
        """Return the tokens of steps [first, stop), shape (steps, K, B, T + 1)."""
        part = slice(first * self._batch, stop * self._batch)
        domain_KS, start_KS = self.domain_KS[:, part], self._start_KS[:, part]
        tokens = np.empty((*domain_KS.shape, self._window), np.int32)
        for d in np.unique(domain_KS).tolist():
            here = domain_KS == d
            tokens[here] = self._shards[d].rows(start_KS[here], self._window)
        by_step = tokens.reshape(len(tokens), stop - first, self._batch, self._window)
        return np.ascontiguousarray(by_step.swapaxes(0, 1))

    def _draw(self, trial: Trial, sequences: int) -> tuple[IntArray, IntArray]:
        counts_D = realised_counts(trial.mixture.over(self.domains).array, sequences)
        domain_S = np.repeat(np.arange(len(counts_D)), counts_D)
        random_generator(trial.seed, "order").shuffle(domain_S)
        start_S = np.empty(sequences, np.int64)
        nested = trial.role in PAIRED
        for d, count in enumerate(counts_D.tolist()):
            generator = random_generator(trial.seed, f"rows of {self.domains[d]}")
            start_S[domain_S == d] = self._starts(d, count, generator, nested=nested)
        return domain_S, start_S

    def _starts(
        self, d: int, count: int, generator: np.random.Generator, *, nested: bool
    ) -> IntArray:
        pool = self._pools.get(self.domains[d])
        if pool is None:
            return window_starts(
                self._shards[d].tokens, self._window, count, generator, nested=nested
            )
        return pool.draw(count, generator) * self._length


def make_pools(
    corpus: Corpus,
    tokens: int,
    length: int,
    target_tokens: int | None,
    inventory: Mapping[str, int] | None = None,
) -> dict[str, Pool]:
    """Return each domain's pool, or none where no epochs are simulated.

    Args:
        corpus: Token shards by domain.
        tokens: Training tokens of a trial, in whole steps.
        length: Tokens of a sequence.
        target_tokens: Length of the full run.
        inventory: Distinct tokens of each whole domain; the corpus's when None.

    Raises:
        CorpusError: A domain has no training tokens, or a pool is smaller than one sequence.
    """
    if target_tokens is None:
        return {}
    option = "proxy.options.sequence_length"
    simulated = SimulatedEpochs(tokens, target_tokens, length, option, inventory)
    counts = {d.name: (training_shards(d, length).tokens - 1) // length for d in corpus.domains}
    return {name: simulated.pool(corpus, name, count) for name, count in counts.items()}


def realised_counts(weights_D: Array, sequences: int) -> IntArray:
    """Round shares of `sequences` to whole ones by largest remainder.

    Returns:
        Shape (D,), adding up to `sequences`, each within 1 of its share.
    """
    exact_D = weights_D * sequences
    counts_D = np.floor(exact_D).astype(np.int64)
    missing = sequences - int(counts_D.sum())
    largest = np.argsort(counts_D - exact_D, kind="stable")[:missing]
    counts_D[largest] += 1
    return counts_D


def window_starts(
    tokens: int,
    window: int,
    count: int,
    generator: np.random.Generator,
    *,
    nested: bool = False,
) -> IntArray:
    """Draw windows that do not overlap, epoch after epoch.

    Args:
        tokens: Tokens of the domain, >= `window`.
        window: Tokens of a window.
        count: Windows to draw.
        generator: Where the order and the offset of each epoch come from.
        nested: Whether fewer windows are the first ones of more: microanneals, which share a seed,
            then read the same text of a base domain in the same order. It takes a number for each
            window of the domain.

    Returns:
        First token of each window, shape (count,).
    """
    epochs: list[IntArray] = [np.empty(0, np.int64)]
    missing = count
    while missing > 0:
        offset = int(generator.integers(min(window, tokens - window + 1)))
        windows = (tokens - offset) // window
        if nested:
            drawn = generator.permutation(windows)[:missing]
        else:
            drawn = generator.choice(windows, size=min(missing, windows), replace=False)
        epochs.append(offset + window * drawn.astype(np.int64))
        missing -= len(drawn)
    return np.concatenate(epochs)


def random_generator(seed: int, purpose: str) -> np.random.Generator:
    """Return the generator of one purpose of a trial, independent of all its others."""
    return np.random.default_rng([seed, zlib.crc32(purpose.encode())])


def training_shards(domain: Domain, length: int) -> TokenShards:
    """Return a domain's training tokens.

    Raises:
        CorpusError: It has none, or fewer than one window of `length` + 1.
    """
    if domain.train is None:
        raise CorpusError(f"domain {domain.name!r} has no training tokens")
    return long_enough(domain.train, f"domain {domain.name!r}: training text", length)


def long_enough(shards: TokenShards, what: str, length: int) -> TokenShards:
    """Return the shards if they hold a window of `length` tokens and the one after.

    Raises:
        CorpusError: They do not.
    """
    if shards.tokens < length + 1:
        raise CorpusError(
            f"{what} has {shards.tokens} tokens, and one sequence takes {length + 1}: give it"
            f" more text, or set proxy.options.sequence_length to {shards.tokens - 1} or less"
        )
    return shards
