"""What a base was trained on, as parts of a mixed domain: its shards, and its mixture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mixopt.errors import ConfigError
from mixopt.system import checked_as, local_path, parse_json, read_json, read_text, read_yaml

_WHAT = "give the directory of a mixopt pretrain, or one of its checkpoints"
_CHECKPOINTS, _STEP = "checkpoints", "step-"


def replayed_run(given: str) -> dict[str, Any]:
    """Return `domains` and `mixture` of a run's training text, as a mixed domain is given.

    Args:
        given: The directory of a run, whose newest checkpoint is meant, or one of its checkpoints.

    Raises:
        ConfigError: It is no run, has streamed its text, or a file of it is damaged.
    """
    run, until = _run_and_step(local_path(given))
    record = run / "config.yaml"
    if not record.is_file():
        raise ConfigError(f"{given}: has no config.yaml; {_WHAT}")
    config: dict[str, Any] = checked_as(dict[str, Any], read_yaml(record), str(record))
    corpus = run / "corpus"
    if not corpus.is_dir():
        prepared = config.get("prepared_corpus")
        if not isinstance(prepared, str):
            raise ConfigError(f"{given}: has no prepared corpus to replay; {_WHAT} that has one")
        corpus = local_path(prepared)
    index = _fields(corpus / "index.json")
    names = checked_as(list[str], index.get("domains"), f"{corpus / 'index.json'}: domains")
    ends = _stated_ends(index)
    domains = {name: _part(corpus / name, ends.get(name)) for name in names}
    return {"domains": domains, "mixture": _mixture(run, config, names, until)}


def _run_and_step(path: Path) -> tuple[Path, int | None]:
    """Return the directory of a run, and the steps of the checkpoint that is meant, if known."""
    if path.parent.name == _CHECKPOINTS:
        return path.parent.parent, _step_of(path)
    folder = path / _CHECKPOINTS
    names = folder.iterdir() if folder.is_dir() else ()
    return path, max((step for name in names if (step := _step_of(name)) is not None), default=None)


def _step_of(checkpoint: Path) -> int | None:
    step = checkpoint.name.removeprefix(_STEP)
    is_one = checkpoint.name.startswith(_STEP) and step.isdecimal() and len(step) < 16
    return int(step) if is_one else None


def weights_in(given: str) -> dict[str, Any]:
    """Return the weights of a file of a mixture, such as a recommendation."""
    content = read_yaml(local_path(given))
    weights = content.get("weights", content) if isinstance(content, dict) else content
    if not isinstance(weights, dict):
        raise ConfigError(f"{given}: expected 'weights:' with a share for each domain")
    return weights


def _stated_ends(index: Mapping[str, Any]) -> dict[str, int]:
    """Return the id that ends a document of each domain of tokens that stated one."""
    made = index.get("provenance")
    sources = made.get("sources") if isinstance(made, dict) else None
    found = sources.items() if isinstance(sources, dict) else ()
    ends = {name: one.get("document_end") for name, one in found if isinstance(one, dict)}
    return {name: end for name, end in ends.items() if type(end) is int}


def _part(folder: Path, end: int | None) -> dict[str, Any]:
    """Return a domain's shards as a source of tokens, whose documents end with the id if known."""
    train, held_out = folder / "train", folder / "validation"
    index = _fields(train / "index.json")
    shards = _files(train, index)
    source = {
        "path": shards,
        "validation": _files(held_out, _fields(held_out / "index.json")),
        "format": "raw",
        "dtype": index.get("dtype"),
    }
    if end is None:
        end = _last_token(Path(shards[-1]), str(index.get("dtype")))
    return source | ({"document_end": end} if index.get("documents") else {})


def _files(folder: Path, index: Mapping[str, Any]) -> list[str]:
    shards = checked_as(list[dict[str, Any]], index.get("shards"), f"{folder}: shards")
    found = [folder / checked_as(str, shard.get("file"), f"{folder}: file") for shard in shards]
    if not found:
        raise ConfigError(f"{folder}: has no tokens to replay")
    return [str(file.absolute()) for file in found]


def _last_token(file: Path, dtype: str) -> int:
    """Return the last token of a shard: where documents are known, the one that ends them."""
    kind = np.dtype("<u4") if dtype == "uint32" else np.dtype("<u2")
    try:
        with file.open("rb") as stream:
            stream.seek(-kind.itemsize, 2)
            return int(np.frombuffer(stream.read(), kind)[0])
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error


