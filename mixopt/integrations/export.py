"""Write a mixture or a schedule in the format of a trainer's configuration.

A `Mixture` is shares of the tokens. Trainers take probabilities of sequences or of samples, numbers
of samples, or epochs (`mixopt.integrations.weight_units`). If a unit needs an unknown value, the
export raises an error; no value is guessed.
"""

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import yaml

from mixopt.errors import ConfigError, PluginError, did_you_mean
from mixopt.integrations.export_tools import EXPORT_TOOLS
from mixopt.integrations.weight_units import Entry, ExportTool, Facts, Noted, Paths, StageEntries
from mixopt.mixture import Mixture
from mixopt.sampling import Schedule
from mixopt.system import load_plugin, plugin_names

PIECES = 8  # constant stages that approximate a linear one


def export_mixture(
    mixture: Mixture,
    to: str,
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
        to: The tool, one of `exporter_names()`, or `package.module:NAME` of an `ExportTool`.
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
    return _text(tool, tool.write(entries, facts), [note] if note else [], mixture, [entries])


def export_schedule(
    schedule: Schedule,
    to: str,
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
    common = (schedule.inventory if inventory is None else inventory, paths, sample_tokens)
    pieces = list(_constant_stages(schedule))
    stages, texts = list[StageEntries](), dict[str, str]()
    for k, (name, start, stop, mixture, about) in enumerate(pieces):
        tokens = (stop - start) * schedule.step_tokens
        facts = Facts(tool.name, schedule.domains, tokens, *common)
        stages.append(StageEntries(name, start, _entries(tool, mixture, facts)))
        if tool.write_stages is None:
            header, entries = [f"Stage {k + 1} of {len(pieces)}: {about}."], stages[-1].entries
            content = tool.write(entries, facts)
            texts[f"{k}-{name}"] = _text(tool, content, header, mixture, [entries])
    if tool.write_stages is None:
        return texts
    header = [f"Stage {k}: {about}." for k, (*_, about) in enumerate(pieces)]
    facts = Facts(tool.name, schedule.domains, None, *common)
    content = tool.write_stages(stages, facts, schedule.batch)
    return {"": _text(tool, content, header, schedule.domains, [s.entries for s in stages])}


def exporter_names() -> list[str]:
    """Return the names of all export tools: built-in ones, then installed plug-ins."""
    return [*EXPORT_TOOLS, *(n for n in plugin_names("exporter") if n not in EXPORT_TOOLS)]


def exporter(name: str) -> ExportTool:
    """Return a built-in tool, an entry point in `mixopt.exporters`, or an imported object.

    Args:
        name: Name of the tool, or `package.module:NAME` of an `ExportTool`.

    Raises:
        ConfigError: An unknown name.
        PluginError: It cannot be imported, or is not an `ExportTool`.
    """
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
    lines = [
        *header,
        f"Mixture for {tool.title} (checked with {tool.version}): {tool.place}.",
        f"Unit: {tool.unit.meaning}.",
        f"Use: {tool.command}",
        *tool.notes,
    ]
    written = [[entry.domain for entry in entries] for entries in stages]
    if tool.unit.divides and any(len(names) > len(set(names)) for names in written):
        lines.append("A domain's amount is divided evenly among its paths.")
    left_out = [name for name in domains if not any(name in names for names in written)]
    if left_out:
        lines.append(f"weight 0, left out: {json.dumps(left_out)}")
    if isinstance(content, Noted):
        content, lines = content.content, [*lines, *content.lines]
    if tool.suffix == ".json":
        return json.dumps({"comment": lines, **content}, indent=1, ensure_ascii=False) + "\n"
    if not isinstance(content, str):
        content = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=10_000)
    return "".join(f"# {line}\n" for line in lines) + str(content)


def _entries(tool: ExportTool, mixture: Mixture, facts: Facts) -> list[Entry]:
    """Return the entries of a fragment; domains of weight 0 only if the tool takes them."""
    unit = tool.unit
    amounts = {
        name: unit.amount(name, share, facts) if share > 0 else 0.0
        for name, share in mixture.items()
        if share > 0 or tool.takes_zero
    }
    total = math.fsum(amounts.values()) if unit.normalised else 1.0
    entries = [
        entry
        for domain, amount in amounts.items()
        for entry in _domain_entries(tool, domain, amount / total, facts)
    ]
    owners: dict[tuple[str, str], str] = {}
    for entry in entries:
        _check_texts(tool, entry)
        texts = [("would both be named {!r}; rename one", entry.label)]
        for fault, text in texts + [("have the same path {!r}", path) for path in entry.paths]:
            owner = owners.setdefault((fault, text), entry.domain)
            if owner != entry.domain:
                domains = f"domains {owner!r} and {entry.domain!r}"
                raise ConfigError(f"{tool.name}: {domains} {fault.format(text)}")
    return entries


def _check_texts(tool: ExportTool, entry: Entry) -> None:
    """Raise on texts that the tool's parser would change."""
    variables = [text for text in (entry.label, *entry.paths) if "${" in text]
    spaced = [path for path in entry.paths if path != path.strip()]
    for flag, texts, change in (
        (tool.interpolates, variables, "reads ${{...}} in {} as a variable"),
        (tool.strips, spaced, "strips the spaces around {}"),
    ):
        if flag and texts:
            fault = change.format(f"{texts[0]!r} of domain {entry.domain!r}")
            raise ConfigError(f"{tool.name}: {fault}; give another path with --paths")


def _domain_entries(tool: ExportTool, domain: str, amount: float, facts: Facts) -> Iterator[Entry]:
    """Yield one entry, or one per path for tools with one path per entry."""
    paths, is_named = facts.places(domain), domain not in facts.paths
    if not tool.single_path or len(paths) == 1:
        yield Entry(domain, domain, paths, amount, is_named)
        return
    is_divisible = tool.unit.divides and float(amount).is_integer() and amount >= len(paths)
    for number, path in enumerate(paths):
        part = amount / len(paths) if tool.unit.divides else amount
        if is_divisible:
            part = float(int(amount) // len(paths) + (number < int(amount) % len(paths)))
        yield Entry(domain, f"{domain}.{number}", (path,), part, is_named)


def _constant_stages(schedule: Schedule) -> Iterator[tuple[str, int, int, Mixture, str]]:
    """Yield name, first step, end, mixture and header of each stage; divide linear stages."""
    names, spans = [stage.name for stage in schedule.stages], list(pairwise(schedule.starts))
    stages = list(zip(schedule.stages, spans, strict=True))
    pieces = min([PIECES, *(end - first for stage, (first, end) in stages if stage.to is not None)])
    for k, (stage, (first, end)) in enumerate(stages):
        name = str(k) if stage.name is None else stage.name
        if names.count(name) > 1:
            name = f"{name}-{k}"
        count = 1 if stage.to is None else pieces
        ends = [first + (end - first) * n // count for n in range(count + 1)]
        for n, (start, stop) in enumerate(pairwise(ends)):
            part_name, mixture, linear = name, stage.mixture, ""
            if stage.to is not None:
                part = ((start + stop) / 2 - first) / (end - first)
                mixture = Mixture({d: w + part * (stage.to[d] - w) for d, w in mixture.items()})
                linear = f"; step {n + 1} of {count} of a linear stage, the mixture of its middle"
                part_name = f"{name}-{n}"
            about = (
                f"{part_name}, steps {start:,} to {stop:,} of {schedule.batch:,} sequences of"
                f" {schedule.sequence_length:,}, {(stop - start) * schedule.step_tokens:,}"
                f" tokens{linear}"
            )
            yield part_name, start, stop, mixture, about
