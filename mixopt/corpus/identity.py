"""The identity of a corpus: a hash over its index files, which hold the hashes of all shards.

It is quick, however large the shards are, and tells a node whether what it sees is what the owner
of a sweep verified.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from mixopt.corpus.index_files import INDEX, TOKENIZER_FILES
from mixopt.errors import CorpusError


def corpus_hash(folder: Path) -> str:
    """Return the SHA-256, in hexadecimal digits, of what a corpus's index files say.

    Args:
        folder: The prepared corpus.

    Raises:
        CorpusError: There is no index, or a file cannot be read.
    """
    found = hashlib.sha256()
    files = [path for path in sorted(folder.rglob(INDEX)) if path.is_file()]
    files += [path for path in map(folder.joinpath, TOKENIZER_FILES) if path.is_file()]
    if not (folder / INDEX).is_file():
        raise CorpusError(f"{folder}: holds no prepared corpus: {INDEX} is missing")
    try:
        for path in files:
            content = path.read_bytes()
            name = path.relative_to(folder).as_posix()
            found.update(f"{name}\0{len(content)}\0".encode() + content)
    except OSError as reason:
        raise CorpusError(f"{reason.filename}: cannot be read: {reason.strerror}") from reason
    return found.hexdigest()
