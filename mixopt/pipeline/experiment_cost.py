"""Cost of an experiment: sizes, tokens, FLOPs, time on this machine, scoring of tasks."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mixopt.config import DomainConfig, chosen_losses
from mixopt.corpus import (
    BYTES,
    Corpus,
    counted_tokens,
    known_size,
    plain_name,
    scored_items,
    true_inventory,
)
from mixopt.errors import CorpusError
from mixopt.mixture import Mixture, Phases
from mixopt.run_directory import PREPARE, Run
from mixopt.system import first_few, one_blas_thread, share_text, short_count
from mixopt.trials import Proxy, Training

if TYPE_CHECKING:
    from mixopt.config import Config, SourceConfig
    from mixopt.constraints import Constraints
    from mixopt.fitting import ArmPower

BYTES_PER_TOKEN = 4.0  # estimate for a trained tokenizer on plain text, before it is prepared
USUAL_IDS = 50_000  # vocabulary size of an unknown tokenizer
Basis = Literal["stated", "prepared", "estimated", "unknown"]
Range = tuple[float, float]  # minimum and maximum


@dataclass(frozen=True)
class KnownSizes:
    """Tokens of whole domains and of their prepared samples, and the source of these figures."""

    inventory: dict[str, int] | None
    sample: dict[str, int] | None
    basis: Basis
    vocab_size: int


def known_sizes(config: Config, out: Path | None, source: str) -> KnownSizes:
    """Return the sizes of a run's prepared corpus, or those stated in the configuration."""
    corpus = None if out is None else _prepared(Run(out, config, source))
    if corpus is not None:
        inventory = true_inventory(config.corpus.domains, corpus, where=source)
        return KnownSizes(inventory, corpus.inventory, "prepared", corpus.vocab_size)
    sources = config.corpus.domains
    rate = 1.0 if plain_name(config.corpus.tokenizer) == BYTES else 1 / BYTES_PER_TOKEN
    vocabulary = known_size(config.corpus.tokenizer) or USUAL_IDS
    read = {name: _to_read(name, source, config, rate) for name, source in sources.items()}
    sample = {name: tokens for name, tokens in read.items() if tokens is not None}
    known = sample if len(sample) == len(sources) else None
    inventory = {name: size for name, one in sources.items() if (size := _size(one, rate))}
    if len(inventory) < len(sources):
        return KnownSizes(None, known, "unknown", vocabulary)
    exact = rate == 1.0 or all(source.tokens is not None for source in sources.values())
    return KnownSizes(inventory, known, "stated" if exact else "estimated", vocabulary)


def _to_read(name: str, source: SourceConfig, config: Config, rate: float) -> int | None:
    """Return the tokens that will be read from a domain; None if unknown."""
    if isinstance(source, DomainConfig) and source.mixed is not None:
        return source.mixed.tokens
    if source.is_tokens:
        try:
            return counted_tokens(name, source)[1]
        except CorpusError:  # reported by the check of sources
            return None
    most = source.max_bytes or config.corpus.max_bytes
    if most is None:
        return None
    read = max(1, round(most * rate))
    return min(read, _size(source, rate) or read)


def _size(source: SourceConfig, rate: float) -> int | None:
    """Return the stated tokens of the whole domain; None without them."""
    return max(1, round(source.bytes * rate)) if source.bytes else source.tokens


def _prepared(run: Run) -> Corpus | None:
    recorded, index = run.log.records.get(PREPARE.name), run.path / "corpus" / "index.json"
    is_own = recorded and recorded.fingerprint == run.log.fingerprint(PREPARE.name)
    return run.corpus if is_own and index.exists() else None


RESULT_BYTES, REPORT_BYTES = 4_000, 2_000_000  # size of a trial's file; of report and figures
VALIDATION = "validation"
MAX_SHORTAGES = 5  # domains named in a line
FORWARD = 3  # cost of a training step in forward passes


@dataclass(frozen=True)
class TrainingPart:
    """Numbers of trials in one part of a run, and tokens of each."""

    part: str
    least: int
    most: int
    tokens: int


def _evaluations(config: Config) -> int:
    every, trained = config.proxy.eval_every, config.proxy.tokens
    return math.ceil(trained / every) if every else 1


