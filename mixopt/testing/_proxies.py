"""A small corpus of real text that every Python has: its own sources and its own manual."""

from __future__ import annotations

import argparse
import hashlib
import inspect
import math
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from mixopt.corpus import (
    FORMAT,
    Corpus,
    EncodedTask,
    Item,
    TokenWriter,
    encode_task,
    open_tokenizer,
    write_task,
)
from mixopt.mixture import Mixture
from mixopt.system import write_sealed
from mixopt.trials import Progress, Proxy, Training, Trial, TrialResult

END_OF_DOCUMENT = 256
DOCUMENT = 2_000  # characters
TRAIN, VALIDATION = 64_000, 8_000
TASK = "next_line"


def tiny_corpus(path: Path) -> Corpus:
    """Write a corpus of bytes with two domains and one target, and open it."""
    texts = {"code": inspect.getsource(argparse), "manual": _manual()}
    for name, text in texts.items():
        _write(path / name / "train", text[:TRAIN])
        _write(path / name / "validation", text[TRAIN : TRAIN + VALIDATION])
    other = inspect.getsource(tarfile)[TRAIN : TRAIN + VALIDATION]
    _write(path / "other_code" / "validation", other)
    write_task(_next_line(inspect.getsource(tarfile)), path)
    index = {
        "format": FORMAT,
        "domains": list(texts),
        "targets": ["other_code"],
        "tasks": [TASK],
        "tokenizer": "bytes",
        "vocab_size": END_OF_DOCUMENT + 1,
        "fingerprint": "tiny",
        "provenance": {},
        "files": {},
    }
    write_sealed(path / "index.json", index)
    return Corpus.open(path)


def _manual() -> str:
    from pydoc_data.topics import topics

    return "".join(topics[name] for name in sorted(topics))


def _next_line(text: str) -> EncodedTask:
    """Ask for the line that follows three others."""
    lines = [line for line in text.splitlines(keepends=True) if line.strip()]
    items = [
        Item(str(number), "".join(lines[start : start + 3]), lines[start + 3])
        for number, start in enumerate(range(100, 700, 30))
    ]
    return encode_task(TASK, items, open_tokenizer("bytes"))


def _write(path: Path, text: str) -> None:
    """Write a text as documents of equal length."""
    with TokenWriter(path, dtype="uint16", tokenizer="bytes") as writer:
        for start in range(0, len(text), DOCUMENT):
            document = text[start : start + DOCUMENT].encode()
            tokens = np.array([*document, END_OF_DOCUMENT], dtype=np.uint16)
            writer.write(tokens, documents=1, bytes=len(document))


