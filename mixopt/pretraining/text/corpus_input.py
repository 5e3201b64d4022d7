"""The text of a run: prepared into its directory, a folder that is there already, or streams.

What is wrong with it for this run is found before a model is built, and said in one line.
"""

from __future__ import annotations

from pathlib import Path

from mixopt.corpus import Corpus, prepare_corpus, read_corpus_index
from mixopt.errors import CorpusError
from mixopt.loading import UNKNOWN_SIZE, MixtureDataset, MixtureLoader
from mixopt.pretraining.config import PretrainConfig
from mixopt.pretraining.mixture_input import Scheduled, make_sampler
from mixopt.pretraining.ranks import Ranks
from mixopt.pretraining.text.stream_batches import StreamBatches
from mixopt.pretraining.text.stream_input import StreamedText, prepare_streams, rows_of
from mixopt.system import Say, is_url, local_path


def prepare_for(config: PretrainConfig, out: Path, say: Say) -> None:
    """Make the corpus if the run prepares its own and it is not there; verify what is there.

    Of streams, what is held out is read.

    Args:
        config: The run's; `prepared_corpus` is only verified.
        out: The run directory; the corpus is its folder `corpus`.
        say: Receives lines that say what was read and written.

    Raises:
        CorpusError: A source cannot be used, has too little text, or shards are damaged.
    """
    if config.stream is not None:
        prepare_streams(config, config.stream, out, say)
        return
    path = corpus_path(config, out)
    if config.corpus is not None and not _is_there(path, config.corpus_fingerprint):
        prepare_corpus(
            config.corpus,
            config.evaluation,
            path,
            fingerprint=config.corpus_fingerprint,
            seed=config.seed,
            min_tokens=config.row_length,
            progress=lambda line: say(f"prepare: {line}"),
        )
    else:
        Corpus.open(path)


def open_for(config: PretrainConfig, out: Path) -> Corpus | StreamedText:
    """Open the text, which was verified, and check that each domain has a row.

    Raises:
        CorpusError: A domain has less text to train on, or held out, than one row.
    """
    if config.stream is not None:
        return StreamedText.open(config.stream, out)
    corpus = Corpus.open(corpus_path(config, out), verify=False)
    for domain in corpus.evaluation:
        if domain.train is not None:
            _check_length(domain.name, "training", domain.train.tokens, config)
        _check_length(domain.name, "held-out", domain.validation.tokens, config)
    return corpus


def corpus_path(config: PretrainConfig, out: Path) -> Path:
    """Return the folder of the corpus; one in a store is fetched to this node."""
    given = config.prepared_corpus
    return out / "corpus" if given is None else prepared_folder(given)


def prepared_folder(given: str) -> Path:
    """Return the folder of a corpus that is prepared already; one in a store is fetched here."""
    return Corpus.open(given).path if is_url(given) else local_path(given)


def batches_of(
    text: Corpus | StreamedText, config: PretrainConfig, known: Scheduled, ranks: Ranks
) -> MixtureLoader | StreamBatches:
    """Return the batches of this rank, one a step.

    Args:
        text: The text of the run.
        config: Batches, seed and epochs.
        known: The mixtures that are known beforehand.
        ranks: This rank and the others.

    Raises:
        SamplerError: The ranks or the micro-batch do not divide the batch.
        MixtureError: A domain would be seen more often than `max_epochs`.
    """
    if isinstance(text, StreamedText):
        assert config.stream is not None, "streamed text is opened for a stream"
        sampler = make_sampler(
            config, dict.fromkeys(text.domain_names, UNKNOWN_SIZE), known, ranks.count
        )
        rows = rows_of(text, config.stream, config)
        return StreamBatches(sampler, rows, ranks, max_epochs=config.max_epochs)
    domains = {d.name: d.train for d in text.domains}

    dataset = MixtureDataset(domains, length=config.row_length)
    sampler = make_sampler(config, dataset.sizes, known, ranks.count)
    return MixtureLoader(dataset, sampler, watch=config.watch)


def _is_there(path: Path, fingerprint: str) -> bool:
    try:
        return read_corpus_index(path, verify=False).fingerprint == fingerprint
    except CorpusError:  # there is none, or it is damaged: it is made
        return False


def _check_length(name: str, what: str, tokens: int, config: PretrainConfig) -> None:
    row = config.row_length
    if tokens < row:
        raise CorpusError(
            f"domain {name!r}: {tokens:,} {what} tokens, and one row takes {row:,};"
            f" lower training.sequence_length to {max(tokens - 1, 1):,}, or leave it out"
        )
