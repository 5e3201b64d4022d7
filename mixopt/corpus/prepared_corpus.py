"""A corpus prepared by another run: checked against the configuration, and linked."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from mixopt.config import CorpusConfig, SourceConfig, TasksConfig
from mixopt.corpus.corpus import Corpus
from mixopt.corpus.index_files import INDEX
from mixopt.corpus.stored_corpus import corpus_files
from mixopt.errors import ConfigError, RunError
from mixopt.system import Say, is_url, local_path


def take_prepared(
    config: CorpusConfig,
    evaluation: Mapping[str, SourceConfig],
    tasks: TasksConfig | None,
    path: Path,
    progress: Say,
) -> Corpus:
    """Put the corpus that `prepared` names into a run; files are linked where links are possible.

    Args:
        config: `prepared`, and what the corpus must be.
        evaluation: Targets.
        tasks: Tasks.
        path: The folder of the run's corpus, which holds none.
        progress: Receives a line that says what was taken.

    Raises:
        CorpusError: There is no corpus, or it is not what its index says.
        ConfigError: It has other domains, targets, tasks or another tokenizer.
        RunError: The folder cannot be written.
    """
    assert config.prepared is not None
    where = config.prepared
    corpus = Corpus.open(where if is_url(where) else local_path(where))
    _check_same("corpus.domains", where, config.domains, corpus.domain_names)
    _check_same("evaluation", where, evaluation, [target.name for target in corpus.targets])
    _check_same("tasks", where, tasks.columns() if tasks else (), corpus.task_columns)
    if config.tokenizer != corpus.tokenizer:
        raise ConfigError(
            f"corpus.tokenizer: {config.tokenizer}, and {where} was prepared with"
            f" {corpus.tokenizer}; set that"
        )
    try:
        _link_all(corpus.path, path)
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from error
    tokens = sum(corpus.inventory.values())
    progress(f"{where}: {len(corpus.domains)} domains, {tokens:,} training tokens")
    return Corpus.open(path, verify=False)


def _check_same(field: str, where: str, wanted: Iterable[str], found: Iterable[str]) -> None:
    asked, there = list(wanted), list(found)
    if asked != there:
        shown = ", ".join(there) or "none"
        raise ConfigError(
            f"{field}: {', '.join(asked) or 'none'}, and {where} was prepared with {shown}, in this"
            " order; name these, or prepare the text"
        )


def _link_all(source: Path, path: Path) -> None:
    """Link or copy the files of a corpus, the index last."""
    files = [file for file in corpus_files(source) if file != source / INDEX]
    for file in (*files, source / INDEX):
        target = path / file.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            os.link(file.resolve(), target)
        except OSError:  # another disk, or a file system without links
            shutil.copyfile(file, target)
