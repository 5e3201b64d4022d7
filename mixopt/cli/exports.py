"""Commands that hand on to others: export, schedule, export-model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from mixopt.cli.options import (
    AsJson,
    FullLength,
    SizesPath,
    Trusted,
    app,
    print_json,
    say,
    show,
    show_as_is,
)
from mixopt.errors import ConfigError

if TYPE_CHECKING:
    from mixopt.exports import ExportTool
    from mixopt.pipeline import ExportAsked


@app.command("export")
def export_command(
    source: Annotated[
        Path | None,
        Argument(
            metavar="MIXTURE|SCHEDULE|DIR",
            help="YAML of a mixture or a schedule, or a run directory.",
        ),
    ] = None,
    to: Annotated[
        str | None,
        Option("--to", metavar="TOOL", help="The trainer to write for; --list shows all."),
    ] = None,
    inventory: SizesPath = None,
    tokens: FullLength = None,
    paths: Annotated[
        Path | None, Option("--paths", metavar="FILE", help="YAML of paths by domain.")
    ] = None,
    sample_tokens: Annotated[
        str | None,
        Option(
            "--sample-tokens",
            metavar="FILE|NUMBER",
            help="Mean tokens of a sample: YAML by domain, or one number.",
        ),
    ] = None,
    out: Annotated[
        Path | None, Option("--out", metavar="FILE", help="Write to this file [default: print].")
    ] = None,
    steps_per_stage: Annotated[
        int | None,
        Option(
            "--steps-per-stage",
            metavar="K",
            help="Approximate each linear stage by K constant ones.",
        ),
    ] = None,
    show_tools: Annotated[
        bool, Option("--list", help="List the trainers, their units and what they need.")
    ] = False,
    trust: Trusted = False,
    as_json: AsJson = False,
) -> None:
    """Write a mixture or a schedule in a trainer's form and unit."""
    from mixopt.config import token_count
    from mixopt.pipeline import ExportAsked
    from mixopt.sampling import is_schedule

    if show_tools:
        _show_tools(as_json)
        return
    asked = ExportAsked(inventory, token_count(tokens, "--tokens"), paths, sample_tokens)
    if source is None or to is None:
        raise ConfigError("export: give MIXTURE --to TOOL; mixopt export --list shows the tools")
    if source.is_file() and is_schedule(source):
        _write_schedule(source, to, asked, steps_per_stage, out, as_json)
    elif steps_per_stage is not None:
        raise ConfigError("export: --steps-per-stage is for schedules; this is a mixture")
    else:
        _write(source, to, asked, out, trust, as_json)


def _write(
    source: Path, to: str, asked: ExportAsked, out: Path | None, trust: bool, as_json: bool
) -> None:
    from mixopt.pipeline import export_from
    from mixopt.system import write_text

    text = export_from(source, to, asked=asked, trust=trust)
    if out is not None:
        write_text(out, text)
        say(f"{to}: {out}")
    elif as_json:
        print_json({"tool": to, "fragment": text})
    else:
        show_as_is(text.removesuffix("\n"))


def _write_schedule(
    source: Path,
    to: str,
    asked: ExportAsked,
    steps_per_stage: int | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Write one file, or one for each stage: `blend.json` becomes `blend.0-main.json`."""
    from mixopt.pipeline import export_schedule_from
    from mixopt.system import name_fault, write_text

    texts = export_schedule_from(source, to, asked=asked, steps_per_stage=steps_per_stage)
    if as_json:
        print_json({"tool": to, "fragments": texts})
        return
    if out is None:
        if len(texts) > 1:
            raise ConfigError(f"export: {to} needs one file per stage; give --out FILE")
        show_as_is(next(iter(texts.values())).removesuffix("\n"))
        return
    for stage, text in texts.items():
        name = stage if name_fault(stage) is None else stage.partition("-")[0]
        path = out.with_name(f"{out.stem}.{name}{out.suffix}") if stage else out
        write_text(path, text)
        say(f"{to}: {path}")


def _show_tools(as_json: bool) -> None:
    from mixopt.exports import exporter, exporter_names
    from mixopt.reporting import table_text

    tools = [exporter(name) for name in exporter_names()]
    if as_json:
        print_json({"tools": [_described(tool) for tool in tools]})
        return
    rows = [(tool.name, tool.unit.name, " ".join(tool.unit.needs) or "nothing") for tool in tools]
    show(table_text("Trainers", ("tool", "unit", "needs"), rows, texts=("unit", "needs")))


def _described(tool: ExportTool) -> dict[str, Any]:
    return {
        "name": tool.name,
        "title": tool.title,
        "checked_with": tool.version,
        "unit": tool.unit.name,
        "meaning": tool.unit.meaning,
        "needs": list(tool.unit.needs),
        "place": tool.place,
        "command": tool.command,
    }


@app.command("export-model")
def export_model_command(
    run: Annotated[Path, Argument(metavar="RUN", help="The directory of a pretraining.")],
    out: Annotated[Path, Option("--out", metavar="DIR", help="The folder to write.")],
    step: Annotated[
        int | None, Option("--step", min=0, help="Steps of the checkpoint [default: the newest].")
    ] = None,
    shard: Annotated[
        str, Option("--shard", metavar="SIZE", help="Largest file of weights, such as 500MB.")
    ] = "5GB",
    trust: Trusted = False,
    as_json: AsJson = False,
) -> None:
    """Write a checkpoint as a model that transformers loads.

    With its tokenizer; logits are compared with the run's before the folder is created.
    """
    from mixopt.pretraining import export_lines, export_model

    export = export_model(run, out, step=step, shard=shard, trust=trust)
    print_json(export.to_json()) if as_json else show("\n".join(export_lines(export)))
