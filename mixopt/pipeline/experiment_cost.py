"""Cost of an experiment: sizes, tokens, FLOPs, time on this machine, scoring of tasks."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mixopt.config import Config, DomainConfig, SourceConfig, chosen_losses
from mixopt.constraints import Constraints
from mixopt.corpus import BYTES, counted_tokens, known_size, plain_name, scored_items
from mixopt.errors import CorpusError
from mixopt.fitting import OFTEN, power
from mixopt.mixture import Mixture, Phases
from mixopt.sweeps import Training
from mixopt.system import first_few, one_blas_thread, short_count
from mixopt.trials import anneal_mixtures, design_constraints

BYTES_PER_TOKEN = 4.0  # estimate for a trained tokenizer on plain text, before it is prepared
TYPICAL_VOCABULARY = 50_000  # vocabulary size of an unknown tokenizer
Basis = Literal["stated", "estimated", "unknown"]
Range = tuple[float, float]  # minimum and maximum


@dataclass(frozen=True)
class KnownSizes:
    """Tokens of whole domains and of the samples to prepare, and the source of these figures."""

    inventory: dict[str, int] | None
    sample: dict[str, int] | None
    basis: Basis
    vocab_size: int


def known_sizes(config: Config) -> KnownSizes:
    """Return the sizes that the configuration states, and what will be read of them."""
    sources, rate = config.corpus.domains, _token_rate(config)
    vocabulary = known_size(config.corpus.tokenizer) or TYPICAL_VOCABULARY
    sample = _if_all({n: _to_read(n, source, config, rate) for n, source in sources.items()})
    inventory = _if_all({name: _size(source, rate) for name, source in sources.items()})
    if inventory is None:
        return KnownSizes(None, sample, "unknown", vocabulary)
    exact = rate == 1.0 or all(source.tokens is not None for source in sources.values())
    return KnownSizes(inventory, sample, "stated" if exact else "estimated", vocabulary)


def _if_all(sizes: dict[str, int | None]) -> dict[str, int] | None:
    """Return the sizes if all are known, else None."""
    known = {name: size for name, size in sizes.items() if size is not None}
    return known if len(known) == len(sizes) else None


def _token_rate(config: Config) -> float:
    """Return the estimated tokens of a byte, before the text is prepared."""
    return 1.0 if plain_name(config.corpus.tokenizer) == BYTES else 1 / BYTES_PER_TOKEN


def _to_read(name: str, source: SourceConfig, config: Config, rate: float) -> int | None:
    """Return the tokens that will be read from a domain; None if unknown."""
    if isinstance(source, DomainConfig) and source.mixed is not None:
        return source.mixed.tokens
    if source.is_tokens:
        try:
            return counted_tokens(name, source)[1]
        except CorpusError:  # reported by the check of sources
            return None
    max_bytes = source.max_bytes or config.corpus.max_bytes
    if max_bytes is None:
        return None
    read = max(1, round(max_bytes * rate))
    return min(read, _size(source, rate) or read)


def _size(source: SourceConfig, rate: float) -> int | None:
    """Return the stated tokens of the whole domain; None without them."""
    return max(1, round(source.bytes * rate)) if source.bytes else source.tokens


MAX_SHORTAGES = 5  # domains named in a line
FORWARD = 3  # cost of a training step in forward passes


@dataclass(frozen=True)
class TrainingPart:
    """Numbers of trials in one part of a run, and tokens of each."""

    part: str
    least: int
    most: int
    tokens: int


def evaluation_tokens(config: Config) -> float:
    """Return the cost of a trial's held-out losses and tasks in training tokens."""
    interval, trained = config.proxy.eval_every, config.proxy.tokens
    times = math.ceil(trained / interval) if interval else 1
    tokens = len({**config.corpus.sources, **config.evaluation}) * config.proxy.eval_tokens
    if config.tasks is not None:
        items = [item for name in config.tasks.sets for item in scored_items(config.tasks, name)]
        size = sum(len((item.context + item.continuation).encode()) for item in items)
        tokens += math.ceil(size * _token_rate(config))
    return tokens * times / FORWARD


def training_parts(config: Config, *, validates: bool = True) -> tuple[TrainingPart, ...]:
    """Return the number of trials in each part of a run."""
    design, validation, tokens = config.design, config.validation, config.proxy.tokens
    later = design.trials - design.first_round
    baselines = len(validation.baselines)
    min_runs = (1 + baselines) * validation.seeds
    max_runs = (validation.rounds + baselines) * validation.most_seeds
    stop, first, mean = config.sweep.stop, design.first_trials, tokens
    if stop is not None:
        mean = stop.tokens(tokens)
        whole = first - design.first_round  # anchors and replicates
        tokens = round((mean * design.first_round + tokens * whole) / first)
    parts = [
        TrainingPart("first round", first, first, tokens),
        TrainingPart("later rounds", later, later, mean),
        TrainingPart("validation", min_runs, max_runs, config.validation_tokens),
    ]
    return tuple(part for part in (parts if validates else parts[:-1]) if part.most)


