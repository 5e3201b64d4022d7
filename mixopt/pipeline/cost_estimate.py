"""What an experiment costs: tokens, FLOPs, time here, GPU hours, scoring of tasks."""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mixopt.config import DomainConfig
from mixopt.corpus import (
    BYTES,
    Corpus,
    Domain,
    TokenShards,
    TokenWriter,
    counted_tokens,
    known_vocabulary,
    plain_name,
    true_inventory,
)
from mixopt.errors import CorpusError
from mixopt.mixture import Mixture
from mixopt.run_directory import PREPARE, Run
from mixopt.system import share_text, short_count
from mixopt.trials import Proxy, Training, Trial, make_proxy

if TYPE_CHECKING:
    from mixopt.config import Config, SourceConfig

BYTES_PER_TOKEN = 4.0  # of a trained tokenizer on plain text, about; measured once it is prepared
Basis = Literal["stated", "prepared", "estimated", "unknown"]


@dataclass(frozen=True)
class KnownSizes:
    """Sizes of whole domains and of what is prepared of them."""

    inventory: dict[str, int] | None
    sample: dict[str, int] | None
    basis: Basis
    vocab_size: int

    @property
    def is_exact(self) -> bool:
        """Whether what follows from the sizes can be refused."""
        return self.basis in ("stated", "prepared")


def known_sizes(config: Config, out: Path | None, source: str) -> KnownSizes:
    """Return the sizes that an experiment states, or that its run has prepared."""
    corpus = None if out is None else _prepared(Run(out, config, source))
    if corpus is not None:
        inventory = true_inventory(config.corpus.domains, corpus, where=source)
        return KnownSizes(inventory, corpus.inventory, "prepared", corpus.vocab_size)
    rate = 1.0 if plain_name(config.corpus.tokenizer) == BYTES else 1 / BYTES_PER_TOKEN
    vocabulary = known_vocabulary(config.corpus.tokenizer)
    return KnownSizes(*_stated(config, rate), vocabulary)


def _stated(
    config: Config, rate: float
) -> tuple[dict[str, int] | None, dict[str, int] | None, Basis]:
    sources = config.corpus.domains
    read = {name: _to_read(name, source, config, rate) for name, source in sources.items()}
    sample = {name: tokens for name, tokens in read.items() if tokens is not None}
    known = sample if len(sample) == len(sources) else None
    if not all(source.is_sized for source in sources.values()):
        return None, known, "unknown"
    inventory = {name: _size(source, rate) for name, source in sources.items()}
    exact = rate == 1.0 or all(source.tokens is not None for source in sources.values())
    return inventory, known, "stated" if exact else "estimated"


def _to_read(name: str, source: SourceConfig, config: Config, rate: float) -> int | None:
    """Return the tokens that will be read of a domain, where that is known beforehand."""
    if isinstance(source, DomainConfig) and source.mixed is not None:
        return source.mixed.tokens
    if source.is_tokens:
        try:
            return counted_tokens(name, source)[1]
        except CorpusError:  # the check of sources says why
            return None
    most = source.max_bytes or config.corpus.max_bytes
    if most is None:
        return None
    read = max(1, round(most * rate))
    return min(read, _size(source, rate)) if source.is_sized else read


def _size(source: SourceConfig, rate: float) -> int:
    """Return the stated size of a whole domain in tokens."""
    return source.tokens or max(1, round((source.bytes or 0) * rate))


def _prepared(run: Run) -> Corpus | None:
    """Return the corpus of a run, where it is of this configuration."""
    index = run.path / "corpus" / "index.json"
    if not index.exists():
        return None
    recorded = run.log.records.get(PREPARE.name)
    if recorded is None or recorded.fingerprint != run.log.fingerprint(PREPARE.name):
        return None
    return run.corpus


_RESULT, _PAGE = 4_000, 2_000_000  # bytes of a trial's file; of the report and its figures
VALIDATION = "validation"


@dataclass(frozen=True)
class TrainingPart:
    """Trials of one part of a run."""

    name: str
    least: int
    most: int
    tokens: int

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {"part": self.name, "least": self.least, "most": self.most, "tokens": self.tokens}


