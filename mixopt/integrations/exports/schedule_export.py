"""Write a schedule for a trainer: one file where the tool has stages, else a fragment a stage.

A tool's stages are constant. A linear stage is refused, or written as so many constant steps, each
with the mixture of its middle, which the header says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mixopt.errors import ConfigError
from mixopt.integrations.exports.entries import entries_of
from mixopt.integrations.exports.export_tool import ExportTool, StageEntries
from mixopt.integrations.exports.facts import Facts, Paths, checked_facts
from mixopt.integrations.exports.mixture_export import export_tool
from mixopt.mixture import Mixture
from mixopt.sampling import Schedule, Stage


def export_schedule(
    schedule: Schedule,
    to: str,
    *,
    steps_per_stage: int | None = None,
    inventory: Mapping[str, int] | None = None,
    paths: Paths | None = None,
    sample_tokens: Mapping[str, float] | float | None = None,
) -> dict[str, str]:
    """Write a schedule as fragments of a tool's configuration, in the tool's unit.

    Args:
        schedule: The schedule; its inventory is used where none is given.
        to: The tool, one of `EXPORT_TOOLS`.
        steps_per_stage: Into how many constant steps a linear stage is divided.
        inventory: Distinct tokens of each domain, which epochs need.
        paths: Where each domain's data is.
        sample_tokens: Mean tokens of a sample of each domain, or of all, which samples need.

    Returns:
        Text by stage, `0-main`, `1-anneal`, ...; for a tool that has stages one text by the empty
        name.

    Raises:
        ConfigError: A linear stage without `steps_per_stage`, stages that the tool cannot have, or
            what `export_mixture` refuses.
    """
    tool = export_tool(to)
    asked: dict[str, Any] = {
        "inventory": schedule.inventory if inventory is None else inventory,
        "paths": paths,
        "sample_tokens": sample_tokens,
    }
    stages = _constant(schedule, tool, steps_per_stage)
    if tool.write_stages is not None:
        if len(schedule.spans) > 1:
            raise ConfigError(
                f"{to}: has one sequence length in its file, but the schedule has "
                f"{len(schedule.spans)}; export a schedule for each"
            )
        if not schedule.batch_sizes.is_constant:
            raise ConfigError(
                f"{to}: counts steps of one batch, and the schedule's stages have several; export a"
                " schedule for each"
            )
        facts = checked_facts(tool.name, schedule.domains, tokens=schedule.tokens, **asked)
        entries, zeros = _entries(tool, stages, schedule, facts)
        divided = any(len(one.entries) > len({e.domain for e in one.entries}) for one in entries)
        header = [*_notes(stages), *tool.header(zeros, divided=divided)]
        return {"": tool.write_stages(entries, header, facts, schedule.batch)}
    found: dict[str, str] = {}
    for k, one in enumerate(stages):
        facts = checked_facts(tool.name, schedule.domains, tokens=one.tokens, **asked)
        parts, zeros = entries_of(tool, tool.unit.amounts(one.mixture, facts), facts)
        divided = len(parts) > len({entry.domain for entry in parts})
        about = f"Stage {k + 1} of {len(stages)}: {one.about}."
        found[f"{k}-{one.name}"] = tool.write(
            parts, [about, *tool.header(zeros, divided=divided)], facts
        )
    return found


class _ConstantStage:
    """A stage as a tool has it: constant, in whole steps."""

    def __init__(self, schedule: Schedule, k: int, start: int, stop: int, mixture: Mixture) -> None:
        stage = schedule.stages[k]
        alike = [one.name for one in schedule.stages].count(stage.name) > 1
        self.name = str(k) if stage.name is None else f"{stage.name}-{k}" if alike else stage.name
        self.start, self.mixture = start, mixture
        self.tokens = (stop - start) * schedule.step_tokens(stage)
        length, batch = schedule.length_of(stage), schedule.batch_of(stage)
        self.about = (
            f"{self.name}, steps {start:,} to {stop:,} of {batch:,} sequences of {length:,},"
            f" {self.tokens:,} tokens"
        )
        if stage.phase is not None:
            self.about += f", learning rate: {stage.phase}"


def _constant(schedule: Schedule, tool: ExportTool, pieces: int | None) -> list[_ConstantStage]:
    """Return the stages, linear ones divided."""
    found: list[_ConstantStage] = []
    for k, stage in enumerate(schedule.stages):
        start, stop = schedule.starts[k], schedule.starts[k + 1]
        if stage.to is None:
            found.append(_ConstantStage(schedule, k, start, stop, stage.mixture))
            continue
        if pieces is None:
            raise ConfigError(
                f"{tool.name}: stages.{k} changes to another mixture linearly, but the tool's "
                "stages are constant; divide it with --steps-per-stage K (in Python "
                "steps_per_stage=)"
            )
        if not 1 <= pieces <= stop - start:
            raise ConfigError(
                f"--steps-per-stage {pieces}: stages.{k} has {stop - start:,} steps to divide"
            )
        found += _divided(schedule, k, stage, pieces)
    return found


def _divided(schedule: Schedule, k: int, stage: Stage, pieces: int) -> list[_ConstantStage]:
    first, length = schedule.starts[k], schedule.starts[k + 1] - schedule.starts[k]
    ends = [first + length * n // pieces for n in range(pieces + 1)]
    last, found = stage.to or stage.mixture, list[_ConstantStage]()
    for n in range(pieces):
        part = ((ends[n] + ends[n + 1]) / 2 - first) / length
        mixture = Mixture({d: w + part * (last[d] - w) for d, w in stage.mixture.items()})
        one = _ConstantStage(schedule, k, ends[n], ends[n + 1], mixture)
        one.about += f"; step {n + 1} of {pieces} of a linear stage, the mixture of its middle"
        found.append(one)
        one.name = f"{one.name}-{n}"
    return found


def _entries(
    tool: ExportTool, stages: Sequence[_ConstantStage], schedule: Schedule, facts: Facts
) -> tuple[list[StageEntries], list[str]]:
    """Return the entries of each stage, and the domains that no stage has."""
    found: list[StageEntries] = []
    zeros = set(schedule.domains)
    for one in stages:
        local = replace(facts, tokens=one.tokens)
        parts, left_out = entries_of(tool, tool.unit.amounts(one.mixture, local), local)
        zeros &= set(left_out)
        found.append(StageEntries(one.name, one.start, tuple(parts)))
    return found, [name for name in schedule.domains if name in zeros]


def _notes(stages: Sequence[_ConstantStage]) -> list[str]:
    return [f"Stage {k}: {one.about}." for k, one in enumerate(stages)]