PRODUCT_SECONDS = 0.1
PRODUCT_SHARE = 0.7  # of that speed is reached by decoders of 0.1M to 60M parameters


def proxy_parameters(proxy: Any, vocab_size: int) -> int | None:
    """Return the parameters of a trial's model; None if the proxy does not report them."""
    count = getattr(proxy, "parameters", None)  # an own proxy may have an option of this name
    return int(count(vocab_size)) if callable(count) else None


def trial_speed(
    config: Config, proxy: Any, vocab_size: int, devices: Sequence[str]
) -> float | None:
    """Return tokens per second of a trial on this machine; None if the proxy has no measure."""
    if hasattr(proxy, "flops_per_token") and set(devices) == {"cpu"}:
        return estimated_speed(proxy.flops_per_token(vocab_size))
    if not hasattr(proxy, "tokens_per_second"):
        return None
    request = config.proxy
    training = Training(request.tokens, eval_tokens=request.eval_tokens, device=request.device)
    return float(proxy.tokens_per_second(vocab_size, training))


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
    max_weights: Mapping[str, float],
) -> Iterator[str]:
    """Yield a warning that names domains whose prepared sample is too small for a trial."""
    corpus, tokens = config.corpus, config.proxy.tokens
    target = config.propose.target_tokens or 0
    simulates = config.proxy.simulate_epochs and target > 0
    shortages: list[tuple[float, str]] = []
    for name in sample:
        if corpus.prepared is None and not corpus.domains[name].has_text:
            continue
        drawn = max_weights[name] * tokens
        epochs, full_epochs = drawn / sample[name], max_weights[name] * target / inventory[name]
        needed = drawn / max(full_epochs, 1.0)
        if simulates:
            needed = min(inventory[name] * min(tokens / target, 1.0), drawn)
        if (simulates or epochs > OFTEN) and needed > 1.01 * sample[name]:  # 1%: whole steps
            about = (
                f"a weight of {max_weights[name]:.2g} ({short_count(round(needed))} tokens needed)"
            )
            shortages.append((epochs, f"{name} {epochs:.1f} times at {about}"))
    if shortages:
        shortages.sort(key=lambda entry: -entry[0])
        names = first_few([text for _, text in shortages], MAX_SHORTAGES)
        yield (
            f"the prepared text is small for proxy.tokens: a trial may repeat {names}, more"
            " often than the full run; prepare more text, lower proxy.tokens, or cap these domains"
            " in constraints.bounds"
        )


def largest_weights(config: Config, natural: Mixture, constraints: Constraints) -> dict[str, float]:
    """Return the largest weight of each domain in any mixture of the design."""
    design = config.design
    if design.anneals is not None and len(design.planned_rounds) == 1:
        mixtures = [mixture for _, mixture in anneal_mixtures(design.anneals, natural)]
        return {name: max(mixture[name] for mixture in mixtures) for name in natural}
    allowed = design_constraints(design, natural, constraints)
    max_weights = dict(zip(allowed.domains, allowed.upper_D.tolist(), strict=True))
    if (lengths := design.phases) is None:
        return max_weights
    names = Phases(lengths).names(max_weights)
    return {
        n: min(1.0, sum(min(max_weights[f"{p}/{n}"], lengths[p]) for p in lengths)) for n in names
    }


# Standard deviation of a metric over arms: the median over 17 metrics of 384 published fine-tuning
# runs is .7 to .8 points, noise included.
SPREAD_OF_ARMS = 0.01


def planned_arms(config: Config) -> list[str]:
    """Return a line for each share of right answers on the power to rank the trials.

    Before there are trials, the noise is its maximum for the number of questions, at p = 1/2.
    """
    items = chosen_losses(config.resolved_objective, config.losses).items
    arms, lines = config.design.trials, list[str]()
    for name, count in items.items():
        noise = math.sqrt(0.25 / count)
        ranking = power(noise, SPREAD_OF_ARMS, arms, items=count)
        hint = (
            "" if ranking.items is None else f"; {short_count(ranking.items)} questions make it 80%"
        )
        if not config.design.anchors and config.design.anneals is None:
            hint += "; no arm is a control: set design.anchors: [natural]"
        lines.append(
            f"{name}, {count} questions: an error of up to {100 * noise:.1f} points; the best of"
            f" {arms} arms that differ by {100 * SPREAD_OF_ARMS:g} is told from the control with"
            f" probability {ranking.power:.0%}{hint}"
        )
    return lines
