"""What a base was trained on, as parts of a mixed domain: its shards, and the shares it drew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, Field

from mixopt.errors import ConfigError
from mixopt.system import checked_as, local_path, parse_json, read_json, read_text, read_yaml

_WHAT = "give the directory of a mixopt pretrain, or one of its checkpoints"


class _Record(BaseModel):
    """What is read of `config.yaml` of a run."""

    corpus: str = ""


class _Line(BaseModel):
    """What is read of a line of `metrics.jsonl`: tokens so far, and shares since the last line."""

    step: int
    tokens: int
    realised: dict[str, float]


class _Index(BaseModel):
    """What is read of `index.json` of a corpus."""

    domains: list[str]
    provenance: dict[str, Any] = {}

    def document_end(self, name: str) -> int | None:
        """Return the id that ends a document of a domain of tokens, where its source states one."""
        source = self.provenance.get("sources", {}).get(name) or {}
        return checked_as(int | None, source.get("document_end"), "document_end")


class _Shards(BaseModel):
    """What is read of `index.json` of a domain's split."""

    shards: list[dict[str, Any]] = Field(min_length=1)
    dtype: str
    documents: int | None = None

    def paths(self, folder: Path) -> list[str]:
        """Return the files that it names."""
        return [str((folder / str(shard.get("file"))).absolute()) for shard in self.shards]


def replayed_run(given: str) -> dict[str, Any]:
    """Return `domains` and `mixture` of a run's training text, as a mixed domain is given.

    Args:
        given: The directory of a run, whose newest checkpoint is meant, or one of its checkpoints.

    Raises:
        ConfigError: It is no run, or a file of it is damaged.
    """
    path = local_path(given)
    run = path.parent.parent if path.parent.name == "checkpoints" else path
    record_file, corpus = run / "config.yaml", run / "corpus"
    if not record_file.is_file():
        raise ConfigError(f"{given}: has no config.yaml; {_WHAT}")
    record: _Record = checked_as(_Record, read_yaml(record_file), str(record_file), ConfigError)
    if not corpus.is_dir():
        corpus = local_path(record.corpus)
        corpus = corpus / "corpus" if (corpus / "corpus").is_dir() else corpus
    index = _read(corpus / "index.json", _Index)
    domains = {name: _part(corpus / name, index.document_end(name)) for name in index.domains}
    mixture = drawn_mixture(run, index.domains, _last_step(path))
    return {"domains": domains, "mixture": mixture}


def _last_step(path: Path) -> int | None:
    """Return the steps of a checkpoint, or of the newest one of a run; None where it has none."""
    is_checkpoint = path.parent.name == "checkpoints"
    folders = [path] if is_checkpoint else (path / "checkpoints").glob("step-*")
    steps = [folder.name.removeprefix("step-") for folder in folders]
    return max((int(step) for step in steps if step.isdecimal() and len(step) < 16), default=None)


def _part(folder: Path, end: int | None) -> dict[str, Any]:
    """Return a domain's shards as a source of tokens, whose documents end with the id if known."""
    train, held_out = folder / "train", folder / "validation"
    index = _read(train / "index.json", _Shards)
    shards = index.paths(train)
    source = {
        "path": shards,
        "validation": _read(held_out / "index.json", _Shards).paths(held_out),
        "format": "raw",
        "dtype": index.dtype,
    }
    if not index.documents:
        return source
    return source | {"document_end": _last_token(shards[-1], index.dtype) if end is None else end}


def _last_token(file: str, dtype: str) -> int:
    """Return the last token of a shard: where documents are known, the one that ends them."""
    kind = np.dtype("<u4") if dtype == "uint32" else np.dtype("<u2")
    try:
        with Path(file).open("rb") as stream:
            stream.seek(-kind.itemsize, 2)
            return int(np.frombuffer(stream.read(), kind)[0])
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error


def drawn_mixture(run: Path, names: Sequence[str], until: int | None) -> dict[str, float]:
    """Return the share of each domain in what a run has trained on, up to a step."""
    log, before, sums_D = run / "metrics.jsonl", 0, np.zeros(len(names))
    text = read_text(log, missing=lambda: ConfigError(f"{log}: not found; {_WHAT}"))
    for place, line in enumerate(text.splitlines(), start=1):
        content = parse_json(line, f"{log}:{place}")
        if not isinstance(content, dict) or not content.get("realised"):
            continue
        one: _Line = checked_as(_Line, content, f"{log}:{place}", ConfigError)
        if until is not None and before and one.step > until:
            break
        shares_D = np.array([one.realised.get(name, 0.0) for name in names])
        before, sums_D = one.tokens, sums_D + (one.tokens - before) * shares_D
    if not before:
        raise ConfigError(f"{log}: has no step that was trained; {_WHAT} that has trained")
    return dict(zip(names, (sums_D / sums_D.sum()).tolist(), strict=True))


def _read(file: Path, shape: type[Any]) -> Any:
    missing = ConfigError(f"{file}: not found; {_WHAT}")
    return read_json(file, shape, error=ConfigError, missing=lambda: missing)