@dataclass(frozen=True)
class Costs:
    """What an experiment trains and writes."""

    parts: tuple[TrainingPart, ...]
    parameters: int | None
    tokens_per_second: float | None
    workers: int
    written: dict[str, int]

    @property
    def tokens(self) -> tuple[int, int]:
        """Training tokens of all trials, at least and at most."""
        least = sum(part.least * part.tokens for part in self.parts)
        return least, sum(part.most * part.tokens for part in self.parts)

    @property
    def flops(self) -> tuple[float, float] | None:
        """Operations of all trials, at least and at most; None without parameters."""
        if self.parameters is None:
            return None
        least, most = self.tokens
        return 6.0 * self.parameters * least, 6.0 * self.parameters * most

    @property
    def seconds(self) -> tuple[float, float] | None:
        """How long training takes here, at least and at most; None where it was not measured."""
        if not self.tokens_per_second:
            return None
        rate = self.tokens_per_second * self.workers
        least, most = self.tokens
        return least / rate, most / rate

    def gpu_hours(self, peak_tflops: float, utilisation: float) -> tuple[float, float] | None:
        """Return the hours of a GPU with this peak, of which this share is used."""
        if self.flops is None:
            return None
        rate = peak_tflops * 1e12 * utilisation * 3600
        return self.flops[0] / rate, self.flops[1] / rate


def training_parts(config: Config) -> tuple[TrainingPart, ...]:
    """Return how many trials an experiment trains, by part."""
    design, proxy, validation = config.design, config.proxy, config.validation
    first = design.first_trials
    later = design.trials - design.first_round
    baselines = len(validation.baselines)
    least = (1 + baselines) * validation.seeds
    most = (validation.rounds + baselines) * validation.most_seeds
    parts = [
        TrainingPart("first round", first, first, proxy.tokens),
        TrainingPart("later rounds", 0 if design.stop_gain else later, later, proxy.tokens),
        TrainingPart(VALIDATION, least, most, validation.tokens or 2 * proxy.tokens),
    ]
    return tuple(part for part in parts if part.most)


def written_bytes(
    config: Config, parts: tuple[TrainingPart, ...], sample: dict[str, int] | None, vocab_size: int
) -> dict[str, int]:
    """Return about how many bytes a run writes, by folder or file."""
    width = 2 if vocab_size <= 1 << 16 else 4
    corpus = {} if sample is None else {"corpus": width * sum(sample.values())}
    held = sum(part.most for part in parts if part.name == VALIDATION)
    trials = sum(part.most for part in parts) - held
    return {**corpus, "trials": _RESULT * trials, VALIDATION: _RESULT * held, "report": _PAGE}


FORWARD = 3  # times less than a step of training


@dataclass(frozen=True)
class ScoringCost:
    """What scoring reads in one trial of the sweep."""

    tasks: int
    items: int
    tokens: int
    times: int
    share: float

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as plain values."""
        return asdict(self)

    def describe(self) -> str:
        """Say what it is in a line."""
        times = "once" if self.times == 1 else f"{self.times} times"
        tasks = "1 task" if self.tasks == 1 else f"{self.tasks} tasks"
        return (
            f"{tasks}, {self.items:,} items, about {short_count(self.tokens)} tokens {times} a"
            f" trial: {share_text(self.share)} of its training"
        )


def scoring_cost(config: Config) -> ScoringCost | None:
    """Read the items of all tasks, and return what scoring them costs; None without tasks."""
    from mixopt.corpus import BYTES, plain_name, scored_items

    if config.tasks is None:
        return None
    count = size = 0
    for name in config.tasks.sets:
        items = scored_items(config.tasks, name)
        size += sum(len((item.context + item.continuation).encode()) for item in items)
        count += len(items)
    tokens = (
        size if plain_name(config.corpus.tokenizer) == BYTES else math.ceil(size / BYTES_PER_TOKEN)
    )
    every, trained = config.proxy.eval_every, config.proxy.tokens
    times = math.ceil(trained / every) if every else 1
    share = tokens * times / FORWARD / trained
    return ScoringCost(len(config.tasks.sets), count, tokens, times, share)


SECONDS = 1.0  # that the last of the growing trainings takes, at least
FIRST_TOKENS, TIMES, CORPUS_TOKENS = 10_000, 4, 200_000


@dataclass(frozen=True)
class Speed:
    """What a trial costs here."""

    tokens_per_second: float
    parameters: int | None


def proxy_parameters(proxy: Proxy, vocab_size: int) -> int | None:
    """Return the weights of a trial; None where the proxy does not say before it trains."""
    count: Any = getattr(proxy, "parameters", None)
    return int(count(vocab_size)) if callable(count) else None


def measured_speed(
    name: str, options: dict[str, Any], vocab_size: int, training: Training
) -> Speed:
    """Measure a proxy; a second call with the same values measures nothing."""
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