class _EvenPart(NamedTuple):
    """Steps of a run that have the same tokens, and the mixture that they go to linearly."""

    steps: int
    tokens: int
    to: Mapping[str, float] | None = None


def _mixture(
    run: Path, config: Mapping[str, Any], names: Sequence[str], until: int | None = None
) -> dict[str, float]:
    """Return the mean mixture over the tokens of the steps of a run up to one; of all if None."""
    training = checked_as(dict[str, Any], config.get("training"), f"{run}: training")
    steps = checked_as(int, training.get("steps"), f"{run}: training.steps")
    stages = _stages(str(run / "config.yaml"), config.get("staged"), training, steps)
    last = steps if until is None else min(steps, until)
    changes = _changes(run / "mixture_log.jsonl", last)
    stops = [*(start for start, _ in changes[1:]), last + 1]
    sums = dict.fromkeys(names, 0.0)
    for (start, held), stop in zip(changes, stops, strict=True):
        tokens, ends = _tokens(stages, start, stop), _end_of(stages, start, stop, held)
        for name in names:
            sums[name] += tokens * (held.get(name, 0.0) + ends.get(name, 0.0)) / 2
    whole = sum(sums.values()) or 1.0
    return {name: share / whole for name, share in sums.items()}


def _changes(log: Path, last: int) -> list[tuple[int, dict[str, float]]]:
    """Return the first step of each mixture that a run trained on, and the mixture."""
    lines = read_text(log, missing=lambda: ConfigError(f"{log}: not found; {_WHAT}")).splitlines()
    found = []
    for line in lines:
        content = checked_as(dict[str, Any], parse_json(line, str(log)), str(log))
        step = checked_as(int, content.get("step"), f"{log}: step")
        weights = checked_as(dict[str, float], content.get("weights"), f"{log}: weights")
        if step <= last and not content.get("shadow"):
            found.append((step, weights))
    if not found:
        raise ConfigError(f"{log}: has no mixture up to step {last}; {_WHAT} that has trained")
    return found


def _stages(
    record: str, staged: object, training: Mapping[str, Any], steps: int
) -> list[_EvenPart]:
    """Return the parts of a run, as its record says them: the stages of its schedule, or one."""
    if staged is None:
        length = _count(training, "sequence_length", record)
        return [_EvenPart(steps, _count(training, "batch", record) * length)]
    fields = checked_as(dict[str, Any], staged, f"{record}: staged")
    stages = checked_as(list[dict[str, Any]], fields.get("stages"), f"{record}: staged.stages")
    found, asked, given = list[_EvenPart](), 0, 0
    size = _count(fields, "batch", record) * _count(fields, "sequence_length", record)
    for one in stages:
        if one.get("steps") is None:  # rounded as mixopt.sampling.schedule does it
            asked += _count(one, "tokens", record)
            taken = (2 * (asked - given) + size) // (2 * size)
        else:
            taken = _count(one, "steps", record)
            asked += taken * size
        given += taken * size
        to = checked_as(dict[str, float] | None, one.get("to"), f"{record}: staged.stages.to")
        found.append(_EvenPart(taken, size, to))
    return found


def _tokens(stages: Sequence[_EvenPart], start: int, stop: int) -> int:
    """Return the tokens of the steps from one on and before another; they count from 1."""
    total, first = 0, 1
    for stage in stages:
        total += max(min(stop, first + stage.steps) - max(start, first), 0) * stage.tokens
        first += stage.steps
    return total


def _end_of(
    stages: Sequence[_EvenPart], start: int, stop: int, held: Mapping[str, float]
) -> Mapping[str, float]:
    """Return the mixture at the end of steps: as far as they come where a stage goes to another."""
    first = 1
    for stage in stages:
        if first == start and stop <= first + stage.steps and stage.to is not None:
            part, to = (stop - start) / stage.steps, stage.to
            return {
                name: (1 - part) * held.get(name, 0.0) + part * to.get(name, 0.0)
                for name in {*held, *to}
            }
        first += stage.steps
    return held


def _count(fields: Mapping[str, Any], name: str, record: str) -> int:
    """Return a count of a record; 1 where it is not there."""
    return checked_as(int, fields.get(name, 1), f"{record}: {name}")


def _fields(file: Path) -> dict[str, Any]:
    content = read_json(
        file, error=ConfigError, missing=lambda: ConfigError(f"{file}: not found; {_WHAT}")
    )
    found: dict[str, Any] = checked_as(dict[str, Any], content, str(file))
    return found
