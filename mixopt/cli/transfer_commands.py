"""Commands that exchange data or train: import, export, pretrain, experts, verify, sync."""

import os
import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer import Argument

from mixopt.cli.options import (
    COMMAND,
    AsJson,
    Batch,
    Directory,
    File,
    FullLength,
    Ignore,
    Overrides,
    SizesPath,
    Text,
    Trusted,
    Whole,
    app,
    directory_of,
    left_out,
    option,
    print_answer,
    print_json,
    say,
    show,
    show_as_is,
)
from mixopt.errors import ConfigError

TABLES = {".csv", ".parquet"}
# What export writes beside the forms of trainers: unit, needs.
OTHER_TOOLS = {
    "schedule": ("mixtures by stage of a training", "--tokens"),
    "transformers-model": ("a pretraining's checkpoint, as transformers loads it", "--out"),
    "corpus": ("prepared token shards, for corpus.prepared", "--out URL"),
}


@app.command("import")
def import_command(
    files: Annotated[
        list[str], Argument(metavar="FILE...", help="Files, prefixes, globs or folders.")
    ],
    out: Annotated[Path, option("--out", "trials.parquet, L.csv, or a folder of shards.", "PATH")],
    tokenizer: Annotated[Text, option("--tokenizer", "The files are tokens of it.", "NAME")] = None,
    format: Annotated[Text, option("--format", "megatron, datatrove, npy or raw.")] = None,
    dtype: Annotated[
        Text, option("--dtype", "uint16, uint32, ...; required for raw tokens.")
    ] = None,
    document_end: Annotated[
        Whole, option("--document-end", "Id of the end-of-document token.")
    ] = None,
    key: Annotated[Text, option("--key", "Joins tables [default: detected].", "COLUMN")] = None,
    unit: Annotated[
        Literal["nats_per_token", "bits_per_byte"], option("--unit", "Unit of the losses.")
    ] = "nats_per_token",
    tolerance: Annotated[float, option("--tolerance", "How far weights may miss 1.")] = 0.01,
    ignore: Ignore = None,
    as_json: AsJson = False,
) -> None:
    """Read trials, results of tasks, or tokens of other tools.

    mixopt import W.csv L.csv --out trials.parquet            mixtures and losses of runs

    mixopt import results/*/results*.json --out L.csv         results of lm-eval or OLMES, by run

    mixopt import data/web_* --tokenizer gpt2 --out corpus/web/train   token shards of one domain
    """
    from mixopt.pipeline import import_results, read_tables

    if tokenizer is not None:
        from mixopt.corpus import import_tokens

        shards = import_tokens(
            files, out, format=format, tokenizer=tokenizer, document_end=document_end, dtype=dtype
        )
        content: dict[str, Any] = {"tokens": shards.tokens, "documents": shards.documents}
    elif format or dtype or document_end is not None:
        raise ConfigError("import: tokens need --tokenizer NAME, which is kept in their index")
    elif all(Path(file).suffix in TABLES for file in files):
        trials = read_tables(files, key=key, unit=unit, tolerance=tolerance, **left_out(ignore))
        trials.write(out)
        content = {
            "trials": len(trials),
            "domains": len(trials.domains),
            "losses": len(trials.targets),
        }
    else:
        runs, metrics = import_results(files, out)
        content = {"runs": runs, "metrics": metrics}
    counts = ", ".join(f"{count:,} {name}" for name, count in content.items())
    print_answer(as_json, {"path": str(out), **content}, f"{out}: {counts}")