def evaluation_tokens(config: Config) -> float:
    """Return the cost of a trial's held-out losses in training tokens."""
    domains = len({**config.corpus.sources, **config.evaluation})
    return domains * config.proxy.eval_tokens * _evaluations(config) / FORWARD


def training_parts(config: Config, *, validates: bool = True) -> tuple[TrainingPart, ...]:
    """Return the number of trials in each part of a run."""
    design, proxy, validation = config.design, config.proxy, config.validation
    later = design.trials - design.first_round
    baselines = len(validation.baselines)
    least = (1 + baselines) * validation.seeds
    most = (validation.rounds + baselines) * validation.most_seeds
    parts = [
        TrainingPart("first round", design.first_trials, design.first_trials, proxy.tokens),
        TrainingPart("later rounds", later, later, proxy.tokens),
        TrainingPart(VALIDATION, least, most, validation.tokens or 2 * proxy.tokens),
    ]
    return tuple(part for part in (parts if validates else parts[:-1]) if part.most)


def written_bytes(
    parts: Sequence[TrainingPart], sizes: KnownSizes, sources: Mapping[str, SourceConfig]
) -> dict[str, int]:
    """Estimate the bytes that a run writes, by folder or file."""
    width = 2 if sizes.vocab_size <= 1 << 16 else 4
    # A trainer's own data has sizes but no text that is copied.
    sample = sizes.sample or {}
    here = [size for n, size in sample.items() if n not in sources or sources[n].has_text]
    held = sum(part.most for part in parts if part.part == VALIDATION)
    trials = sum(part.most for part in parts) - held
    by_part = {"corpus": width * sum(here), "trials": RESULT_BYTES * trials}
    by_part |= {VALIDATION: RESULT_BYTES * held, "report": REPORT_BYTES}
    return {name: size for name, size in by_part.items() if size}


@dataclass(frozen=True)
class ScoringCost:
    """Cost of scoring tasks in one trial of the sweep."""

    tasks: int
    items: int
    tokens: int
    times: int
    share: float

    def __str__(self) -> str:
        times = "once" if self.times == 1 else f"{self.times} times"
        return (
            f"{self.tasks} task{'s' * (self.tasks != 1)}, {self.items:,} items, about"
            f" {short_count(self.tokens)} tokens {times} a trial: {share_text(self.share)} of its"
            " training"
        )


def scoring_cost(config: Config) -> ScoringCost | None:
    """Return the cost of scoring all tasks in a trial; None without tasks."""
    if config.tasks is None:
        return None
    sets = [scored_items(config.tasks, name) for name in config.tasks.sets]
    size = sum(len((one.context + one.continuation).encode()) for items in sets for one in items)
    is_bytes = plain_name(config.corpus.tokenizer) == BYTES
    tokens = size if is_bytes else math.ceil(size / BYTES_PER_TOKEN)
    times = _evaluations(config)
    share = tokens * times / FORWARD / config.proxy.tokens
    return ScoringCost(len(sets), sum(map(len, sets)), tokens, times, share)


PRODUCT_SECONDS = 0.1
PRODUCT_SHARE = 0.7  # of that speed is reached by decoders of 0.1M to 60M parameters


def proxy_parameters(proxy: Proxy, vocab_size: int) -> int | None:
    """Return the parameters of a trial's model; None if the proxy does not report them."""
    count: Any = getattr(proxy, "parameters", None)
    return int(count(vocab_size)) if callable(count) else None


def trial_speed(
    config: Config, proxy: Proxy, vocab_size: int, devices: Sequence[str]
) -> float | None:
    """Return tokens per second of a trial on this machine; None if the proxy has no measure."""
    flops: Any = getattr(proxy, "flops_per_token", None)
    if callable(flops) and set(devices) == {"cpu"}:
        return estimated_speed(flops(vocab_size))
    measured: Any = getattr(proxy, "tokens_per_second", None)
    if not callable(measured):
        return None
    request = config.proxy
    training = Training(request.tokens, eval_tokens=request.eval_tokens, device=request.device)
    return float(measured(vocab_size, training))


