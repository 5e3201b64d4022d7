"""Commands of an experiment: init, count, check, run, one step, status."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from typer import Argument, Option

from mixopt.cli.options import (
    COMMAND,
    AsJson,
    ConfigPath,
    Directory,
    ExecutorName,
    From,
    OutPath,
    Overrides,
    Retry,
    Trusted,
    app,
    check_own,
    complain,
    config_of,
    directory_of,
    print_json,
    print_run,
    run_step,
    say,
    show,
    show_as_is,
    with_executor,
)
from mixopt.errors import ConfigError
from mixopt.system import without_secrets

if TYPE_CHECKING:
    pass


@app.command("init")
def init_command(
    paths: Annotated[
        list[Path],
        Argument(metavar="PATH...", help="A folder of domains, or a path for each domain."),
    ],
    out: Annotated[Path, Option("--out", metavar="FILE", help="The YAML file to write.")] = Path(
        "experiment.yaml"
    ),
    as_json: AsJson = False,
) -> None:
    """Write an experiment's YAML file from files of text.

    Of one folder, each subfolder and each file is a domain; of several paths, each path. Reads
    JSONL, JSON, CSV, Parquet, Arrow and text, also compressed. Where one file names the source of
    each row, its rows are split by source. Existing files are never overwritten.
    """
    from mixopt.pipeline import found_text, start_experiment

    found = start_experiment(paths, out, say)
    command = f"mixopt check {out}"
    if as_json:
        print_json({**found.to_json(), "next": command})
        return
    show(found_text(found))
    for note in found.notes:
        show(f"note: {note}")
    show(f"written: {out}")
    show(f"{COMMAND}{command}")


INVENTORY_HEADER = (
    "# Sizes of the whole domains, for corpus.inventory; written by mixopt count.\n"
    "# A number is of tokens; duplicates are counted.\n"
)


@app.command("check")
def check_command(
    config: ConfigPath,
    out: OutPath = None,
    overrides: Overrides = None,
    peak_tflops: Annotated[
        float,
        Option(
            "--peak-tflops",
            min=0.001,
            help="Peak TFLOP/s of the GPU, for the estimate of GPU hours.",
        ),
    ] = 989.0,
    utilisation: Annotated[
        float,
        Option(
            "--utilisation", min=0.001, max=1, help="Model FLOP utilisation, for the same estimate."
        ),
    ] = 0.4,
    trust: Trusted = False,
    as_json: AsJson = False,
) -> None:
    """Check CONFIG: problems, sizes, trials, time and cost."""
    from mixopt.config import load_config
    from mixopt.pipeline import check_experiment, check_json, check_lines

    check_own(config, trust)
    source = config_of(config)
    try:
        experiment = load_config(source, overrides or ())
    except ConfigError as error:
        _stop([str(error), *getattr(error, "__notes__", ())], as_json=as_json)
    directory = directory_of(source, out)
    found = check_experiment(experiment, out=directory, source=str(source), probe=True)
    if as_json:
        print_json(check_json(found, peak_tflops, utilisation))
    else:
        for line in check_lines(found, directory, peak_tflops, utilisation):
            show(line)
    if found.problems:
        _stop([str(problem) for problem in found.problems], as_json=False)


def _stop(problems: list[str], *, as_json: bool) -> NoReturn:
    """Print each problem, and exit with code 2."""
    if as_json:
        print_json({"problems": problems})
    for problem in problems:
        complain(without_secrets(problem))
    raise typer.Exit(2)


@app.command("count")
def count_command(
    config: ConfigPath,
    out: Annotated[
        Path | None, Option("--out", help="Write the sizes to this file, for corpus.inventory.")
    ] = None,
    overrides: Overrides = None,
    trust: Trusted = False,
    as_json: AsJson = False,
) -> None:
    """Count the tokens of the domains without tokenising them."""
    import yaml

    from mixopt.config import load_config
    from mixopt.corpus import count_domains, inventory_of
    from mixopt.reporting import counts_text
    from mixopt.system import write_text

    check_own(config, trust)
    source = config_of(config)
    # The inventory is left out: its file is about to be written.
    corpus = load_config(source, [*(overrides or ()), "corpus.inventory=null"]).corpus
    counts = count_domains(corpus, say)
    if out is not None:
        content = yaml.safe_dump(dict(inventory_of(counts)), sort_keys=False, allow_unicode=True)
        write_text(out, INVENTORY_HEADER + content)
    if as_json:
        print_json({"tokenizer": corpus.tokenizer, "domains": [c.to_json() for c in counts]})
        return
    show(counts_text(counts, corpus.tokenizer))
    show(
        f"inventory: {out}"
        if out
        else "to use these sizes: add --out inventory.yaml, and set corpus.inventory in CONFIG"
    )


@app.command("run")
def run_command(
    config: ConfigPath,
    out: OutPath = None,
    overrides: Overrides = None,
    executor: ExecutorName = None,
    redo: From = None,
    retry_failed: Retry = False,
    trust: Trusted = False,
    as_json: AsJson = False,
) -> None:
    """Run all steps in order; the same command resumes."""
    from mixopt import pipeline

    config = config_of(config)
    run = pipeline.run(
        config,
        directory_of(config, out),
        overrides=with_executor(overrides, executor),
        redo=redo,
        retry_failed=retry_failed,
        trust=trust,
        say=say,
    )
    print_run(run, as_json)


def _add_step(step: str, description: str) -> None:
    def command(
        config: ConfigPath,
        out: OutPath = None,
        overrides: Overrides = None,
        trust: Trusted = False,
        as_json: AsJson = False,
    ) -> None:
        run_step(step, config, out, overrides, trust, as_json)

    app.command(step, help=description)(command)


_add_step("prepare", "Read and tokenise the documents; write token shards.")
_add_step("design", "Choose the mixtures to try.")
_add_step("report", "Write report.html.")


@app.command("sweep")
def sweep_command(
    config: ConfigPath,
    out: OutPath = None,
    overrides: Overrides = None,
    executor: ExecutorName = None,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Print the scheduler's script without submitting it.")
    ] = False,
    trust: Trusted = False,
    as_json: AsJson = False,
) -> None:
    """Train a proxy on each mixture; the same command resumes."""
    given = with_executor(overrides, executor)
    if not dry_run:
        run_step("sweep", config, out, given, trust, as_json)
        return
    from mixopt.pipeline import sweep_script

    config = config_of(config)
    script = sweep_script(config, directory_of(config, out), overrides=given, trust=trust)
    print_json({"script": script}) if as_json else show_as_is(script.rstrip("\n"))


@app.command("validate")
def validate_command(
    config: ConfigPath,
    out: OutPath = None,
    overrides: Overrides = None,
    executor: ExecutorName = None,
    trust: Trusted = False,
    as_json: AsJson = False,
) -> None:
    """Train proposal and baselines; write the recommendation."""
    run_step("validate", config, out, with_executor(overrides, executor), trust, as_json)


@app.command("status")
def status_command(directory: Directory, trust: Trusted = False, as_json: AsJson = False) -> None:
    """Show what is done and running, the time left, the verdict."""
    from mixopt.pipeline import run_status, status_lines
    from mixopt.run_directory import load_run

    status = run_status(load_run(directory, trust=trust))
    if as_json:
        print_json(status)
    else:
        for line in status_lines(status):
            show(line)
