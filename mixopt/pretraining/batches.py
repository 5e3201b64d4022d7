"""The text of a run, its mixtures, and this rank's batches of them.

The text is a prepared corpus, or streams that are read while the run trains. The sampler is told of
mixtures that are known beforehand when it is made; what is left to do for them while the run trains
is to write the mixture log (`FixedMixture`). What is wrong with text or mixtures is found before a
model is built, and said in one line.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from mixopt.corpus import (
    BadDocuments,
    Corpus,
    DocumentStream,
    Domain,
    NamedDomains,
    Tokenizer,
    TokenShards,
    prepare_corpus,
    prepare_stream,
    read_corpus_index,
    read_stream_index,
    saved_tokenizer,
)
from mixopt.errors import CorpusError, MixtureError, RunError, SamplerError
from mixopt.loading import MixtureDataset, MixtureLoader, MixtureStream
from mixopt.mixture import Mixture
from mixopt.online import MixtureLog
from mixopt.pretraining.config import MixtureSource, PretrainConfig, StreamConfig
from mixopt.pretraining.ranks import Ranks
from mixopt.sampling import MixtureSampler
from mixopt.system import Say, StateFields, is_url, local_path

HELD_OUT = "held_out"
Scheduled = list[tuple[int, Mixture, str]]  # first step of a mixture, the mixture, its source


@dataclass(frozen=True)
class StreamedText(NamedDomains):
    """Domains that are read while the run trains, and their held-out text on disk.

    Attributes:
        domains: Those to train on; `train` is None.
        targets: Those that are only evaluated.
        tokenizer: Makes the tokens.
        held_out: Digests of documents that are not trained on.
        inventory: Available tokens of each domain, where they are known.
    """

    domains: tuple[Domain, ...]
    targets: tuple[Domain, ...]
    tokenizer: Tokenizer
    held_out: frozenset[bytes]
    inventory: dict[str, int] | None

    @classmethod
    def open(cls, stream: StreamConfig, out: Path) -> StreamedText:
        """Open what `prepare_for` wrote."""
        path = out / HELD_OUT
        index = read_stream_index(path)

        def domain(name: str) -> Domain:
            return Domain(name, None, TokenShards.open(path / name / "validation", verify=False))

        return cls(
            domains=tuple(map(domain, index.domains)),
            targets=tuple(map(domain, index.targets)),
            tokenizer=saved_tokenizer(path, index.tokenizer),
            held_out=index.held_out,
            inventory=stream.tokens(),
        )

    @property
    def natural(self) -> Mixture | None:
        """Each domain's share of the tokens, where they are known."""
        return None if self.inventory is None else Mixture.natural(self.inventory)

    @property
    def vocab_size(self) -> int:
        """Ids of the tokenizer."""
        return self.tokenizer.vocab_size


Text = Corpus | StreamedText
Batches = MixtureLoader | MixtureStream


def prepare_for(config: PretrainConfig, out: Path, say: Say) -> None:
    """Make the corpus if the run prepares its own and it is not there; verify what is there."""
    common: dict[str, Any] = {
        "fingerprint": config.corpus_fingerprint,
        "min_tokens": config.row_length,
        "progress": lambda line: say(f"prepare: {line}"),
    }
    if config.stream is not None:
        stream, path = config.stream, out / HELD_OUT
        targets = {name: one.under(stream.root) for name, one in config.evaluation.items()}
        if not _is_there(path, config, read_stream_index):
            prepare_stream(stream.as_corpus(), stream.sources(), targets, path, **common)
        return
    path = corpus_path(config, out)
    if config.corpus is not None and not _is_there(
        path, config, partial(read_corpus_index, verify=False)
    ):
        prepare_corpus(config.corpus, config.evaluation, path, seed=config.seed, **common)
    else:
        Corpus.open(path)


