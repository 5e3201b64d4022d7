"""Commands of full-scale training: pretrain, schedules, token shards of other tools."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from mixopt.cli.options import (
    COMMAND,
    AsJson,
    FullLength,
    Overrides,
    SizesPath,
    Trusted,
    app,
    directory_of,
    print_json,
    say,
    show,
)


@app.command("pretrain")
def pretrain_command(
    config: Annotated[
        Path, Argument(metavar="CONFIG", help="The YAML file of the pretraining, or its directory.")
    ],
    out: Annotated[
        Path | None, Option("--out", help="The directory [default: runs/<name of CONFIG>].")
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Pretrain a model on a mixture; the same command resumes.

    Its section `training` has steps, batch, sequence_length, lr with min_lr, warmup,
    schedule (cosine, linear, constant, wsd, inverse_sqrt) and lr_decay, AdamW's betas, eps and
    weight_decay, clip, precision and compile; an unknown field is answered with the nearest one.

    Also under torchrun:

    torchrun --nproc-per-node N -m mixopt pretrain CONFIG --out DIR
    """
    from mixopt.pretraining import pretrain, result_lines

    directory = directory_of(config, out)
    result = pretrain(config, directory, overrides or (), say=say)
    if int(os.environ.get("RANK", "0")):
        return
    print_json(result.to_json()) if as_json else show("\n".join(result_lines(result)))
    if result.interrupted:
        say(f"pretrain: step {result.step} is saved: {result.checkpoint}")
        raise typer.Exit(130)  # which is answered with how to resume
    if not result.is_finished:
        say(f"pretrain: stopped at step {result.step}; the same command resumes")


@app.command("simulate")
def simulate_command(
    source: Annotated[
        Path, Argument(metavar="SOURCE", help="A schedule, a mixture, a proposal or a run.")
    ],
    batches: Annotated[
        int | None, Option("--batches", help="Global batches of the job (for a mixture).")
    ] = None,
    batch_size: Annotated[
        int | None, Option("--batch-size", help="Samples of a global batch [default: 256].")
    ] = None,
    length: Annotated[
        int | None, Option("--length", help="Tokens of a sample [default: 2048].")
    ] = None,
    corpus: Annotated[
        Path | None, Option("--corpus", help="Prepared corpus whose tokens are the sizes.")
    ] = None,
    inventory: SizesPath = None,
    max_epochs: Annotated[
        float | None, Option("--max-epochs", help="Maximum epochs per domain.")
    ] = None,
    trust: Trusted = False,
    as_json: AsJson = False,
) -> None:
    """Show the shares and epochs that a job would draw."""
    from mixopt.pipeline import simulate_from
    from mixopt.reporting import schedule_text

    forecast = simulate_from(
        source,
        batches=batches,
        batch_size=batch_size,
        length=length,
        corpus=corpus,
        inventory=inventory,
        max_epochs=max_epochs,
        trust=trust,
    )
    print_json(forecast.to_json()) if as_json else show(schedule_text(forecast))


@app.command("schedule")
def schedule_command(
    source: Annotated[
        Path, Argument(metavar="RUN|MIXTURE", help="A run directory, or YAML of a mixture.")
    ],
    out: Annotated[Path, Option("--out", metavar="FILE", help="The file to write.")],
    tokens: FullLength = None,
    stages: Annotated[
        str | None,
        Option(
            "--stages",
            help="PHASE:LENGTH[:[to:]MIXTURE], such as stable:90%,anneal:10%:to:anneal.yaml.",
        ),
    ] = None,
    batch: Annotated[int, Option("--batch", help="Sequences of a global batch.")] = 1024,
    length: Annotated[
        int, Option("--sequence-length", help="Predicted tokens of a sequence.")
    ] = 4096,
    max_epochs: Annotated[
        float | None, Option("--max-epochs", help="Maximum epochs per domain, over all stages.")
    ] = None,
    inventory: SizesPath = None,
    trust: Trusted = False,
    as_json: AsJson = False,
) -> None:
    """Write a schedule: mixtures by stage of a training."""
    from mixopt.config import token_count
    from mixopt.pipeline import ONE_STAGE, schedule_from

    schedule = schedule_from(
        source,
        tokens=token_count(tokens, "--tokens"),
        batch=batch,
        sequence_length=length,
        stages=stages or ONE_STAGE,
        max_epochs=max_epochs,
        inventory=inventory,
        trust=trust,
    )
    schedule.to_file(out)
    if as_json:
        print_json({"file": str(out), **schedule.to_json()})
    else:
        show(f"{out}: {schedule.tokens:,} tokens in {schedule.steps:,} steps")
        show(f"{COMMAND}mixopt simulate {out}")


tokens_app = typer.Typer(
    no_args_is_help=True, help="Import token shards; publish a corpus to a store."
)
app.add_typer(tokens_app, name="tokens")


@tokens_app.callback()
def _tokens() -> None:
    """Group the commands of token shards."""


@tokens_app.command("import")
def import_command(
    source: Annotated[
        list[str], Argument(metavar="SOURCE...", help="Files, prefixes, globs or folders.")
    ],
    out: Annotated[
        Path, Argument(metavar="OUT", help="The folder to write, such as corpus/web/train.")
    ],
    tokenizer: Annotated[
        str, Option("--tokenizer", help="Name of the tokenizer, kept in the index.")
    ],
    format: Annotated[
        str | None,
        Option("--format", help="megatron, datatrove, llmc, npy or raw [default: detected]."),
    ] = None,
    document_end: Annotated[
        int | None, Option("--document-end", help="Id of the end-of-document token.")
    ] = None,
    copy: Annotated[bool, Option("--copy", help="Copy files rather than link them.")] = False,
    dtype: Annotated[
        str | None, Option("--dtype", help="uint16, uint32, ...; required for raw tokens.")
    ] = None,
    vocab_size: Annotated[
        int | None, Option("--vocab-size", help="Vocabulary size, to check the tokens against.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make token shards of one domain from the files of another tool."""
    from mixopt.corpus import import_tokens

    shards = import_tokens(
        source,
        out,
        format=format,
        tokenizer=tokenizer,
        document_end=document_end,
        copy=copy,
        dtype=dtype,
        vocab_size=vocab_size,
    )
    counts = {"tokens": shards.tokens, "documents": shards.documents}
    if as_json:
        print_json({"path": str(out), **counts})
    else:
        show(f"{out}: {shards.tokens:,} tokens, {shards.documents:,} documents")


@tokens_app.command("publish")
def publish_command(
    run: Annotated[Path, Argument(metavar="RUN", help="A run, or a prepared corpus.")],
    url: Annotated[
        str, Argument(metavar="URL", help="A folder of a store, such as s3://bucket/corpus.")
    ],
    as_json: AsJson = False,
) -> None:
    """Write a prepared corpus to a store.

    Other runs use it through corpus.prepared.
    """
    from mixopt.corpus import Corpus, publish_corpus

    corpus = Corpus.open(run / "corpus" if (run / "corpus").is_dir() else run)
    written = publish_corpus(corpus.path, url, say)
    if as_json:
        print_json({"url": url, "files_written": written})
        return
    show(f"{url}: {written} files written" if written else f"{url}: already there")
    show(f"to use it: set corpus.prepared: {url}")