def estimated_speed(flops_per_token: float) -> float:
    """Estimate tokens per second of a worker on one core from the speed of matrix products."""
    side, products = np.random.default_rng(0).random((256, 256), dtype=np.float32), 0
    with one_blas_thread(len(side)):
        np.matmul(side, side)  # warm-up
        start = time.process_time()
        while time.process_time() - start < PRODUCT_SECONDS:
            np.matmul(side, side)
            products += 1
        seconds = time.process_time() - start
    return PRODUCT_SHARE * 2 * products * len(side) ** 3 / seconds / flops_per_token


def shortage_lines(
    config: Config,
    sample: Mapping[str, int],
    inventory: Mapping[str, int],
    most: Mapping[str, float],
) -> Iterator[str]:
    """Yield a warning that names domains whose prepared sample is too small for a trial."""
    corpus = config.corpus
    here = [n for n in sample if corpus.prepared is not None or corpus.domains[n].has_text]
    shortages = [
        _shortage(config, name, sample[name], inventory[name], most[name]) for name in here
    ]
    short = sorted((one for one in shortages if one is not None), key=lambda one: -one[0])
    if short:
        names = first_few([text for _, text in short], MAX_SHORTAGES)
        yield (
            f"the prepared text is small for proxy.tokens: a trial may repeat {names}, more"
            " often than the full run; prepare more text, lower proxy.tokens, or cap these domains"
            " in constraints.bounds"
        )


def _shortage(
    config: Config, name: str, sample: int, inventory: int, weight: float
) -> tuple[float, str] | None:
    """Return the epochs of a sample that is too small, and a text about it; else None."""
    from mixopt.fitting import OFTEN

    tokens, target = config.proxy.tokens, config.propose.target_tokens
    epochs = weight * tokens / sample
    if config.proxy.simulate_epochs and target is not None:
        needed, is_often = min(inventory * min(tokens / target, 1.0), weight * tokens), True
    else:
        needed = weight * tokens / max(weight * (target or 0) / inventory, 1.0)
        is_often = epochs > OFTEN
    if not is_often or needed <= 1.01 * sample:  # 1%: rounding to whole steps
        return None
    short = short_count(round(needed))
    return epochs, f"{name} {epochs:.1f} times at a weight of {weight:.2g} ({short} tokens needed)"


def largest_weights(config: Config, natural: Mixture, constraints: Constraints) -> dict[str, float]:
    """Return the largest weight of each domain in any mixture of the design."""
    from mixopt.trials import anneal_mixtures, design_constraints

    design = config.design
    if design.anneals is not None and len(design.planned_rounds) == 1:
        tried = [mixture for _, mixture in anneal_mixtures(design.anneals, natural)]
        return {name: max(mixture[name] for mixture in tried) for name in natural}
    allowed = design_constraints(design, natural, constraints)
    most = dict(zip(allowed.domains, allowed.upper_D.tolist(), strict=True))
    if (lengths := design.phases) is None:
        return most
    names = Phases(lengths).names(most)
    return {n: min(1.0, sum(min(most[f"{p}/{n}"], lengths[p]) for p in lengths)) for n in names}


# Standard deviation of a metric over arms: the median over 17 metrics of 384 published fine-tuning
# runs is .7 to .8 points, noise included.
SPREAD_OF_ARMS = 0.01


def planned_arms(config: Config) -> dict[str, tuple[str, ArmPower]]:
    """Return, for each share of right answers, a line and figures on the power to rank the trials.

    Before there are trials, the noise is its maximum for the number of questions, at p = 1/2.
    """
    items = chosen_losses(config.resolved_objective, config.losses).items
    if not items:
        return {}
    from mixopt.fitting import power

    arms, powers = config.design.trials, {}
    for name, count in items.items():
        noise = math.sqrt(0.25 / count)
        one = power(noise, SPREAD_OF_ARMS, arms, items=count)
        enough = "" if one.items is None else f"; {short_count(one.items)} questions make it 80%"
        if not config.design.anchors and config.design.anneals is None:
            enough += "; no arm is a control: set design.anchors: [natural]"
        line = (
            f"{name}, {count} questions: an error of up to {100 * noise:.1f} points; the best of"
            f" {arms} arms that differ by {100 * SPREAD_OF_ARMS:g} is told from the control with"
            f" probability {one.power:.0%}{enough}"
        )
        powers[name] = line, one
    return powers