def check_proxy(
    factory: Callable[[], Proxy], *, tokens: int = 16_384, tolerance: float = 1e-3
) -> None:
    """Check that a proxy keeps its promises, by training it on three mixtures four times."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = tiny_corpus(Path(folder) / "corpus")
        training = Training(tokens=tokens, eval_tokens=4_096, device="cpu")
        trials = _trials()
        _check_group_size(factory(), corpus, training)
        proxy = factory()
        together = _train(proxy, trials, corpus, training)
        again = _train(proxy, trials, corpus, training)
        alone = _train(factory(), trials[1:2], corpus, training)
        reseeded = _train(factory(), [replace(trials[1], seed=12)], corpus, training)
    _check_same(together, again, 0.0, "the same trials give the same losses when trained again")
    _check_same(together[1:2], alone, tolerance, "a trial's losses do not depend on its group")
    _check_differ(alone[0], reseeded[0], "another seed gives other losses")
    _check_differ(together[0], together[1], "another mixture gives other losses")


@dataclass
class _Listener:
    """Keeps the progress that a proxy reports."""

    heard: list[Progress] = field(default_factory=list)

    def __call__(self, progress: Progress) -> None:
        self.heard.append(progress)


def _trials() -> list[Trial]:
    shares = (("most", 0.9), ("some", 0.1), ("all", 1.0))
    return [
        Trial(name, Mixture({"code": share, "manual": 1 - share}), seed=seed)
        for seed, (name, share) in enumerate(shares, start=5)
    ]


def _train(
    proxy: Proxy, trials: Sequence[Trial], corpus: Corpus, training: Training
) -> list[TrialResult]:
    """Train, and check what can be checked of any one call."""
    given, before, listener = list(trials), _digest(corpus.path), _Listener()
    results = proxy.train(given, corpus, training, listener)
    _promise(given == list(trials), "the list of trials is not changed", f"it is now {given}")
    _promise(_digest(corpus.path) == before, "the corpus is not changed", "its files differ")
    _check_results(results, trials)
    for result in results:
        _check_losses(result, corpus)
    _check_progress(listener.heard, len(trials) * training.tokens)
    return results


def _check_group_size(proxy: Proxy, corpus: Corpus, training: Training) -> None:
    size = proxy.group_size(corpus, training)
    whole = isinstance(size, int) and size >= 1
    _promise(whole, "group_size is a whole number >= 1", f"it is {size!r}")


def _check_results(results: Sequence[TrialResult], trials: Sequence[Trial]) -> None:
    named, asked = [result.trial for result in results], [trial.name for trial in trials]
    _promise(named == asked, "one result for each trial, in order", f"{named} for {asked}")
    for result in results:
        reason = f"trial {result.trial!r} is {result.status}: {result.reason}"
        _promise(result.status == "finished", "a plain trial finishes", reason)
        _promise(result.tokens > 0, "a result counts its tokens", f"{result.tokens} tokens")
        sized = f"{result.parameters} parameters, {result.seconds} seconds"
        fine = result.parameters > 0 and result.seconds >= 0
        _promise(fine, "a result says its parameters and seconds", sized)


def _check_losses(result: TrialResult, corpus: Corpus) -> None:
    wanted = set(corpus.evaluation_names)
    losses = result.losses
    _promise(losses is not None, "a finished trial has losses", f"{result.trial!r} has none")
    for unit in ("nats_per_token", "bits_per_byte"):
        values: dict[str, float] = getattr(losses, unit)
        odd = sorted(wanted ^ set(values))
        _promise(not odd, f"{unit} has every evaluation domain and no other", f"odd: {odd}")
        bad = {name: value for name, value in values.items() if not 0 < value < math.inf}
        _promise(not bad, f"{unit} is finite and above 0", f"{bad}")
    _check_units(result, corpus)
    _check_tasks(result, corpus)


def _check_tasks(result: TrialResult, corpus: Corpus) -> None:
    """Check what tasks measure, of a proxy that scores them."""
    tasks = _task_values(result)
    if tasks:
        odd = sorted(set(corpus.task_columns) ^ set(tasks))
        _promise(not odd, "a proxy that scores tasks scores all and no other", f"odd: {odd}")
    bad = {name: value for name, value in tasks.items() if not math.isfinite(value)}
    _promise(not bad, "what tasks measure is finite", f"{bad}")


def _check_units(result: TrialResult, corpus: Corpus) -> None:
    """Check bits per byte against nats per token, as far as the choice of text allows."""
    for domain in corpus.evaluation:
        assert result.losses is not None
        shards = domain.validation
        bits = result.losses.nats_per_token[domain.name] * shards.tokens / shards.bytes
        got, wanted = result.losses.bits_per_byte[domain.name], bits / math.log(2)
        promise = "bits per byte = nats per token x tokens / bytes / ln 2"
        _promise(abs(got - wanted) <= 0.02 * wanted, promise, f"{got:.4f}, not {wanted:.4f}")


def _check_progress(heard: Sequence[Progress], total: int) -> None:
    _promise(bool(heard), "progress is reported", "it never was")
    totals = sorted({progress.total for progress in heard})
    _promise(len(totals) == 1, "the total of the progress stays the same", f"{totals}")
    done = [progress.done for progress in heard]
    _promise(done == sorted(done), "progress never goes back", f"{done[:20]}")
    reached = f"{done[-1]} of {heard[-1].total}"
    _promise(done[-1] == heard[-1].total, "progress reaches its total", reached)
    near = abs(heard[-1].total - total) <= 0.1 * total
    _promise(near, "the total is the training tokens of all trials", f"{totals[0]}, not {total}")


def _check_same(
    left: Sequence[TrialResult], right: Sequence[TrialResult], tolerance: float, promise: str
) -> None:
    for one, other in zip(left, right, strict=True):
        values, others = (_nats(result) | _task_values(result) for result in (one, other))
        _promise(values.keys() == others.keys(), promise, f"{sorted(values)} and {sorted(others)}")
        for name, value in values.items():
            again = others[name]
            detail = f"trial {one.trial!r}, {name!r}: {value!r} and {again!r}"
            _promise(abs(value - again) <= tolerance * abs(value), promise, detail)


def _check_differ(one: TrialResult, other: TrialResult, promise: str) -> None:
    _promise(_nats(one) != _nats(other), promise, f"both times {_nats(one)}")


def _nats(result: TrialResult) -> dict[str, float]:
    assert result.losses is not None
    return result.losses.nats_per_token


def _task_values(result: TrialResult) -> dict[str, float]:
    assert result.losses is not None
    return result.losses.tasks


def _digest(path: Path) -> str:
    """Hash all files below a folder, names included."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        digest.update(str(file.relative_to(path)).encode())
        if file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _promise(kept: bool, promise: str, detail: str) -> None:
    if not kept:
        raise AssertionError(f"a proxy promises: {promise}. Broken: {detail}")
