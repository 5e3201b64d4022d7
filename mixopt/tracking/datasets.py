"""What a run reads, as MLflow's dataset inputs: the corpus to train on, and the text held out.

A digest is of the indexes of token shards, which have the hash of every shard; MLflow's own is of
rows, differs between versions of polars, and would read the text again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mixopt.corpus import Corpus, TokenShards, read_stream_index

DIGEST = 36  # MLflow's longest


def corpus_datasets(path: Path, weights: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return the dataset inputs of a corpus.

    Args:
        path: Its folder.
        weights: Share of each domain: those that training begins with, or the natural ones.
    """
    corpus = Corpus.open(path, verify=False)
    trained = {d.name: d.train for d in corpus.domains if d.train is not None}
    held_out = {d.name: d.validation for d in corpus.evaluation}
    source = {"fingerprint": corpus.fingerprint, "tokenizer": corpus.tokenizer}
    return [
        _dataset(corpus.path, source, "train", trained, weights),
        _dataset(corpus.path, source, "eval", held_out, {}),
    ]


def streamed_datasets(path: Path, weights: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return the dataset inputs of a run that reads streams, of which no hash is known.

    Args:
        path: The folder of its held-out text.
        weights: Share of each domain that training begins with.
    """
    index = read_stream_index(path)
    source = {"fingerprint": index.fingerprint, "tokenizer": index.tokenizer}
    names = [*index.domains, *index.targets]
    held_out = {n: TokenShards.open(path / n / "validation", verify=False) for n in names}
    shares = {name: {"weight": round(weight, 6)} for name, weight in weights.items()}
    streamed = {
        "name": "streams",
        "context": "train",
        "digest": index.fingerprint,
        "source": source,
        "profile": {"domains": shares},
    }
    return [streamed, _dataset(path, source, "eval", held_out, {})]


def _dataset(
    path: Path,
    source: Mapping[str, str],
    context: str,
    shards: Mapping[str, TokenShards],
    weights: Mapping[str, float],
) -> dict[str, Any]:
    folder = "train" if context == "train" else "validation"
    files = [path / name / folder / "index.json" for name in shards]
    domains = {
        name: {
            "tokens": one.tokens,
            "documents": one.documents,
            **({"weight": round(weights[name], 6)} if name in weights else {}),
        }
        for name, one in shards.items()
    }
    return {
        "name": "corpus" if context == "train" else "held_out",
        "context": context,
        "digest": _digest([path / "index.json", *files]),
        "source": dict(source),
        "profile": {"tokens": sum(one.tokens for one in shards.values()), "domains": domains},
    }


def _digest(files: list[Path]) -> str:
    found = hashlib.sha256()
    for file in files:
        found.update(hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()[:DIGEST]
