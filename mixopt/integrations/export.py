"""Write a mixture or a schedule in the format of a trainer's configuration.

A `Mixture` has shares of the tokens. Trainers take probabilities of sequences or samples, numbers
of samples, or epochs (`mixopt.integrations.weight_units`). If a unit needs an unknown value, the
export raises an error; no value is guessed.
"""

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import yaml

from mixopt.errors import ConfigError, PluginError, did_you_mean
from mixopt.integrations.export_interface import (
    Entry,
    ExportTool,
    Facts,
    Noted,
    Paths,
    StageEntries,
)
from mixopt.integrations.export_tools import EXPORT_TOOLS
from mixopt.mixture import Mixture
from mixopt.sampling import Schedule
from mixopt.system import load_plugin, plugin_names

PIECES = 8  # constant stages that approximate a linear one


def export_mixture(
    mixture: Mixture,
    to: str | ExportTool,
    *,
    inventory: Mapping[str, int] | None = None,
    tokens: float | None = None,
    paths: Paths | None = None,
    sample_tokens: Mapping[str, float] | float | None = None,
    note: str = "",
) -> str:
    """Write a mixture as a fragment of a tool's configuration, in the tool's unit.

    Args:
        mixture: Shares of the tokens.
        to: The tool, one of `exporter_names()`, `package.module:NAME` of an
            `ExportTool`, or the object.
        inventory: Distinct tokens of each domain, for the unit epochs.
        tokens: Length of the run in tokens, for epochs and numbers of samples.
        paths: One or several paths of each domain's data; default: the domain's name.
        sample_tokens: Mean tokens of a sample, by domain or one number, for units of samples.
        note: A line on the mixture for the header.

    Returns:
        The fragment; its header has tool, version, unit and command.

    Raises:
        ConfigError: An unknown tool, a missing value for the unit, or a name or path that the
            tool's format cannot express.
    """
    tool = exporter(to)
    facts = Facts(tool.name, mixture.domains, tokens, inventory, paths, sample_tokens)
    entries = _entries(tool, mixture, facts)
    header = [note] if note else []
    return _text(tool, tool.write(entries, facts), header, mixture, [entries])


def export_schedule(
    schedule: Schedule,
    to: str | ExportTool,
    *,
    inventory: Mapping[str, int] | None = None,
    paths: Paths | None = None,
    sample_tokens: Mapping[str, float] | float | None = None,
) -> dict[str, str]:
    """Write a schedule as fragments of a tool's configuration, in the tool's unit.

    No tool has linear stages: each is written as up to eight constant ones.

    Args:
        schedule: Mixtures by stage.
        to: The tool, as for `export_mixture`.
        inventory: Distinct tokens of each domain; None: those of the schedule.
        paths: Paths of each domain's data.
        sample_tokens: Mean tokens of a sample.

    Returns:
        Each stage's fragment by its number and name; for tools with stages, one fragment by "".

    Raises:
        ConfigError: As for `export_mixture`.
    """
    tool = exporter(to)
    if inventory is None:
        inventory = schedule.inventory

    def facts_of(tokens: float | None) -> Facts:
        return Facts(tool.name, schedule.domains, tokens, inventory, paths, sample_tokens)

    stages = list(_constant_stages(schedule))
    stage_entries: list[StageEntries] = []
    for stage in stages:
        facts = facts_of(stage.tokens)
        entries = _entries(tool, stage.mixture, facts)
        stage_entries.append(StageEntries(stage.name, stage.start, entries))
    if tool.write_stages is not None:
        header = [f"Stage {k}: {stage.description}." for k, stage in enumerate(stages)]
        content = tool.write_stages(stage_entries, facts_of(None), schedule.batch)
        all_entries = [written.entries for written in stage_entries]
        return {"": _text(tool, content, header, schedule.domains, all_entries)}
    texts: dict[str, str] = {}
    for k, (stage, written) in enumerate(zip(stages, stage_entries, strict=True)):
        header = [f"Stage {k + 1} of {len(stages)}: {stage.description}."]
        content = tool.write(written.entries, facts_of(stage.tokens))
        texts[f"{k}-{stage.name}"] = _text(tool, content, header, stage.mixture, [written.entries])
    return texts


