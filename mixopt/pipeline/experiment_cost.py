"""Cost of an experiment: sizes, tokens, FLOPs, time on this machine, scoring of tasks."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mixopt.config import Config, DomainConfig, SourceConfig, TasksConfig, chosen_losses
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
MAX_SHORTAGES = 5  # domains named in a line
STEP_TOLERANCE = 1.01  # a sample may be 1% too small, because trials have whole steps
FORWARD = 3  # cost of a training step in forward passes
FLOPS_PER_PARAMETER = 6.0  # of training, for each token
PRODUCT_SECONDS = 0.1  # for which matrix products are timed
PRODUCT_SHARE = 0.7  # of their speed is reached by decoders of 0.1M to 60M parameters
# Standard deviation of a metric over arms: the median over 17 metrics of 384 published fine-tuning
# runs is .7 to .8 points, noise included.
SPREAD_OF_ARMS = 0.01
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
    sources = config.corpus.domains
    rate = _token_rate(config)
    inventory = _if_all_known({name: _size(source, rate) for name, source in sources.items()})
    sample = _if_all_known(
        {name: _tokens_to_read(name, source, config, rate) for name, source in sources.items()}
    )
    basis: Basis = "estimated"
    if inventory is None:
        basis = "unknown"
    elif rate == 1.0 or all(source.tokens is not None for source in sources.values()):
        basis = "stated"
    vocabulary = known_size(config.corpus.tokenizer) or TYPICAL_VOCABULARY
    return KnownSizes(inventory, sample, basis, vocabulary)


def _if_all_known(sizes: dict[str, int | None]) -> dict[str, int] | None:
    """Return the sizes if all are known, else None."""
    known = {name: size for name, size in sizes.items() if size is not None}
    return known if len(known) == len(sizes) else None


def _token_rate(config: Config) -> float:
    """Return the estimated tokens of a byte, before the text is prepared."""
    is_bytes = plain_name(config.corpus.tokenizer) == BYTES
    return 1.0 if is_bytes else 1 / BYTES_PER_TOKEN


def _tokens_to_read(name: str, source: SourceConfig, config: Config, rate: float) -> int | None:
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
    if source.bytes:
        return max(1, round(source.bytes * rate))
    return source.tokens


@dataclass(frozen=True)
class TrainingPart:
    """Minimum and maximum number of trials in one part of a run, and tokens of each."""

    part: str
    least: int
    most: int
    tokens: int


def total_tokens(parts: Sequence[TrainingPart], evaluation: float = 0) -> tuple[Any, Any]:
    """Return the tokens of all trials, each with its evaluation, minimum and maximum."""
    minimum = sum(part.least * (part.tokens + evaluation) for part in parts)
    maximum = sum(part.most * (part.tokens + evaluation) for part in parts)
    return minimum, maximum


def estimated_flops(parts: Sequence[TrainingPart], parameters: int) -> Range:
    """Return the FLOPs of training all trials, minimum and maximum."""
    min_tokens, max_tokens = total_tokens(parts)
    flops_per_token = FLOPS_PER_PARAMETER * parameters
    return flops_per_token * min_tokens, flops_per_token * max_tokens


def estimated_seconds(
    parts: Sequence[TrainingPart], evaluation: float, tokens_per_second: float
) -> Range:
    """Return the seconds for all trials with evaluation, minimum and maximum.

    `tokens_per_second` is the speed of all workers together.
    """
    min_tokens, max_tokens = total_tokens(parts, evaluation)
    return min_tokens / tokens_per_second, max_tokens / tokens_per_second


def evaluation_tokens(config: Config) -> float:
    """Return the cost of a trial's held-out losses and tasks in training tokens."""
    tokens = len({**config.corpus.sources, **config.evaluation}) * config.proxy.eval_tokens
    if config.tasks is not None:
        size = sum(_task_bytes(config.tasks, name) for name in config.tasks.sets)
        tokens += math.ceil(size * _token_rate(config))
    interval = config.proxy.eval_every
    times = math.ceil(config.proxy.tokens / interval) if interval else 1
    return tokens * times / FORWARD


def _task_bytes(tasks: TasksConfig, name: str) -> int:
    items = scored_items(tasks, name)
    return sum(len((item.context + item.continuation).encode()) for item in items)