def open_for(config: PretrainConfig, out: Path) -> Text:
    """Open the text, which was verified, and check that each domain has a row."""
    if config.stream is not None:
        return StreamedText.open(config.stream, out)
    corpus = Corpus.open(corpus_path(config, out), verify=False)
    row = config.row_length
    for domain in corpus.evaluation:
        for what, shards in (("training", domain.train), ("held-out", domain.validation)):
            if shards is not None and shards.tokens < row:
                raise CorpusError(
                    f"domain {domain.name!r}: {shards.tokens:,} {what} tokens, and one row takes"
                    f" {row:,}; lower training.sequence_length to {max(shards.tokens - 1, 1):,}, or"
                    " leave it out"
                )
    return corpus


def corpus_path(config: PretrainConfig, out: Path) -> Path:
    """Return the folder of the corpus; one in a store is fetched to this node."""
    given = config.prepared_corpus
    return out / "corpus" if given is None else prepared_folder(given)


def prepared_folder(given: str) -> Path:
    """Return the folder of a corpus that is prepared already; one in a store is fetched here."""
    return Corpus.open(given).path if is_url(given) else local_path(given)


def scheduled_mixtures(config: PretrainConfig, text: Text) -> Scheduled:
    """Return first step, mixture and source of each mixture that is known beforehand."""
    if config.plan is None:
        first = (0, _mixture(config.mixture, "mixture", text), f"start: {config.mixture.why}")
        later = [
            (entry.step, _mixture(entry, f"schedule.{k}", text), f"schedule: {entry.why}")
            for k, entry in enumerate(config.schedule)
        ]
        return [first, *later]
    stages: Scheduled = []
    for k, stage in enumerate(config.plan.stages):
        try:
            mixture = stage.mixture.over(text.domain_names)
        except MixtureError as error:
            raise MixtureError(f"schedule: stages.{k}.mixture: {error}") from error
        why = f"schedule: {stage.name or k}" + (", linearly to its end" if stage.to else "")
        stages.append((config.plan.starts[k], mixture, why))
    return stages


def batches_of(text: Text, config: PretrainConfig, known: Scheduled, ranks: Ranks) -> Batches:
    """Return the batches of this rank, one a step."""
    _check_ranks(config, ranks.count)
    order: dict[str, Any] = {
        "weights": known[0][1],
        "batch_size": config.training.batch,
        "seed": config.seed,
        "batches": config.training.steps,
        "schedule": _entries(config, known),
    }
    if isinstance(text, StreamedText):
        return _stream(text, config, ranks, order)
    dataset = MixtureDataset({d.name: d.train for d in text.domains}, length=config.row_length)
    if config.max_epochs is not None:
        _check_epochs(config, config.max_epochs, dataset.sizes, known)
    return MixtureLoader(
        dataset, MixtureSampler(dataset.sizes, **order, max_epochs=config.max_epochs)
    )