def exporter_names() -> list[str]:
    """Return the names of all export tools: built-in ones, then installed plug-ins."""
    plugins = [name for name in plugin_names("exporter") if name not in EXPORT_TOOLS]
    return list(EXPORT_TOOLS) + plugins


def exporter(name: str | ExportTool) -> ExportTool:
    """Return a built-in tool, an entry point in `mixopt.exporters`, or an imported or given object.

    Args:
        name: Name of the tool, `package.module:NAME` of an `ExportTool`, or the object.

    Raises:
        ConfigError: An unknown name.
        PluginError: It cannot be imported, or is not an `ExportTool`.
    """
    if isinstance(name, ExportTool):
        return name
    if name in EXPORT_TOOLS:
        return EXPORT_TOOLS[name]
    if ":" not in name and name not in exporter_names():
        raise ConfigError(f"unknown tool {name!r}{did_you_mean(str(name), exporter_names())}")
    tool = load_plugin("exporter", name)
    if not isinstance(tool, ExportTool):
        raise PluginError(f"exporter {name!r}: is a {type(tool).__name__}, not an ExportTool")
    return tool


def _text(
    tool: ExportTool,
    content: Any,
    header: Sequence[str],
    domains: Collection[str],
    stages: Sequence[Sequence[Entry]],
) -> str:
    """Return content in the tool's format, below a header of comments."""
    lines = list(header)
    lines.append(f"Mixture for {tool.title} (checked with {tool.version}): {tool.place}.")
    lines.append(f"Unit: {tool.unit.meaning}.")
    lines.append(f"Use: {tool.command}")
    lines += tool.notes
    has_divided = False
    written: set[str] = set()
    for entries in stages:
        names = {entry.domain for entry in entries}
        written |= names
        has_divided = has_divided or len(entries) > len(names)
    if tool.unit.divides and has_divided:
        lines.append("A domain's amount is divided evenly among its paths.")
    left_out = [name for name in domains if name not in written]
    if left_out:
        lines.append(f"weight 0, left out: {json.dumps(left_out)}")
    if isinstance(content, Noted):
        lines += content.lines
        content = content.content
    if tool.suffix == ".json":
        return json.dumps({"comment": lines} | content, indent=1, ensure_ascii=False) + "\n"
    if not isinstance(content, str):
        content = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=10_000)
    comments = "".join(f"# {line}\n" for line in lines)
    return comments + str(content)


def _entries(tool: ExportTool, mixture: Mixture, facts: Facts) -> list[Entry]:
    """Return the entries of a fragment; domains of weight 0 only if the tool takes them."""
    amounts: dict[str, float] = {}
    for name, share in mixture.items():
        if share > 0:
            amounts[name] = tool.unit.amount(name, share, facts)
        elif tool.takes_zero:
            amounts[name] = 0.0
    total = math.fsum(amounts.values()) if tool.unit.normalised else 1.0
    entries: list[Entry] = []
    for name, amount in amounts.items():
        entries += _domain_entries(tool, name, amount / total, facts)
    _check_entries(tool, entries)
    return entries


def _check_entries(tool: ExportTool, entries: Sequence[Entry]) -> None:
    """Raise on texts that the tool's parser would change, and on equal names or paths."""
    label_owners: dict[str, str] = {}
    path_owners: dict[str, str] = {}
    for entry in entries:
        _check_texts(tool, entry)
        owner = label_owners.setdefault(entry.label, entry.domain)
        if owner != entry.domain:
            domains = f"domains {owner!r} and {entry.domain!r}"
            raise ConfigError(
                f"{tool.name}: {domains} would both be named {entry.label!r}; rename one"
            )
        for path in entry.paths:
            owner = path_owners.setdefault(path, entry.domain)
            if owner != entry.domain:
                domains = f"domains {owner!r} and {entry.domain!r}"
                raise ConfigError(f"{tool.name}: {domains} have the same path {path!r}")


