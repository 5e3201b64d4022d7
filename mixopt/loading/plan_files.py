"""Plans of large domains of token shards, in this node's cache: made once, then mapped.

    <cache>/packing/<key>/pieces.bin, rows.bin   the plan, as raw records
    <cache>/packing/<key>/plan.json              what they are, with their hashes; written last

The key is a hash of the tokens' hashes and of all that the plan follows from. A plan of less than
CACHED tokens is made again each time, which takes less than a second.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mixopt.errors import MixoptError
from mixopt.loading.document_sources import Documents, ShardDocuments
from mixopt.loading.packing_plan import PIECE, ROW, Packer, PackingPlan, Records, numbered
from mixopt.system import (
    FileRecord,
    Verifier,
    cache_folder,
    file_record,
    made_once,
    read_sealed,
    replacing,
    write_sealed,
)

CACHED = 1 << 24
FORMAT = "mixopt-packing/1"
_RECORD, _PIECES, _ROWS = "plan.json", "pieces.bin", "rows.bin"
_SHAPE = {"bytes": int, "sha256": str}


def plan_of(documents: Documents, packer: Packer) -> PackingPlan:
    """Return the plan of a source's documents, from the cache where it is large.

    Raises:
        CorpusError: The source cannot be planned.
        RunError: The cache cannot be written, or the disk is full.
    """
    if not isinstance(documents, ShardDocuments) or documents.shards.tokens < CACHED:
        return PackingPlan.of(packer.windows(documents.scan()))
    folder = cache_folder() / "packing" / _key(documents, packer)
    return made_once(folder, lambda: _found(folder), lambda: _made(folder, documents, packer))


def _key(documents: ShardDocuments, packer: Packer) -> str:
    shards = documents.shards
    said: list[Any] = [FORMAT, documents.document_end, asdict(packer), shards.dtype.name]
    found = hashlib.sha256(json.dumps(said).encode())
    for shard in shards.shards:
        found.update(f"\n{shard.tokens} {shard.sha256}".encode())
    return found.hexdigest()[:32]


def _made(folder: Path, documents: ShardDocuments, packer: Packer) -> PackingPlan:
    with ExitStack() as stack:
        paths = [stack.enter_context(replacing(folder / name)) for name in (_PIECES, _ROWS)]
        pieces, rows = (stack.enter_context(path.open("wb")) for path in paths)
        for window in numbered(packer.windows(documents.scan())):
            window.pieces_P.tofile(pieces)
            window.rows_R.tofile(rows)
    files = {name: file_record(folder / name).to_json() for name in (_PIECES, _ROWS)}
    write_sealed(folder / _RECORD, {"format": FORMAT, "files": files})
    return _mapped(folder)


def _found(folder: Path) -> PackingPlan | None:
    """Return a plan that is here; one that is damaged counts as none."""
    if not (folder / _RECORD).exists():
        return None
    try:
        said = read_sealed(folder / _RECORD, mend="it is made again")
        files = {name: FileRecord(**said["files"][name]) for name in (_PIECES, _ROWS)}
    except (MixoptError, KeyError, TypeError):
        return None
    return None if Verifier(folder).faults(files) else _mapped(folder)


def _mapped(folder: Path) -> PackingPlan:
    return PackingPlan(_map(folder / _PIECES, PIECE), _map(folder / _ROWS, ROW), is_mapped=True)


def _map(path: Path, kind: np.dtype[Any]) -> Records:
    if not path.stat().st_size:
        return np.empty(0, kind)
    return np.asarray(np.memmap(path, kind, mode="r"))
