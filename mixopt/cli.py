"""The command line: parse, call the library, print the answer and the next step.

A mistake of the user's is one line on standard error and exit code 2. Everything but typer is
imported by the command that needs it, so that `--help` is quick.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mixopt.errors import ConfigError, MixoptError

if TYPE_CHECKING:
    from mixopt.run_directory import Run

app = typer.Typer(
    help="How much of each data domain should a language model see?",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="The experiment's YAML file.")]
OutPath = Annotated[
    Path | None,
    typer.Option("--out", help="The run directory; runs/<name of CONFIG> if not given."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=VALUE", help="Override a field; repeatable."),
]
Directory = Annotated[Path, typer.Argument(metavar="DIR", help="A run directory.")]
MixturesPath = Annotated[Path | None, typer.Option("--mixtures", help="CSV of weights by domain.")]
LossesPath = Annotated[
    Path | None, typer.Option("--losses", help="CSV of losses by evaluation domain.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
From = Annotated[str | None, typer.Option("--from", metavar="STEP", help="Redo from this step on.")]
Retry = Annotated[bool, typer.Option("--retry-failed", help="Train failed trials again.")]


def run_command_line() -> None:
    """Run a command; turn our errors into one line and exit code 2."""
    try:
        app()
    except MixoptError as error:
        sys.stderr.write(f"mixopt: {error}\n")
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        sys.stderr.write("mixopt: interrupted; the same command goes on from here\n")
        raise SystemExit(130) from None


@app.command("run")
def run_command(
    config: ConfigPath,
    out: OutPath = None,
    overrides: Overrides = None,
    redo: From = None,
    retry_failed: Retry = False,
    as_json: AsJson = False,
) -> None:
    """Do all steps in order; run it again and it goes on where it was."""
    from mixopt import steps

    run = steps.run(
        config,
        _directory(config, out),
        overrides=overrides or (),
        redo=redo,
        retry_failed=retry_failed,
        say=_say,
    )
    _print_run(run, as_json)


def _add_step(step: str, description: str) -> None:
    def command(
        config: ConfigPath,
        out: OutPath = None,
        overrides: Overrides = None,
    ) -> None:
        from mixopt import steps

        function: Callable[..., Run] = getattr(steps, step)
        run = function(config, _directory(config, out), overrides=overrides or (), say=_say)
        _next_step(run)

    app.command(step, help=description)(command)


_add_step("prepare", "Read the documents; write token shards.")
_add_step("design", "Choose the mixtures to try.")
_add_step("sweep", "Train a proxy on each mixture; resumable.")
_add_step("validate", "Train the proposal against its baselines.")
_add_step("report", "Write report.html.")


@app.command("fit")
def fit_command(
    config: Annotated[
        Path | None, typer.Argument(metavar="[CONFIG]", help="An experiment.")
    ] = None,
    out: OutPath = None,
    overrides: Overrides = None,
    mixtures: MixturesPath = None,
    losses: LossesPath = None,
    regressor: Annotated[
        list[str] | None, typer.Option("--regressor", help="Let this one compete; repeatable.")
    ] = None,
    target: Annotated[
        list[str] | None, typer.Option("--target", help="Minimise this loss; the mean of several.")
    ] = None,
) -> None:
    """Fit the regressors; choose one by cross-validation.

    Either of an experiment's trials, or of tables that there are: --mixtures and --losses.
    """
    if (config is None) == (mixtures is None and losses is None):
        raise ConfigError("fit: give either CONFIG, or --mixtures and --losses with --out")
    if config is not None:
        if target or regressor:
            raise ConfigError("fit: --target and --regressor go with tables; CONFIG has its own")
        from mixopt import steps

        _next_step(steps.fit(config, _directory(config, out), overrides=overrides or (), say=_say))
        return
    if mixtures is None or losses is None or out is None:
        raise ConfigError("fit: --mixtures, --losses and --out go together")
    from mixopt.tables import fit_tables

    fitted = fit_tables(mixtures, losses, out, regressors=regressor or (), targets=target or ())
    for note in fitted.trials.notes:
        _say(f"fit: {note}")
    print(f"fit: {fitted.summary()}")
    print(f"next: mixopt propose {out}")


@app.command("evaluate")
def evaluate_command(
    directory: Directory,
    mixtures: Annotated[Path, typer.Option("--mixtures", help="CSV of weights by domain.")],
    losses: Annotated[Path, typer.Option("--losses", help="CSV of losses by evaluation domain.")],
    as_json: AsJson = False,
) -> None:
    """Test a fit against runs that it has not seen."""
    from mixopt.summary import evaluation_text
    from mixopt.tables import evaluate_fit

    found = evaluate_fit(directory, mixtures, losses)
    _print_json(found) if as_json else print(evaluation_text(found))


@app.command("propose")
def propose_command(
    source: Annotated[
        Path, typer.Argument(metavar="CONFIG|DIR", help="An experiment, or a folder with a fit.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="The run directory; for DIR, the file to write.")
    ] = None,
    overrides: Overrides = None,
    target: Annotated[str | None, typer.Option("--target", help="Minimise this loss.")] = None,
    tokens: Annotated[
        float | None, typer.Option("--tokens", help="Length of the full run, such as 25e9.")
    ] = None,
    constraints: Annotated[
        Path | None, typer.Option("--constraints", help="YAML of bounds and max_epochs.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Search for the mixture with the best predicted objective."""
    if source.is_dir():
        if overrides:
            raise ConfigError("propose: --set goes with CONFIG, not DIR")
        from mixopt.summary import proposal_text
        from mixopt.tables import propose_from

        if tokens is not None and not 1 <= tokens < 1e18:
            raise ConfigError(f"--tokens {tokens:g}: must be at least 1, and less than 1e18")
        length = None if tokens is None else int(tokens)
        proposal = propose_from(source, target=target, tokens=length, constraints=constraints)
        path = out or source / "proposals" / f"{target or 'objective'}.yaml"
        proposal.to_file(path)
        _print_json(proposal.to_json()) if as_json else print(proposal_text(proposal))
        _say(f"proposal: {path}")
        return
    if target or tokens or constraints:
        raise ConfigError("propose: --target, --tokens and --constraints go with DIR, not CONFIG")
    from mixopt import steps

    run = steps.propose(source, _directory(source, out), overrides=overrides or (), say=_say)
    _next_step(run)


