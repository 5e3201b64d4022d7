"""The directory of a run: its files, whether it is of this configuration, and whether it is whole.

    config.yaml          the resolved configuration
    corpus/              token shards, where the run prepares its own
    held_out/            held-out text, where the run reads streams
    checkpoints/         mixopt.pretraining.checkpoints
    mixture_log.jsonl    a line for each change of the mixture
    metrics.jsonl        losses, throughput
    experts/             of a model that has some (mixopt.routing)

A run resumes only with what it was started with; before the first checkpoint there is nothing to
resume, and it starts again. What changes no result may be another: how the work is spread over
devices, what is saved and recorded. With `map_domains` the corpus may, too.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import yaml

from mixopt.config import dump_sections
from mixopt.errors import MixoptError, RunError
from mixopt.pretraining.checkpoints import (
    CHECKPOINTS,
    check_checkpoint,
    found_checkpoints,
    last_checkpoint,
)
from mixopt.pretraining.config import PretrainConfig
from mixopt.run_directory import CheckedPart, differences
from mixopt.system import (
    check_sealed_text,
    checked_as,
    read_yaml,
    sealed_text,
    write_text,
)

HEADER = "The resolved configuration of this run; written by mixopt."
METRICS = "metrics.jsonl"

_FREE = (
    "name",
    "model.origin",
    "model.vocabulary",
    "prepared_corpus",
    "parallel",
    "shard_degree",
    "device",
    "map_domains",
    "held_out.every",
    "checkpoint",
    "metrics",
    "experts",
    "tracking",
    "training.micro_batch",
    "training.compile",
    "training.activation_checkpointing",
    "training.max_skipped",
)
# Of the sections in _FREE: what results do depend on.
_HELD = ("experts.balance", "experts.bias_rate")
_OF_DOMAINS = ("corpus", "evaluation", "mixture", "schedule", "estimator.bounds")


def open_directory(config: PretrainConfig, out: Path) -> None:
    """Make the directory, or check that the run in it may resume with this configuration."""
    if last_checkpoint(out / CHECKPOINTS) is not None:
        before = recorded_config(out / "config.yaml")
        free = _FREE if config.map_domains is None else _FREE + _OF_DOMAINS
        for name, was, now in differences(before, dump_sections(config)):
            if not _is_in(name, free):
                raise RunError(
                    f"{out}: the run was started with {name} {_line(was)}, and here it is "
                    f"{_line(now)}; use another --out"
                )
    record_config(config, out)


def record_config(config: PretrainConfig, out: Path) -> None:
    """Write the configuration that a run is begun with, or resumes with."""
    text = yaml.safe_dump(dump_sections(config), sort_keys=False, allow_unicode=True)
    write_text(out / "config.yaml", sealed_text(text, HEADER))


def recorded_config(record: Path) -> dict[str, Any]:
    """Return the configuration that a run was begun with, as plain values."""
    check_sealed_text(record, HEADER, mend="restore it from a copy; it is needed to resume")
    recorded: dict[str, Any] = checked_as(
        dict[str, Any], read_yaml(record, error=RunError), str(record)
    )
    return recorded


def recorded_pretraining(run: Path) -> PretrainConfig:
    """Return the configuration of a run, from its directory."""
    record = run / "config.yaml"
    config: PretrainConfig = checked_as(PretrainConfig, recorded_config(record), str(record))
    return config


def run_fingerprint(config: PretrainConfig) -> str:
    """Return a hash of all fields that results depend on."""
    values = [(n, v) for n, _, v in differences({}, dump_sections(config)) if not _is_in(n, _FREE)]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def is_pretraining(directory: Path) -> bool:
    """Tell whether a directory is that of a pretraining: it has checkpoints or metrics."""
    return any((directory / name).exists() for name in (CHECKPOINTS, METRICS))


def verify_pretraining(directory: Path) -> list[CheckedPart]:
    """Check the record of the configuration and every checkpoint; all files are read."""
    record = directory / "config.yaml"
    try:
        recorded_config(record)
        part = CheckedPart("configuration", "whole", 1, record.stat().st_size)
    except MixoptError as error:
        fault = {record.name: str(error).removeprefix(f"{record}: ")}
        part = CheckedPart("configuration", "damaged", 1, 0, fault, "see the message")
    return [part, *map(check_checkpoint, found_checkpoints(directory / CHECKPOINTS))]


def _line(value: object) -> str:
    return " ".join(str(value).split())[:200]


def _is_in(name: str, fields: tuple[str, ...]) -> bool:
    return name not in _HELD and any(
        name == field or name.startswith(f"{field}.") for field in fields
    )