@app.command("export")
def export_command(
    source: Annotated[
        Path | None,
        Argument(
            metavar="MIXTURE|SCHEDULE|RUN",
            help="YAML of a mixture or a schedule, or a run directory.",
        ),
    ] = None,
    to: Annotated[Text, option("--to", "What to write; --list shows all.", "TOOL")] = None,
    out: Annotated[Text, option("--out", "Write to this path.", "PATH")] = None,
    tokens: FullLength = None,
    inventory: SizesPath = None,
    paths: Annotated[File, option("--paths", "YAML of paths by domain.", "FILE")] = None,
    sample_tokens: Annotated[
        Text, option("--sample-tokens", "Mean tokens of a sample, by domain or one.", "FILE|N")
    ] = None,
    batch: Batch = None,
    show_tools: Annotated[
        bool, option("--list", "List what can be written, units and needs.")
    ] = False,
    trust: Trusted = False,
    as_json: AsJson = False,
) -> None:
    """Write a mixture in a trainer's form; a schedule, a model, a corpus."""
    from mixopt.config import token_count

    if show_tools:
        _show_tools(as_json)
        return
    if source is None or to is None:
        raise ConfigError("export: give MIXTURE --to TOOL; mixopt export --list shows the tools")
    if to in OTHER_TOOLS and out is None:
        raise ConfigError(f"export: --to {to} needs --out, the place to write to")
    if to != "schedule" and batch is not None:
        raise ConfigError("export: --batch is for --to schedule")
    options: dict[str, Any] = {"inventory": inventory, "trust": trust}
    options["tokens"] = token_count(tokens, "--tokens")
    if to == "corpus":
        _publish(source, out or "", as_json)
    elif to == "transformers-model":
        from mixopt.pretraining import export_model

        model = export_model(source, Path(out or ""), trust=trust)
        checkpoint = Path(model["checkpoint"]).name
        size = f"{model['architecture']}, {model['parameters']:,} parameters, from {checkpoint}"
        difference = f"largest difference of logits {model['largest_logit_difference']:.1e}"
        load = f'AutoModelForCausalLM.from_pretrained("{model["path"]}")'
        print_answer(as_json, model, f"{load}: {size}; {difference}")
    elif to == "schedule":
        from mixopt.pipeline import BATCH, schedule_of

        schedule = schedule_of(source, batch=batch or BATCH, **options)
        schedule.to_file(Path(str(out)))
        if as_json:
            print_json({"file": out, **schedule.to_json()})
            return
        show(f"{out}: {schedule.tokens:,} tokens in {schedule.steps:,} steps")
        show(f"{COMMAND}{shlex.join(['mixopt', 'predict', str(out)])}")
    else:
        from mixopt.pipeline import export

        texts = export(source, to, paths=paths, sample_tokens=sample_tokens, **options)
        _print_fragments(texts, to, out, as_json)


def _print_fragments(texts: dict[str, str], to: str, out: str | None, as_json: bool) -> None:
    """Write one file, or a file for each stage: `blend.json` becomes `blend.0-main.json`."""
    from mixopt.system import name_fault, write_text

    content: dict[str, Any] = {"fragments": texts}
    if "" in texts:
        content = {"fragment": texts[""]}
    if out is not None:
        files = []
        for stage, text in texts.items():
            path = Path(out)
            if stage:
                name = stage if name_fault(stage) is None else stage.partition("-")[0]
                path = path.with_name(f"{path.stem}.{name}{path.suffix}")
            write_text(path, text)
            files.append(str(path))
            say(f"{to}: {path}")
        content = {"files": files}
    elif len(texts) > 1 and not as_json:
        raise ConfigError(f"export: {to} needs one file per stage; give --out FILE")
    elif not as_json:
        text = "".join(texts.values())  # of one stage
        show_as_is(text.removesuffix("\n"))
    if as_json:
        print_json({"tool": to, **content})


def _publish(run: Path, url: str, as_json: bool) -> None:
    from mixopt.corpus import Corpus, publish_corpus

    folder = run / "corpus"
    corpus = Corpus.open(folder if folder.is_dir() else run)
    written = publish_corpus(corpus.path, url, say)
    if as_json:
        print_json({"url": url, "files_written": written})
        return
    result = f"{written} files written" if written else "already there"
    show(f"{url}: {result}")
    show(f"to use it: set corpus.prepared: {url}")


def _show_tools(as_json: bool) -> None:
    from mixopt.integrations import exporter, exporter_names
    from mixopt.reporting import table_text

    tools = []
    rows = []
    for tool in map(exporter, exporter_names()):
        content = {
            "name": tool.name,
            "title": tool.title,
            "checked_with": tool.version,
            "unit": tool.unit.name,
            "meaning": tool.unit.meaning,
            "needs": tool.unit.needs,
            "place": tool.place,
            "command": tool.command,
        }
        tools.append(content)
        rows.append((tool.name, tool.unit.name, " ".join(tool.unit.needs) or "nothing"))
    for name, (unit, needs) in OTHER_TOOLS.items():
        rows.append((name, unit, needs))
    text = table_text("Tools", ("tool", "unit", "needs"), rows, texts=("unit", "needs"))
    print_answer(as_json, {"tools": tools, "others": list(OTHER_TOOLS)}, text)


