"""The promises of a proxy."""

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from mixopt.corpus import Corpus, in_bits_per_byte
from mixopt.mixture import Mixture
from mixopt.sweeps import Progress, Proxy, Training
from mixopt.system import folder_records
from mixopt.testing._promises import Promises
from mixopt.testing._tiny_corpus import tiny_corpus
from mixopt.trials import Trial, TrialResult

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
        size = factory().group_size(corpus, training)
        is_count = isinstance(size, int) and size >= 1
        promise(is_count, "group_size is a whole number >= 1", f"it is {size!r}")
        proxy = factory()
        together = _train(proxy, trials, corpus, training)
        repeated = _train(proxy, trials, corpus, training)
        alone = _train(factory(), trials[1:2], corpus, training)
        reseeded = _train(factory(), [replace(trials[1], seed=12)], corpus, training)
        parted = together
        if getattr(proxy, "resumes", False):
            for part in ((0.0, 0.5), (0.5, 1.0)):
                settings = replace(training, files=f"{folder}/files", part=part)
                parted = proxy.train(trials, corpus, settings, lambda _: None)
    _check_same(together, repeated, 0.0, "training the same trials twice gives the same losses")
    _check_same(together[1:2], alone, tolerance, "a trial's losses do not depend on its group")
    _check_same(together, parted, 0.0, "a trial in two parts has the losses of the whole")
    _check_differs(alone[0], reseeded[0], "another seed gives other losses")
    _check_differs(together[0], together[1], "another mixture gives other losses")


def _train(
    proxy: Proxy, trials: Sequence[Trial], corpus: Corpus, training: Training
) -> list[TrialResult]:
    """Train, and check the promises of a single call."""
    argument = list(trials)
    before = folder_records(corpus.path, [""])
    reports: list[Progress] = []
    results = proxy.train(argument, corpus, training, reports.append)
    promise.same(argument, list(trials), "the list of trials is not changed")
    unchanged = folder_records(corpus.path, [""]) == before
    promise(unchanged, "the corpus is not changed", "its files differ")
    names = [trial.name for trial in trials]
    promise.same([result.trial for result in results], names, "one result for each trial, in order")
    for result in results:
        _check_result(result, corpus)
    promise(reports, "progress is reported", "it never was")
    counts = [item.done for item in reports]
    totals = sorted({item.total for item in reports})
    promise(len(totals) == 1, "the total of the progress stays the same", totals)
    promise(counts == sorted(counts), "progress never goes back", counts[:20])
    promise.same(counts[-1], totals[0], "progress reaches its total")
    total = len(trials) * training.tokens
    near = abs(totals[0] - total) <= 0.1 * total
    promise(near, "the total is the training tokens of all trials", f"{totals[0]}, not {total}")
    return results


def _check_result(result: TrialResult, corpus: Corpus) -> None:
    broken = f"trial {result.trial!r} is {result.status}: {result.reason}"
    losses = result.losses
    promise(result.status == "finished" and losses, "a plain trial finishes, with losses", broken)
    assert losses is not None
    fine = result.tokens > 0 and result.parameters > 0 and result.seconds >= 0
    promise(fine, "a result has its tokens, parameters and seconds", result)
    for unit in ("nats_per_token", "bits_per_byte"):
        values: dict[str, float] = getattr(losses, unit)
        wrong = sorted(set(corpus.evaluation_names) ^ set(values))
        promise(not wrong, f"{unit} has exactly the evaluation domains", f"wrong: {wrong}")
        fine = all(0 < value < math.inf for value in values.values())
        promise(fine, f"{unit} is finite and above 0", values)
    expected = in_bits_per_byte(losses.nats_per_token, corpus.evaluation)
    claim = "bits per byte = nats per token x tokens / bytes / ln 2"
    for name, bits in losses.bits_per_byte.items():
        # Within 2%, since a proxy may evaluate a part of the text.
        close = math.isclose(bits, expected[name], rel_tol=0.02)
        promise(close, claim, f"{name!r}: {bits:.4f}, not {expected[name]:.4f}")
    if losses.tasks:
        wrong = sorted(set(corpus.task_columns) ^ set(losses.tasks))
        promise(not wrong, "a proxy that scores tasks scores exactly these", f"wrong: {wrong}")
    fine = all(map(math.isfinite, losses.tasks.values()))
    promise(fine, "task metrics are finite", losses.tasks)


def _check_same(
    left: Sequence[TrialResult], right: Sequence[TrialResult], tolerance: float, claim: str
) -> None:
    for first, second in zip(left, right, strict=True):
        values = _losses(first)
        others = _losses(second)
        promise.same(sorted(others), sorted(values), claim)
        for name, value in values.items():
            broken = f"trial {first.trial!r}, {name!r}: {value!r} and {others[name]!r}"
            promise(abs(value - others[name]) <= tolerance * abs(value), claim, broken)


def _check_differs(left: TrialResult, right: TrialResult, claim: str) -> None:
    losses = _losses(left)
    promise(losses != _losses(right), claim, f"both times {losses}")


def _losses(result: TrialResult) -> dict[str, float]:
    assert result.losses is not None
    return result.losses.nats_per_token | result.losses.tasks
