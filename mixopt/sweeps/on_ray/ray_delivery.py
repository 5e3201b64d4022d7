"""Give a node the corpus of a sweep, from its owner, in pieces that travel inside calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mixopt.corpus import corpus_files, corpus_hash
from mixopt.errors import CorpusError

PIECE = 65_536  # bytes; Ray puts what is over 100 kB into its object store
ON_THE_WAY = 64  # pieces that no answer has come for yet


def deliver_corpus(store: Any, corpus: Path, wanted: str) -> str | None:
    """Send a corpus to a node's store (mixopt.sweeps.on_ray.ray_store).

    Args:
        store: The actor.
        corpus: The folder, as its owner sees it.
        wanted: Its hash.

    Returns:
        What is wrong with what has arrived; None where it is right.

    Raises:
        CorpusError: The owner's own corpus is another one by now.
    """
    import ray

    if corpus_hash(corpus) != wanted:
        raise CorpusError(
            f"{corpus}: differs from the corpus that the sweep started with; if it was prepared "
            "again, run the sweep again"
        )
    ray.get(store.begin.remote())
    sent: list[Any] = []
    for path in corpus_files(corpus):
        name = path.relative_to(corpus).as_posix()
        with path.open("rb") as stream:
            while (content := stream.read(PIECE)) or stream.tell() == 0:
                sent.append(store.piece.remote(name, stream.tell() - len(content), content))
                if len(sent) >= ON_THE_WAY:
                    ray.get(sent.pop(0))
                if not content:
                    break
    ray.get(sent)
    fault: str | None = ray.get(store.finish.remote())
    return fault
