"""Commands of an experiment and of its run: init, check, run, status, stop, report."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer import Argument

from mixopt.cli.options import (
    COMMAND,
    AsJson,
    ConfigPath,
    Directory,
    File,
    OutPath,
    Overrides,
    Text,
    Trusted,
    Whole,
    app,
    complain,
    config_of,
    directory_of,
    option,
    print_answer,
    print_json,
    say,
    show,
    show_as_is,
)
from mixopt.errors import ConfigError, RunError
from mixopt.system import without_secrets

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mixopt.config import Config
    from mixopt.run_directory import Run

INVENTORY_HEADER = (
    "# Sizes of the whole domains, for corpus.inventory; written by mixopt check --write.\n"
    "# A number is of tokens; duplicates are counted.\n"
)


@app.command("init")
def init_command(
    paths: Annotated[
        list[Path],
        Argument(metavar="PATH...", help="A folder of domains, or a path for each domain."),
    ],
    out: Annotated[Path, option("--out", "The YAML file to write.", "FILE")] = Path(
        "experiment.yaml"
    ),
    as_json: AsJson = False,
) -> None:
    """Write an experiment's YAML file from files of text.

    Of one folder, each subfolder and each file is a domain; of several paths, each path. Reads
    JSONL, JSON, CSV, Parquet, Arrow and text, also compressed. Never overwrites a file.
    """
    from mixopt.pipeline import domains_text, start_experiment

    domains, left_out = start_experiment(paths, out, say)
    command = shlex.join(["mixopt", "check", str(out)])
    if as_json:
        content = {
            "file": str(out),
            "domains": list(map(vars, domains)),
            "left_out": left_out,
            "next": command,
        }
        print_json(content)
        return
    show(domains_text(domains))
    show(f"written: {out}")
    show(f"{COMMAND}{command}")


@app.command("check")
def check_command(
    config: ConfigPath,
    overrides: Overrides = None,
    write: Annotated[File, option("--write", "Count domains; write sizes here.", "FILE")] = None,
    trust: Trusted = False,
    as_json: AsJson = False,
) -> None:
    """Check CONFIG: problems, sizes, trials, time and cost.

    With --write FILE, only the tokens of whole domains are counted, without tokenising them, for
    corpus.inventory: FILE.
    """
    from mixopt.pipeline import check

    source = config_of(config)
    _require_trust(config, trust)
    if write is not None:
        _write_sizes(source, overrides or [], write, as_json)
        return
    result = check(_loaded(source, overrides or [], as_json), probe=True)
    print_answer(as_json, result.to_json(), "\n".join(result.lines()))
    if result.problems:
        _stop(map(str, result.problems), as_json=False)


def _loaded(source: Path, overrides: list[str], as_json: bool) -> Config:
    """Load a configuration, or end with all of its errors."""
    from mixopt.config import load_config

    try:
        return load_config(source, overrides)
    except ConfigError as error:
        _stop([str(error), *getattr(error, "__notes__", ())], as_json=as_json)


def _write_sizes(source: Path, overrides: list[str], file: Path, as_json: bool) -> None:
    import yaml

    from mixopt.corpus import count_domains, inventory_of
    from mixopt.reporting import counts_text
    from mixopt.system import write_text

    if file.resolve() == source.resolve():
        raise ConfigError(f"--write {file}: is the configuration itself; give another file")
    # The inventory is left out: its file is about to be written.
    corpus = _loaded(source, [*overrides, "corpus.inventory=null"], as_json).corpus
    counts = count_domains(corpus, say)
    content = yaml.safe_dump(dict(inventory_of(counts)), sort_keys=False, allow_unicode=True)
    write_text(file, INVENTORY_HEADER + content)
    if as_json:
        print_json({"counted": [count.to_json() for count in counts]})
        return
    show(counts_text(counts, corpus.tokenizer))
    show(f"written: {file}; to use it, set corpus.inventory: {file}")


def _require_trust(source: Path, trust: bool) -> None:
    """Require --trust for the configuration that a run directory contains."""
    recorded = source.name == "config.yaml" and (source.parent / "steps.json").exists()
    if not trust and (recorded or source.is_dir()):
        raise RunError(
            f"{source}: is the record of a run directory, and would be imported and run; if you"
            " trust whoever made this directory, add --trust"
        )


def _stop(problems: Iterable[str], *, as_json: bool) -> NoReturn:
    if as_json:
        print_json({"problems": list(problems)})
    for problem in problems:
        complain(without_secrets(problem))
    raise typer.Exit(2)


@app.command("run")
def run_command(
    config: ConfigPath,
    out: OutPath = None,
    overrides: Overrides = None,
    until: Annotated[str, option("--until", "The last step to run.", "STEP")] = "report",
    redo: Annotated[Text, option("--from", "Redo this step and later ones.", "STEP")] = None,
    executor: Annotated[Text, option("--executor", "local, ray or slurm.", "NAME")] = None,
    retry_failed: Annotated[bool, option("--retry-failed", "Train failed trials again.")] = False,
    dry_run: Annotated[bool, option("--dry-run", "Print the scheduler's script alone.")] = False,
    trust: Trusted = False,
    as_json: AsJson = False,
) -> None:
    """Run the steps in order; the same command resumes.

    The steps: prepare, design, sweep, fit, propose, validate, report.
    """
    from mixopt import pipeline

    config = config_of(config)
    directory = directory_of(config, out)
    settings = list(overrides or ())
    if executor is not None:
        settings.append(f"sweep.executor={executor}")
    if dry_run:
        script = pipeline.sweep_script(config, directory, overrides=settings, trust=trust)
        if as_json:
            print_json({"script": script})
        else:
            show_as_is(script.rstrip("\n"))
        return
    run = pipeline.run(
        config,
        directory,
        overrides=settings,
        until=until,
        redo=redo,
        retry_failed=retry_failed,
        trust=trust,
        say=say,
        progress=True,
    )
    _print_run(run, until, as_json)


def _print_run(run: Run, last: str, as_json: bool) -> None:
    """Print the answer of a finished run, or the last step's result and the next command."""
    from mixopt.reporting import run_summary, step_result, summary_text
    from mixopt.run_directory import REPORT, STEPS

    if last == REPORT.name:
        print_answer(as_json, run_summary(run), summary_text(run))
        return
    done = [step.name for step in STEPS if run.is_done(step.name)]
    waiting = [step.name for step in STEPS if step.name not in done]
    command = run.command(until=waiting[0]) if waiting else None
    if as_json:
        content = {
            "path": str(run.path),
            "step": last,
            "result": step_result(run, last),
            "done": done,
            "waiting": waiting,
            "next": command,
        }
        print_json(content)
    elif command is not None:
        show(f"{COMMAND}{command}")
    else:
        show(f"all steps are done: {run.path / 'report.html'}")


