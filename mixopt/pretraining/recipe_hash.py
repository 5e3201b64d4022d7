"""A hash of a pretraining that has yet to run: its fields, and what is in the files that it names.

A run that resumes compares its fields alone (`run_fingerprint`), for its corpus and its weights may
be moved. What is reused because its hash is the same must depend on all that decides its weights.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

from mixopt.corpus import corpus_hash
from mixopt.mixture import Mixture
from mixopt.pretraining.config import PretrainConfig
from mixopt.pretraining.directory import run_fingerprint
from mixopt.pretraining.model_origin import open_origin
from mixopt.pretraining.text import prepared_folder


def recipe_fingerprint(config: PretrainConfig) -> str:
    """Return a hash of all that the weights of a pretraining depend on.

    Of a prepared corpus, of weights that it starts from and of files of mixtures it is what they
    say, and not where they are alone.

    Raises:
        MixoptError: One of them is absent or damaged.
    """
    fields, named = run_fingerprint(config), dict(_named(config))
    if not named:
        return fields
    text = json.dumps([fields, named], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _named(config: PretrainConfig) -> Iterator[tuple[str, str]]:
    """Yield a hash of what each field names."""
    if config.prepared_corpus is not None:
        yield "prepared_corpus", corpus_hash(prepared_folder(config.prepared_corpus))
    if config.model.start is not None:
        origin = open_origin(config.model.start, trust=(config.model.name,))
        yield "model.from", origin.sha256
    for k, source in enumerate([config.mixture, *config.schedule]):
        if source.file is not None:
            yield f"mixture.{k}", Mixture.from_file(source.file).fingerprint