def _check_texts(tool: ExportTool, entry: Entry) -> None:
    """Raise on texts that the tool's parser would change."""
    if tool.interpolates:
        for text in (entry.label, *entry.paths):
            if "${" in text:
                fault = f"reads ${{...}} in {text!r} of domain {entry.domain!r} as a variable"
                raise ConfigError(f"{tool.name}: {fault}; give another path with --paths")
    if tool.strips:
        for path in entry.paths:
            if path != path.strip():
                fault = f"strips the spaces around {path!r} of domain {entry.domain!r}"
                raise ConfigError(f"{tool.name}: {fault}; give another path with --paths")


def _domain_entries(tool: ExportTool, domain: str, amount: float, facts: Facts) -> Iterator[Entry]:
    """Yield one entry, or one per path for tools with one path per entry."""
    paths = facts.places(domain)
    is_named = domain not in facts.paths
    if not tool.single_path or len(paths) == 1:
        yield Entry(domain, domain, paths, amount, is_named)
        return
    parts = [amount] * len(paths)
    if tool.unit.divides:
        parts = _divided(amount, len(paths))
    for number, (path, part) in enumerate(zip(paths, parts, strict=True)):
        yield Entry(domain, f"{domain}.{number}", (path,), part, is_named)


def _divided(amount: float, count: int) -> list[float]:
    """Divide an amount evenly; a whole one into whole parts, if each gets at least 1."""
    if not float(amount).is_integer() or amount < count:
        return [amount / count] * count
    part, remainder = divmod(int(amount), count)
    parts = [float(part)] * count
    for number in range(remainder):
        parts[number] += 1.0
    return parts


class ConstantStage(NamedTuple):
    """A stage of one mixture: a whole stage of a schedule, or a piece of a linear one.

    Attributes:
        name: Name of the stage, with its number if several have this name.
        start: First step.
        tokens: Tokens of all steps.
        mixture: Mixture of the stage; that of the middle of a piece.
        description: Description for the header.
    """

    name: str
    start: int
    tokens: int
    mixture: Mixture
    description: str


def _constant_stages(schedule: Schedule) -> Iterator[ConstantStage]:
    """Yield the stages of a schedule; divide linear ones into pieces of at least a step."""
    spans = list(pairwise(schedule.starts))
    pieces = PIECES
    for stage, (start, stop) in zip(schedule.stages, spans, strict=True):
        if stage.to is not None:
            pieces = min(pieces, stop - start)
    names = [stage.name for stage in schedule.stages]
    for k, (stage, (start, stop)) in enumerate(zip(schedule.stages, spans, strict=True)):
        name = str(k) if stage.name is None else stage.name
        if names.count(name) > 1:
            name = f"{name}-{k}"
        if stage.to is None:
            yield _constant_stage(schedule, name, start, stop, stage.mixture)
        else:
            ends = [start + (stop - start) * n // pieces for n in range(pieces + 1)]
            for n, (piece_start, piece_stop) in enumerate(pairwise(ends)):
                middle = ((piece_start + piece_stop) / 2 - start) / (stop - start)
                mixture = _between(stage.mixture, stage.to, middle)
                note = f"; step {n + 1} of {pieces} of a linear stage, the mixture of its middle"
                yield _constant_stage(
                    schedule, f"{name}-{n}", piece_start, piece_stop, mixture, note
                )


def _constant_stage(
    schedule: Schedule, name: str, start: int, stop: int, mixture: Mixture, note: str = ""
) -> ConstantStage:
    tokens = (stop - start) * schedule.step_tokens
    description = (
        f"{name}, steps {start:,} to {stop:,} of {schedule.batch:,} sequences of"
        f" {schedule.sequence_length:,}, {tokens:,} tokens{note}"
    )
    return ConstantStage(name, start, tokens, mixture, description)


def _between(first: Mixture, last: Mixture, part: float) -> Mixture:
    """Return the mixture at a part of the way from one to another."""
    weights = {name: weight + part * (last[name] - weight) for name, weight in first.items()}
    return Mixture(weights)