@app.command("status")
def status_command(
    directory: Directory,
    as_json: AsJson = False,
) -> None:
    """Say what is done, running and failed, and how long is left."""
    from mixopt.run_directory import load_run
    from mixopt.status import run_status, status_lines

    status = run_status(load_run(directory))
    if as_json:
        _print_json(status)
    else:
        for line in status_lines(status):
            print(line)


@app.command("simulate")
def simulate_command(
    proposal: Annotated[Path, typer.Argument(metavar="PROPOSAL", help="A mixture or proposal.")],
    batches: Annotated[int, typer.Option("--batches", help="Global batches of the job.")],
    batch_size: Annotated[
        int, typer.Option("--batch-size", help="Samples of one, all ranks.")
    ] = 256,
    length: Annotated[int, typer.Option("--length", help="Tokens of a sample.")] = 2048,
    corpus: Annotated[
        Path | None, typer.Option("--corpus", help="Prepared corpus; beside PROPOSAL if not given.")
    ] = None,
    max_epochs: Annotated[
        float | None, typer.Option("--max-epochs", help="How often a domain may be drawn through.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a job would draw: realised shares, epochs, when a domain runs out."""
    from mixopt.simulate import simulate_proposal, simulation_json, simulation_lines

    simulation = simulate_proposal(
        proposal,
        batches=batches,
        batch_size=batch_size,
        length=length,
        corpus=corpus,
        max_epochs=max_epochs,
    )
    _print_json(simulation_json(simulation)) if as_json else print(
        "\n".join(simulation_lines(simulation))
    )


tokens_app = typer.Typer(no_args_is_help=True, help="Token shards of other tools.")
app.add_typer(tokens_app, name="tokens")


@tokens_app.callback()
def _tokens() -> None:
    """Keep `import` a command of its own."""


@tokens_app.command("import")
def import_command(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help=".bin, prefix, or folder.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder, as corpus/web/train.")],
    tokenizer: Annotated[str, typer.Option("--tokenizer", help="Kept in the index.")],
    format: Annotated[
        str | None, typer.Option("--format", help="megatron, nanogpt, llmc, mds, litdata; found.")
    ] = None,
    document_end: Annotated[
        int | None, typer.Option("--document-end", help="Id that ends a document.")
    ] = None,
    field: Annotated[str, typer.Option("--field", help="Field of the tokens (mds, litdata).")] = (
        "tokens"
    ),
    copy: Annotated[bool, typer.Option("--copy", help="Copy where a link would do.")] = False,
) -> None:
    """Make token shards from Megatron's, nanoGPT's, Mosaic's or litdata's files."""
    from mixopt.loading.token_import import import_tokens

    shards = import_tokens(
        source,
        out,
        format=format,
        tokenizer=tokenizer,
        document_end=document_end,
        field=field,
        copy=copy,
    )
    print(f"{out}: {shards.tokens:,} tokens, {shards.documents:,} documents")


def _directory(config: Path, out: Path | None) -> Path:
    return out if out is not None else Path("runs") / config.stem


def _print_run(run: Run, as_json: bool) -> None:
    from mixopt.summary import run_summary, summary_text

    if as_json:
        _print_json(run_summary(run))
    else:
        print(summary_text(run))


def _next_step(run: Run) -> None:
    from mixopt.run_directory import STEPS

    waiting = [step for step in STEPS if not run.is_done(step)]
    if waiting:
        print(f"next: {run.command(waiting[0])}")
    else:
        print(f"all steps are done: {run.path / 'report.html'}")


def _print_json(content: dict[str, Any]) -> None:
    print(json.dumps(content, indent=1))


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