@app.command("pretrain")
def pretrain_command(
    config: Annotated[
        Path, Argument(metavar="CONFIG", help="The YAML file of the pretraining, or its directory.")
    ],
    out: Annotated[File, option("--out", "The directory [default: runs/<name of CONFIG>].")] = None,
    overrides: Overrides = None,
    score: Annotated[
        File, option("--score", "Score tasks/*.jsonl; train nothing.", "TASKS")
    ] = None,
    items: Annotated[
        Whole, option("--items", "With --score: N items of each task.", minimum=1)
    ] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"], option("--device", "Where --score computes.")
    ] = "auto",
    trust: Trusted = False,
    as_json: AsJson = False,
) -> None:
    """Pretrain a model on a mixture; the same command resumes.

    Its section `training` has steps, batch, sequence_length, lr with min_lr, warmup,
    schedule (cosine, linear, constant, wsd, inverse_sqrt) and lr_decay, AdamW's betas, eps and
    weight_decay, clip, precision and compile; an unknown field is an error with the nearest name.

    Also under torchrun:

    torchrun --nproc-per-node N -m mixopt pretrain CONFIG --out DIR

    With --score, CONFIG is a pretraining's directory, one of its checkpoints or a folder of
    transformers, which scores tasks in bits per byte, in float32.
    """
    from mixopt.pretraining import pretrain

    if score is not None:
        from mixopt.pretraining import score_tasks, scores_text

        scores = score_tasks(config, score, items=items, device=device, trust=trust)
        print_answer(as_json, scores, scores_text(scores))
        return
    result = pretrain(config, directory_of(config, out), overrides or (), say=say)
    if int(os.environ.get("RANK", "0")):
        return
    print_answer(as_json, result.to_json(), result)
    if result.interrupted:
        say(f"pretrain: step {result.step} is saved: {result.checkpoint}")
        raise typer.Exit(130)  # main prints how to resume
    if not result.is_finished:
        say(f"pretrain: stopped at step {result.step}; the same command resumes")


@app.command("experts")
def experts_command(
    directory: Directory,
    change: Annotated[
        Whole, option("--change", "Compare before [default: largest].", "STEP")
    ] = None,
    trust: Trusted = False,
    as_json: AsJson = False,
) -> None:
    """Show which experts serve which domain; draw the figures."""
    from mixopt.reporting import draw_experts, experts

    summary = experts(directory, change=change, trust=trust)
    files = draw_experts(summary)
    if as_json:
        print_json({**summary.to_json(), "figures": list(map(str, files))})
        return
    show(summary)
    say(f"figures: {', '.join(map(str, files))}")


@app.command("verify")
def verify_command(
    directory: Directory,
    deep: Annotated[
        bool, option("--deep", "Read large files again even if verified before.")
    ] = False,
    trust: Trusted = False,
    as_json: AsJson = False,
) -> None:
    """Check every file against its hash.

    Exit code 1 if one is damaged.
    """
    from mixopt.pipeline import verify_fit_folder
    from mixopt.reporting import verification_text
    from mixopt.run_directory import load_run, verify_run
    from mixopt.system import check_links

    if not trust:
        check_links(directory)
    if any((directory / name).exists() for name in ("checkpoints", "metrics.jsonl")):
        from mixopt.pretraining import verify_pretraining

        parts = verify_pretraining(directory)
    elif (directory / "config.yaml").exists():
        parts = verify_run(load_run(directory, trust=trust), deep=deep)
    else:
        parts = verify_fit_folder(directory)
    content = {"path": str(directory), "parts": [part.to_json() for part in parts]}
    print_answer(as_json, content, verification_text(parts))
    if any(part.faults for part in parts):
        raise typer.Exit(1)


@app.command("sync")
def sync_command(
    directory: Directory,
    uri: Annotated[Text, option("--uri", "Server [default: MLFLOW_TRACKING_URI].")] = None,
    trust: Annotated[
        bool, option("--trust", "Send to the server that the run itself names.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Send to MLflow what it does not have yet.

    Exit code 1 if something remains.
    """
    from mixopt.tracking import sync

    result = sync(directory, uri, trust=trust, say=say)
    print_answer(as_json, result._asdict(), f"{directory}: {result}")
    if result.trouble:
        raise typer.Exit(1)
