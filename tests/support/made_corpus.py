"""Small corpora of lines of text: written, prepared, read back, refused."""

import json
import re

import numpy as np
from refusals import refuses

from mixopt.config import CorpusConfig, SourceConfig
from mixopt.corpus import prepare_corpus
from mixopt.errors import CorpusError
from mixopt.system import write_sealed

PREPARATION = ("seed", "min_tokens", "workers", "progress")


def write_lines(path, texts):
    """Write one document a line, and return the path."""
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


def prepared(out, domains, targets=None, **options):
    """Prepare a corpus; the options are its fields, and those of a preparation."""
    how = {name: options.pop(name) for name in PREPARATION if name in options}
    config = CorpusConfig.model_validate({"domains": domains, **options})
    sources = {name: SourceConfig(**source) for name, source in (targets or {}).items()}
    return prepare_corpus(config, sources, out, fingerprint="f00d", **how)


def refused(message, out, domains, targets=None, **options):
    """Check that a preparation is refused in one line and leaves no corpus."""
    message = re.escape(message)
    refuses(CorpusError, message, prepared, out, domains, targets, **options)
    assert not (out / "index.json").exists()


def documents(shards, end=256):
    """Return the documents of shards of bytes, each of which has its end."""
    tokens = shards.read(0, len(shards))
    *whole, rest = np.split(tokens, np.flatnonzero(tokens == end) + 1)
    assert not len(rest)
    return [bytes(item[:-1].tolist()).decode() for item in whole]


def content(path):
    """Return the bytes of every file below a folder."""
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def sealed_again(path, **changes):
    """Change fields of an index as a hostile writer does, who seals what he wrote."""
    index = json.loads(path.read_text()) | changes
    del index["sha256"]
    write_sealed(path, index)
