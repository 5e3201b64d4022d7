"""How fast a proxy trains on this machine, by a few seconds of training on random tokens.

A proxy that has `tokens_per_second` measures itself. Any other trains one trial on a corpus of
random tokens in a temporary folder, for longer and longer until that takes about a second.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from mixopt.corpus import Corpus, Domain, TokenShards, TokenWriter
from mixopt.mixture import Mixture
from mixopt.trials import Proxy, Training, Trial, make_proxy

SECONDS = 1.0  # that the last of the growing trainings takes, at least
FIRST_TOKENS, TIMES, CORPUS_TOKENS = 10_000, 4, 200_000


@dataclass(frozen=True)
class Speed:
    """What a trial costs here.

    Attributes:
        tokens_per_second: Of one worker.
        parameters: Of one trial; None where the proxy does not say.
    """

    tokens_per_second: float
    parameters: int | None


def proxy_parameters(proxy: Proxy, vocab_size: int) -> int | None:
    """Return the weights of a trial; None where the proxy does not say before it trains."""
    count: Any = getattr(proxy, "parameters", None)
    return int(count(vocab_size)) if callable(count) else None


def measured_speed(
    name: str, options: dict[str, Any], vocab_size: int, training: Training
) -> Speed:
    """Measure a proxy; a second call with the same values measures nothing.

    Args:
        name: The proxy.
        options: Its options.
        vocab_size: Ids of the tokenizer.
        training: How trials are trained.

    Raises:
        MixoptError: The proxy cannot be made, or cannot train here.
    """
    plain = replace(training, target_tokens=None, inventory=None, eval_every=0, curve_points=0)
    return _measured(name, repr(sorted(options.items())), vocab_size, plain, _Held(options))


@dataclass(frozen=True, eq=False)
class _Held:
    """Options, which are compared by their text."""

    options: dict[str, Any]

    def __hash__(self) -> int:
        return 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held)


@lru_cache(maxsize=16)
def _measured(name: str, _: str, vocab_size: int, training: Training, held: _Held) -> Speed:
    proxy = make_proxy(name, held.options)
    parameters = proxy_parameters(proxy, vocab_size)
    own: Any = getattr(proxy, "tokens_per_second", None)
    if callable(own):
        return Speed(float(own(vocab_size, training)), parameters)
    with tempfile.TemporaryDirectory(prefix="mixopt-probe-") as folder:
        return _by_training(proxy, _random_corpus(Path(folder), vocab_size), training, parameters)


def _by_training(proxy: Proxy, corpus: Corpus, training: Training, parameters: int | None) -> Speed:
    trial, tokens = Trial("probe", Mixture({"any": 1.0}), seed=0), FIRST_TOKENS
    while True:
        tokens = min(tokens, training.tokens)
        start = time.perf_counter()
        asked = replace(training, tokens=tokens, eval_tokens=min(training.eval_tokens, 4_096))
        (result,) = proxy.train([trial], corpus, asked, lambda _: None)
        seconds = time.perf_counter() - start
        if seconds >= SECONDS or tokens == training.tokens:
            return Speed(result.tokens / max(seconds, 1e-9), parameters or result.parameters)
        tokens *= TIMES


def _random_corpus(folder: Path, vocab_size: int) -> Corpus:
    generator = np.random.default_rng(0)
    dtype = np.uint16 if vocab_size <= 1 << 16 else np.uint32
    with TokenWriter(folder / "any", dtype=dtype, tokenizer="random") as writer:
        tokens = generator.integers(0, vocab_size, CORPUS_TOKENS)
        writer.write(tokens, documents=1, bytes=CORPUS_TOKENS)
    shards = TokenShards.open(folder / "any")
    return Corpus(folder, (Domain("any", shards, shards),), (), "random", vocab_size, "random", {})