def training_parts(config: Config, *, validates: bool = True) -> tuple[TrainingPart, ...]:
    """Return the number of trials in each part of a run."""
    design = config.design
    first = design.first_trials
    later = design.trials - design.first_round
    first_tokens = later_tokens = config.proxy.tokens
    stop = config.sweep.stop
    if stop is not None:
        later_tokens = stop.tokens(config.proxy.tokens)
        stoppable_tokens = later_tokens * design.first_round
        whole_tokens = config.proxy.tokens * (first - design.first_round)  # anchors and replicates
        first_tokens = round((stoppable_tokens + whole_tokens) / first)
    parts = [
        TrainingPart("first round", first, first, first_tokens),
        TrainingPart("later rounds", later, later, later_tokens),
    ]
    if validates:
        parts.append(_validation_part(config))
    return tuple(part for part in parts if part.most)


def _validation_part(config: Config) -> TrainingPart:
    validation = config.validation
    baselines = len(validation.baselines)
    min_runs = (1 + baselines) * validation.seeds
    max_runs = (validation.rounds + baselines) * validation.most_seeds
    return TrainingPart("validation", min_runs, max_runs, config.validation_tokens)


def proxy_parameters(proxy: Any, vocab_size: int) -> int | None:
    """Return the parameters of a trial's model; None if the proxy does not report them."""
    count = getattr(proxy, "parameters", None)
    if not callable(count):  # a user's proxy may have an option of this name
        return None
    return int(count(vocab_size))


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
    matrix = np.random.default_rng(0).random((256, 256), dtype=np.float32)
    products = 0
    with one_blas_thread(len(matrix)):
        np.matmul(matrix, matrix)  # warm-up
        start = time.process_time()
        while time.process_time() - start < PRODUCT_SECONDS:
            np.matmul(matrix, matrix)
            products += 1
        seconds = time.process_time() - start
    return PRODUCT_SHARE * 2 * products * len(matrix) ** 3 / seconds / flops_per_token


def shortage_lines(
    config: Config,
    sample: Mapping[str, int],
    inventory: Mapping[str, int],
    max_weights: Mapping[str, float],
) -> Iterator[str]:
    """Yield a warning that names domains whose prepared sample is too small for a trial."""
    corpus = config.corpus
    tokens = config.proxy.tokens
    target = config.propose.target_tokens or 0
    simulates = config.proxy.simulate_epochs and target > 0
    epochs: dict[str, float] = {}
    texts: dict[str, str] = {}
    for name in sample:
        if corpus.prepared is None and not corpus.domains[name].has_text:
            continue
        drawn = max_weights[name] * tokens
        if simulates:
            needed = min(inventory[name] * min(tokens / target, 1.0), drawn)
        else:
            full_epochs = max_weights[name] * target / inventory[name]
            needed = drawn / max(full_epochs, 1.0)
        epochs[name] = drawn / sample[name]
        is_repeated = simulates or epochs[name] > OFTEN
        if is_repeated and needed > STEP_TOLERANCE * sample[name]:
            texts[name] = (
                f"{name} {epochs[name]:.1f} times at a weight of {max_weights[name]:.2g}"
                f" ({short_count(round(needed))} tokens needed)"
            )
    if texts:
        by_epochs = sorted(texts, key=lambda name: -epochs[name])
        names = first_few([texts[name] for name in by_epochs], MAX_SHORTAGES)
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
    lengths = design.phases
    if lengths is None:
        return max_weights
    totals: dict[str, float] = {}
    for name in Phases(lengths).names(max_weights):
        by_phase = [min(max_weights[f"{phase}/{name}"], lengths[phase]) for phase in lengths]
        totals[name] = min(1.0, sum(by_phase))
    return totals


def planned_arms(config: Config) -> list[str]:
    """Return a line for each share of right answers on the power to rank the trials.

    Before there are trials, the noise is its maximum for the number of questions, at p = 1/2.
    """
    items = chosen_losses(config.resolved_objective, config.losses).items
    arms = config.design.trials
    has_control = config.design.anchors or config.design.anneals is not None
    lines: list[str] = []
    for name, count in items.items():
        noise = math.sqrt(0.25 / count)
        ranking = power(noise, SPREAD_OF_ARMS, arms, items=count)
        hint = ""
        if ranking.items is not None:
            hint = f"; {short_count(ranking.items)} questions make it 80%"
        if not has_control:
            hint += "; no arm is a control: set design.anchors: [natural]"
        lines.append(
            f"{name}, {count} questions: an error of up to {100 * noise:.1f} points; the best of"
            f" {arms} arms that differ by {100 * SPREAD_OF_ARMS:g} is told from the control with"
            f" probability {ranking.power:.0%}{hint}"
        )
    return lines
