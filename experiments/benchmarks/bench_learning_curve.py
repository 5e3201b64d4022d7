"""What the learning curve of a trial costs: seconds a trial with it and without.

    python experiments/benchmarks/bench_learning_curve.py [--rounds 5] [--tokens 600000]
        [--proxies decoder ngram] [--json]

The shape is the quickstart's: bytes, seven evaluation domains with 32,768 held-out tokens each, and
for the decoder `tiny` with four trials that train together on one thread. The text is Python's own
library. Both sides take turns, with what was compiled kept; the cost is the median over rounds of
the ratio within a round, in CPU time, since busy neighbours disturb wall time more. The losses at
the end must be the same numbers on both sides.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mixopt.corpus import Corpus, Domain, TokenShards, TokenWriter
from mixopt.mixture import Mixture
from mixopt.trials import Training, Trial, TrialResult, make_proxy

DOMAINS, HELD_OUT, POINTS = 7, 40_000, 9
MEMBERS = {"decoder": 4, "ngram": 1}


def library_corpus(folder: Path, tokens: int) -> Corpus:
    """Write the bytes of Python's library as token shards of seven domains."""
    text = b"".join(file.read_bytes() for file in sorted(Path(os.__file__).parent.glob("*.py")))
    data = np.frombuffer(text, dtype=np.uint8).astype(np.uint16)
    size = min(len(data) // DOMAINS, tokens + HELD_OUT)
    domains = []
    for number in range(DOMAINS):
        own = data[number * size : (number + 1) * size]
        name = f"part{number}"
        shards = [
            _shards(folder / name / kind, part)
            for kind, part in (("train", own[HELD_OUT:]), ("validation", own[:HELD_OUT]))
        ]
        domains.append(Domain(name, shards[0], shards[1]))
    return Corpus(folder, tuple(domains), (), "bytes", 256, "library", {})


def _shards(path: Path, tokens: np.ndarray[Any, np.dtype[np.uint16]]) -> TokenShards:
    with TokenWriter(path, dtype=np.uint16, tokenizer="bytes") as writer:
        writer.write(tokens, documents=1, bytes=len(tokens))
    return TokenShards.open(path)


def measured(name: str, corpus: Corpus, training: Training, rounds: int) -> dict[str, Any]:
    """Return seconds a trial on both sides, and the ratio."""
    proxy = make_proxy(name, {})
    shares = np.full(DOMAINS, 1 / DOMAINS)
    mixture = Mixture(dict(zip(corpus.domain_names, shares.tolist(), strict=True)))
    trials = [Trial(f"t{seed}", mixture, seed) for seed in range(MEMBERS[name])]
    plain = replace(training, curve_points=0)
    proxy.train(trials, corpus, replace(training, tokens=training.tokens // 50), lambda _: None)
    ratios, seconds, last = [], [], None
    for _ in range(rounds):
        with_curve, results = _timed(proxy, trials, corpus, training)
        without, others = _timed(proxy, trials, corpus, plain)
        assert [one.losses for one in results] == [one.losses for one in others], "the same losses"
        ratios.append(with_curve / without)
        seconds.append((with_curve / len(trials), without / len(trials)))
        last = results[0]
    assert last is not None
    with_curve, without = (statistics.median(column) for column in zip(*seconds, strict=True))
    return {
        "proxy": name,
        "points": len(last.curve),
        "cpu_seconds_with": round(with_curve, 3),
        "cpu_seconds_without": round(without, 3),
        "cost": round(statistics.median(ratios) - 1, 4),
    }


def _timed(
    proxy: Any, trials: list[Trial], corpus: Corpus, training: Training
) -> tuple[float, list[TrialResult]]:
    before = time.process_time()
    results = proxy.train(trials, corpus, training, lambda _: None)
    return time.process_time() - before, results


def main() -> None:
    """Measure, and print a line for each proxy."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=600_000)
    parser.add_argument("--proxies", nargs="+", default=["decoder", "ngram"])
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    training = Training(asked.tokens, eval_tokens=32_768, device="cpu", curve_points=POINTS)
    with tempfile.TemporaryDirectory() as folder:
        corpus = library_corpus(Path(folder), asked.tokens)
        for name in asked.proxies:
            found = measured(name, corpus, training, asked.rounds)
            if asked.json:
                print(json.dumps(found))
            else:
                print(
                    f"{found['proxy']}: {found['cpu_seconds_with']:.2f} s a trial with"
                    f" {found['points']} points, {found['cpu_seconds_without']:.2f} s without:"
                    f" {found['cost']:+.1%}"
                )


if __name__ == "__main__":
    main()
