"""Commands of full-scale training: pretrain, simulate, token shards of other tools."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from mixopt.cli.options import (
    AsJson,
    Overrides,
    app,
    directory_of,
    print_json,
    say,
    show,
)


@app.command("pretrain")
def pretrain_command(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="The run's YAML file.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Its directory; runs/<name of CONFIG>.")
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Pretrain a model on a mixture; run it again and it goes on. Also under torchrun.

    torchrun --nproc-per-node N -m mixopt pretrain CONFIG --out DIR
    """
    from mixopt.pretraining import pretrain, result_lines

    directory = directory_of(config, out)
    result = pretrain(config, directory, overrides or (), say=say)
    if int(os.environ.get("RANK", "0")):
        return
    print_json(result.to_json()) if as_json else show("\n".join(result_lines(result)))
    if not result.is_finished:
        say(f"pretrain: stopped at step {result.step}; the same command goes on from here")


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
    from mixopt.sampling import simulate_proposal, simulation_json, simulation_lines

    simulation = simulate_proposal(
        proposal,
        batches=batches,
        batch_size=batch_size,
        length=length,
        corpus=corpus,
        max_epochs=max_epochs,
    )
    print_json(simulation_json(simulation)) if as_json else show(
        "\n".join(simulation_lines(simulation))
    )


tokens_app = typer.Typer(no_args_is_help=True, help="Token shards: of other tools, and in stores.")
app.add_typer(tokens_app, name="tokens")


@tokens_app.callback()
def _tokens() -> None:
    """Keep `import` a command of its own."""


@tokens_app.command("import")
def import_command(
    source: Annotated[
        list[str], typer.Argument(metavar="SOURCE...", help="Files, prefixes, globs, folders.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder, as corpus/web/train.")],
    tokenizer: Annotated[str, typer.Option("--tokenizer", help="Kept in the index.")],
    format: Annotated[
        str | None, typer.Option("--format", help="megatron, raw, llmc, npy, ...; found if absent.")
    ] = None,
    document_end: Annotated[
        int | None, typer.Option("--document-end", help="Id that ends a document.")
    ] = None,
    field: Annotated[
        str | None, typer.Option("--field", help="Field of a sample that has its tokens.")
    ] = None,
    copy: Annotated[bool, typer.Option("--copy", help="Copy where a link would do.")] = False,
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="uint16, uint32, ...; raw tokens need it.")
    ] = None,
    vocab_size: Annotated[
        int | None, typer.Option("--vocab-size", help="Ids of the tokenizer; tokens are checked.")
    ] = None,
) -> None:
    """Make token shards of one domain from the files of another tool."""
    from mixopt.corpus import import_tokens

    shards = import_tokens(
        source,
        out,
        format=format,
        tokenizer=tokenizer,
        document_end=document_end,
        field=field,
        copy=copy,
        dtype=dtype,
        vocab_size=vocab_size,
    )
    show(f"{out}: {shards.tokens:,} tokens, {shards.documents:,} documents")


@tokens_app.command("publish")
def publish_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run, or a prepared corpus.")],
    url: Annotated[str, typer.Argument(metavar="URL", help="A folder, as s3://bucket/corpus.")],
) -> None:
    """Write a run's prepared corpus to a store, for corpus.prepared of other runs."""
    from mixopt.corpus import Corpus, publish_corpus

    corpus = Corpus.open(run / "corpus" if (run / "corpus").is_dir() else run)
    written = publish_corpus(corpus.path, url, say)
    show(f"{url}: {written} files written" if written else f"{url}: is there already")
    show(f"next: corpus.prepared: {url}")