class FixedMixture:
    """Writes a line of the mixture log when a mixture begins to hold, as a driver does."""

    def __init__(self, known: Scheduled, log: Path) -> None:
        """Begin before the first step; the first mixture holds from batch 0."""
        self._known = {batch: (mixture, why) for batch, mixture, why in known}
        self._domains = list(known[0][1])
        self._log = MixtureLog(log)
        self._step, self._is_fresh, self._is_changed = 0, True, False

    def start(self) -> None:
        """Write the mixture that the run starts from, or resumes with where domains changed."""
        if self._is_fresh:
            self._log.cut(0)
            self._write()
        elif self._is_changed:
            before = max(batch for batch in self._known if batch <= self._step)
            self._write_line(self._known[before][0], "domains changed")

    def record(self, losses: Tensor, domain: Tensor, mask: Tensor | None = None) -> None:
        """Nothing depends on losses."""

    def step(self, *, learning_rate: float) -> None:
        """Note an optimizer step."""
        self._step += 1
        self._write()

    def state_dict(self) -> dict[str, Any]:
        """Return how many steps were taken and how long the log is."""
        return {"step": self._step, "domains": self._domains, "log_size": self._log.size}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a state; what the log has after it is cut off."""
        fields = StateFields(state, "the mixture's state", RunError)
        step, domains = fields.whole("step"), fields.texts("domains")
        self._log.cut(fields.whole("log_size"))
        self._step, self._is_fresh = step, False
        self._is_changed = domains != self._domains

    def _write(self) -> None:
        if self._step in self._known:
            self._write_line(*self._known[self._step])

    def _write_line(self, mixture: Mixture, why: str) -> None:
        self._log.write(self._step, self._step + 1, mixture, why, shadow=False)


def _is_there(path: Path, config: PretrainConfig, read: Any) -> bool:
    try:
        return bool(read(path).fingerprint == config.corpus_fingerprint)
    except CorpusError:  # there is none, or it is damaged: it is made
        return False


def _check_ranks(config: PretrainConfig, ranks: int) -> None:
    """Check that ranks and passes divide the batch."""
    batch = config.training.batch
    if batch % ranks:
        down = batch - batch % ranks
        near = f"{down} or {down + ranks}" if down else str(ranks)
        field = "training.batch" if config.plan is None else "schedule: batch"
        raise SamplerError(
            f"{field}: {batch} sequences over all ranks: {ranks} ranks do not divide it; use {near}"
        )
    rows, micro = batch // ranks, config.rows_of_pass(ranks)
    if rows % micro:
        raise SamplerError(
            f"training.micro_batch {micro} does not divide the {rows} sequences that each of"
            f" {ranks} ranks has of a batch of {batch}"
        )


def _entries(config: PretrainConfig, known: Scheduled) -> Sequence[Any]:
    """Return what the sampler is told of the mixtures; a first one that is linear comes again."""
    if config.plan is not None:
        return config.plan.entries
    return [(step, mixture) for step, mixture, _ in known[1:]]


def _stream(
    text: StreamedText, config: PretrainConfig, ranks: Ranks, order: Mapping[str, Any]
) -> MixtureStream:
    stream = config.stream
    assert stream is not None, "streamed text is opened for a stream"
    bad = BadDocuments(stream.on_bad_document)
    sources = {
        name: partial(DocumentStream, name, source, bad, text.held_out)
        for name, source in stream.sources().items()
    }

    def tokens(document: str) -> Any:
        return text.tokenizer.encode([document])

    return MixtureStream(
        sources,
        **order,
        length=config.row_length,
        tokenize=tokens,
        buffer=stream.buffer,
        rank=ranks.rank,
        world_size=ranks.count,
    )


def _mixture(source: MixtureSource, field: str, text: Text) -> Mixture:
    try:
        if source.anchor == "natural":
            if text.natural is None:
                raise MixtureError(
                    "natural is not known for a stream: give stream.domains.*.tokens"
                )
            return text.natural
        if source.anchor == "uniform":
            return Mixture.uniform(text.domain_names)
        given = Mixture.from_file(source.file) if source.file else Mixture(source.weights or {})
        return given.over(text.domain_names)
    except MixtureError as error:
        where = f"{field}.{'anchor' if source.anchor else 'file' if source.file else 'weights'}"
        raise MixtureError(f"{where}: {error}") from error


def _check_epochs(
    config: PretrainConfig, limit: float, sizes: Mapping[str, int], known: Scheduled
) -> None:
    """Check that a domain is long enough for its share of the run, to a sample."""
    samples = config.training.steps * config.training.batch
    for name, drawn in _drawn(config, known):
        allowed = int(limit * sizes[name])
        if drawn >= allowed + 1:
            epochs = math.ceil(1000 * drawn / sizes[name]) / 1000
            share = math.floor(1000 * allowed / samples) / 1000
            raise MixtureError(
                f"domain {name!r}: {drawn:,.0f} of {samples:,} sequences are {epochs:g} epochs of"
                f" its {sizes[name]:,}, and max_epochs is {limit:g}. Lower its share to {share:g},"
                f" or allow max_epochs: {epochs:g}"
            )


def _drawn(config: PretrainConfig, known: Scheduled) -> Iterable[tuple[str, float]]:
    """Yield the sequences that the known mixtures draw of each domain."""
    if config.plan is not None:
        length = config.training.sequence_length
        yield from ((name, tokens / length) for name, tokens in config.plan.domain_tokens().items())
        return
    ends = [*(step for step, _, _ in known[1:]), config.training.steps]
    for name in known[0][1]:
        steps = (m[name] * (end - step) for (step, m, _), end in zip(known, ends, strict=True))
        yield name, config.training.batch * math.fsum(steps)