@app.command("status")
def status_command(
    directory: Annotated[
        Path, Argument(metavar="RUN|FOLDER", help="A run directory, or a folder of several.")
    ],
    logs: Annotated[Text, option("--logs", "Print the log of this trial.", "TRIAL")] = None,
    lines: Annotated[
        Whole, option("--lines -n", "With --logs: the last N lines.", minimum=0)
    ] = None,
    show_readiness: Annotated[
        bool, option("--readiness", "Show how well losses tell mixtures apart.")
    ] = False,
    trust: Trusted = False,
    as_json: AsJson = False,
) -> None:
    """Show what is done and running, the time left, the verdict.

    Of a folder, show the runs in it.
    """
    if logs is None and lines is not None:
        raise ConfigError("--lines needs --logs TRIAL, such as t0007")
    from mixopt.pipeline import load_fit, status, status_lines, status_of_folder
    from mixopt.reporting import readiness_text, table_text
    from mixopt.run_directory import load_run

    if logs is not None:
        _print_log(load_run(directory, trust=trust), logs, lines, as_json)
        return
    content: dict[str, Any]
    if show_readiness:
        from mixopt.fitting import readiness

        ready = readiness(load_fit(directory, trust=trust))
        content, text = ready.to_json(), readiness_text(ready)
    elif directory.is_dir() and not (directory / "config.yaml").exists():
        runs = status_of_folder(directory, trust=trust)
        rows = [(run["run"], run["state"], run["answer"]) for run in runs]
        content = {"path": str(directory), "runs": runs}
        text = table_text(
            f"Runs in {directory}", ("run", "state", "answer"), rows, texts=("state", "answer")
        )
    else:
        content = status(load_run(directory, trust=trust))
        text = "\n".join(status_lines(content))
    print_answer(as_json, content, text)


def _print_log(run: Run, trial: str, lines: int | None, as_json: bool) -> None:
    from mixopt.pipeline import find_log, log_lines

    log = find_log(run, trial)
    if as_json:
        print_json({"trial": trial, "log": str(log), "lines": list(log_lines(log, lines))})
        return
    say(f"{log}:")
    for line in log_lines(log, lines):
        show_as_is(line)


@app.command("stop")
def stop_command(directory: Directory, trust: Trusted = False, as_json: AsJson = False) -> None:
    """Stop a sweep and its jobs.

    Exit code 1 if some are still running.
    """
    from mixopt.pipeline import stop, stop_lines
    from mixopt.run_directory import load_run

    run = load_run(directory, trust=trust)
    stopped, left = stop(run)
    content = {"path": str(run.path), "stopped": stopped, "left": left}
    print_answer(as_json, content, "\n".join(stop_lines(run, stopped, left)))
    if left:
        raise typer.Exit(1)


@app.command("report")
def report_command(directory: Directory, trust: Trusted = False, as_json: AsJson = False) -> None:
    """Write report.html of a validated run again."""
    from mixopt import pipeline
    from mixopt.run_directory import REPORT, VALIDATE, load_run

    load_run(directory, trust=trust).log.require(VALIDATE.name)
    run = pipeline.run(directory / "config.yaml", directory, redo=REPORT.name, trust=trust, say=say)
    page = run.path / "report.html"
    print_answer(as_json, {"report": str(page)}, f"report: {page}")
