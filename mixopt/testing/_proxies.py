"""The promises of a proxy."""

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from mixopt.corpus import Corpus
from mixopt.mixture import Mixture
from mixopt.system import folder_records
from mixopt.testing._promises import Promises
from mixopt.testing._tiny_corpus import tiny_corpus
from mixopt.trials import Progress, Proxy, Training, Trial, TrialResult

SHARES = {"most": 0.9, "some": 0.1, "all": 1.0}  # of code in the trials

promise = Promises("a proxy")


def check_proxy(
    factory: Callable[[], Proxy], *, tokens: int = 16_384, tolerance: float = 1e-3
) -> None:
    """Check that a proxy keeps its promises, by training it on three mixtures four times.

    Args:
        factory: Returns a proxy.
        tokens: Training tokens of a trial.
        tolerance: Relative difference allowed between a trial's losses alone and in a group.

    Raises:
        AssertionError: A promise is broken; the message names it and the observed behaviour.
    """
    with tempfile.TemporaryDirectory() as folder:
        corpus = tiny_corpus(Path(folder) / "corpus")
        training = Training(tokens=tokens, eval_tokens=4_096, device="cpu")
        trials = [
            Trial(name, Mixture({"code": share, "manual": 1 - share}), seed=seed)
            for seed, (name, share) in enumerate(SHARES.items(), start=5)
        ]
        size, proxy = factory().group_size(corpus, training), factory()
        is_count = isinstance(size, int) and size >= 1
        promise(is_count, "group_size is a whole number >= 1", f"it is {size!r}")
        together, repeated = (_train(proxy, trials, corpus, training) for _ in range(2))
        alone = _train(factory(), trials[1:2], corpus, training)
        reseeded = _train(factory(), [replace(trials[1], seed=12)], corpus, training)
    _check_same(together, repeated, 0.0, "training the same trials twice gives the same losses")
    _check_same(together[1:2], alone, tolerance, "a trial's losses do not depend on its group")
    pairs = {"seed": (alone[0], reseeded[0]), "mixture": (together[0], together[1])}
    for change, pair in pairs.items():
        first, second = (result.losses and result.losses.nats_per_token for result in pair)
        promise(first != second, f"another {change} gives other losses", f"both times {first}")


def _train(
    proxy: Proxy, trials: Sequence[Trial], corpus: Corpus, training: Training
) -> list[TrialResult]:
    """Train, and check the promises of a single call."""
    argument, before, reports = list(trials), folder_records(corpus.path, [""]), list[Progress]()
    results = proxy.train(argument, corpus, training, reports.append)
    promise(argument == list(trials), "the list of trials is not changed", f"it is now {argument}")
    unchanged = folder_records(corpus.path, [""]) == before
    promise(unchanged, "the corpus is not changed", "its files differ")
    names = [result.trial for result in results]
    claim = "one result for each trial, in order"
    promise.same(names, [trial.name for trial in trials], claim)
    for result in results:
        _check_result(result, corpus)
    _check_progress(reports, len(trials) * training.tokens)
    return results


def _check_result(result: TrialResult, corpus: Corpus) -> None:
    broken = f"trial {result.trial!r} is {result.status}: {result.reason}"
    promise(result.status == "finished", "a plain trial finishes", broken)
    promise(result.tokens > 0, "a result has its number of tokens", f"{result.tokens} tokens")
    fine = result.parameters > 0 and result.seconds >= 0
    broken = f"{result.parameters} parameters, {result.seconds} seconds"
    promise(fine, "a result has its parameters and seconds", broken)
    losses = result.losses
    promise(losses is not None, "a finished trial has losses", f"{result.trial!r} has none")
    assert losses is not None
    for unit in ("nats_per_token", "bits_per_byte"):
        values: dict[str, float] = getattr(losses, unit)
        wrong = sorted(set(corpus.evaluation_names) ^ set(values))
        promise(not wrong, f"{unit} has exactly the evaluation domains", f"wrong: {wrong}")
        bad = {name: value for name, value in values.items() if not 0 < value < math.inf}
        promise(not bad, f"{unit} is finite and above 0", bad)
    for domain in corpus.evaluation:  # within 2%, since a proxy may evaluate a part of the text
        shards = domain.validation
        expected = losses.nats_per_token[domain.name] * shards.tokens / shards.bytes / math.log(2)
        measured, broken = losses.bits_per_byte[domain.name], f"not {expected:.4f}"
        claim = "bits per byte = nats per token x tokens / bytes / ln 2"
        promise(abs(measured - expected) <= 0.02 * expected, claim, f"{measured:.4f}, {broken}")
    wrong = sorted(set(corpus.task_columns) ^ set(losses.tasks)) if losses.tasks else []
    promise(not wrong, "a proxy that scores tasks scores exactly these", f"wrong: {wrong}")
    bad = {name: value for name, value in losses.tasks.items() if not math.isfinite(value)}
    promise(not bad, "task metrics are finite", bad)


def _check_progress(reports: Sequence[Progress], total: int) -> None:
    promise(reports, "progress is reported", "it never was")
    totals = sorted({progress.total for progress in reports})
    promise(len(totals) == 1, "the total of the progress stays the same", totals)
    counts = [progress.done for progress in reports]
    promise(counts == sorted(counts), "progress never goes back", counts[:20])
    promise(counts[-1] == totals[0], "progress reaches its total", f"{counts[-1]} of {totals[0]}")
    near = abs(totals[0] - total) <= 0.1 * total
    promise(near, "the total is the training tokens of all trials", f"{totals[0]}, not {total}")


def _check_same(
    left: Sequence[TrialResult], right: Sequence[TrialResult], tolerance: float, claim: str
) -> None:
    for first, second in zip(left, right, strict=True):
        assert first.losses is not None
        assert second.losses is not None
        values = first.losses.nats_per_token | first.losses.tasks
        other_values = second.losses.nats_per_token | second.losses.tasks
        promise.same(sorted(other_values), sorted(values), claim)
        for name, value in values.items():
            broken = f"trial {first.trial!r}, {name!r}: {value!r} and {other_values[name]!r}"
            promise(abs(value - other_values[name]) <= tolerance * abs(value), claim, broken)
