"""The promises of a proxy."""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from mixopt.corpus import Corpus
from mixopt.mixture import Mixture
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
        factory: Makes a proxy.
        tokens: Training tokens of a trial.
        tolerance: How far a trial's losses may differ where it trains alone, as a share of them.

    Raises:
        AssertionError: A promise is broken; the message says which, and how.
    """
    with tempfile.TemporaryDirectory() as folder:
        corpus = tiny_corpus(Path(folder) / "corpus")
        training = Training(tokens=tokens, eval_tokens=4_096, device="cpu")
        trials = [
            Trial(name, Mixture({"code": share, "manual": 1 - share}), seed=seed)
            for seed, (name, share) in enumerate(SHARES.items(), start=5)
        ]
        size, proxy = factory().group_size(corpus, training), factory()
        whole = isinstance(size, int) and size >= 1
        promise(whole, "group_size is a whole number >= 1", f"it is {size!r}")
        together, again = (_trained(proxy, trials, corpus, training) for _ in range(2))
        alone = _trained(factory(), trials[1:2], corpus, training)
        reseeded = _trained(factory(), [replace(trials[1], seed=12)], corpus, training)
    _check_same(together, again, 0.0, "the same trials give the same losses when trained again")
    _check_same(together[1:2], alone, tolerance, "a trial's losses do not depend on its group")
    others = {"seed": (alone[0], reseeded[0]), "mixture": (together[0], together[1])}
    for what, (one, other) in others.items():
        first, second = (result.losses and result.losses.nats_per_token for result in (one, other))
        promise(first != second, f"another {what} gives other losses", f"both times {first}")


def _trained(
    proxy: Proxy, trials: Sequence[Trial], corpus: Corpus, training: Training
) -> list[TrialResult]:
    """Train, and check what can be checked of any one call."""
    given, before, heard = list(trials), _digest(corpus.path), list[Progress]()
    results = proxy.train(given, corpus, training, heard.append)
    promise(given == list(trials), "the list of trials is not changed", f"it is now {given}")
    promise(_digest(corpus.path) == before, "the corpus is not changed", "its files differ")
    named = [result.trial for result in results]
    what = "one result for each trial, in order"
    promise.same(named, [trial.name for trial in trials], what)
    for result in results:
        _check_result(result, corpus)
    _check_progress(heard, len(trials) * training.tokens)
    return results


def _check_result(result: TrialResult, corpus: Corpus) -> None:
    broken = f"trial {result.trial!r} is {result.status}: {result.reason}"
    promise(result.status == "finished", "a plain trial finishes", broken)
    promise(result.tokens > 0, "a result counts its tokens", f"{result.tokens} tokens")
    fine = result.parameters > 0 and result.seconds >= 0
    broken = f"{result.parameters} parameters, {result.seconds} seconds"
    promise(fine, "a result says its parameters and seconds", broken)
    losses = result.losses
    promise(losses is not None, "a finished trial has losses", f"{result.trial!r} has none")
    assert losses is not None
    for unit in ("nats_per_token", "bits_per_byte"):
        values: dict[str, float] = getattr(losses, unit)
        odd = sorted(set(corpus.evaluation_names) ^ set(values))
        promise(not odd, f"{unit} has every evaluation domain and no other", f"odd: {odd}")
        bad = {name: value for name, value in values.items() if not 0 < value < math.inf}
        promise(not bad, f"{unit} is finite and above 0", bad)
    for domain in corpus.evaluation:  # as far as the choice of text allows
        shards = domain.validation
        wanted = losses.nats_per_token[domain.name] * shards.tokens / shards.bytes / math.log(2)
        got, what = losses.bits_per_byte[domain.name], "nats per token x tokens / bytes / ln 2"
        broken = f"{got:.4f}, not {wanted:.4f}"
        promise(abs(got - wanted) <= 0.02 * wanted, f"bits per byte = {what}", broken)
    odd = sorted(set(corpus.task_columns) ^ set(losses.tasks)) if losses.tasks else []
    promise(not odd, "a proxy that scores tasks scores all and no other", f"odd: {odd}")
    bad = {name: value for name, value in losses.tasks.items() if not math.isfinite(value)}
    promise(not bad, "what tasks measure is finite", bad)


def _check_progress(heard: Sequence[Progress], total: int) -> None:
    promise(heard, "progress is reported", "it never was")
    totals = sorted({progress.total for progress in heard})
    promise(len(totals) == 1, "the total of the progress stays the same", totals)
    done = [progress.done for progress in heard]
    promise(done == sorted(done), "progress never goes back", done[:20])
    promise(done[-1] == totals[0], "progress reaches its total", f"{done[-1]} of {totals[0]}")
    near = abs(totals[0] - total) <= 0.1 * total
    promise(near, "the total is the training tokens of all trials", f"{totals[0]}, not {total}")


def _check_same(
    left: Sequence[TrialResult], right: Sequence[TrialResult], tolerance: float, what: str
) -> None:
    for one, other in zip(left, right, strict=True):
        assert one.losses is not None
        assert other.losses is not None
        values = one.losses.nats_per_token | one.losses.tasks
        others = other.losses.nats_per_token | other.losses.tasks
        promise.same(sorted(others), sorted(values), what)
        for name, value in values.items():
            broken = f"trial {one.trial!r}, {name!r}: {value!r} and {others[name]!r}"
            promise(abs(value - others[name]) <= tolerance * abs(value), what, broken)


def _digest(path: Path) -> str:
    """Hash all files below a folder, names included."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        digest.update(str(file.relative_to(path)).encode())
        if file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()
