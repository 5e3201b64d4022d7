"""A prepared corpus in a store: written there, its index last; fetched once a node, or read there.

    <cache>/corpora/<SHA-256 of index.json>/corpus/

`index.json` has the hashes of all indices of shards, and these have those of the shards, so that
its own hash names all that the corpus is made of.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from mixopt.corpus.index_files import INDEX, read_corpus_index, read_domain_names, read_records
from mixopt.corpus.shard_store import ATTEMPTS, ShardStore
from mixopt.corpus.token_shards import TokenShards
from mixopt.errors import CorpusError
from mixopt.system import (
    ContentCache,
    Say,
    StoredObject,
    below,
    cache_folder,
    check_links,
    fetched,
    file_hash,
    is_url,
    join_url,
    list_objects,
    local_path,
    made_once,
    naming,
    object_exists,
    read_object,
    silent,
    temporary_path,
    write_object,
)
from mixopt.tasks import TASK_FOLDER

Fault = Callable[[Path], str | None]
_AT_ONCE = 16  # indices that are asked for at the same time
_REMEMBERED = (".tmp", ".verified.json", ".lock")


def corpus_files(corpus: Path) -> list[Path]:
    """Return the files of a corpus; what was half-written or remembered there is left out."""
    return sorted(
        path for path in corpus.rglob("*") if path.is_file() and not path.name.endswith(_REMEMBERED)
    )


def put_in_place(temporary: Path, target: Path, fault: Fault) -> str | None:
    """Give a folder that has come its name, if it is right.

    Args:
        temporary: The folder.
        target: Its name; one that is there and right stays.
        fault: Says what is wrong with such a folder.

    Returns:
        What is wrong with it; None where it, or one that is right, is in place.
    """
    found = fault(temporary)
    if found is None:
        if target.exists() and fault(target) is not None:
            shutil.rmtree(target, ignore_errors=True)
        with suppress(OSError):  # another one was quicker
            temporary.rename(target)
    return found


def publish_corpus(corpus: Path, url: str, say: Say = silent) -> int:
    """Write a corpus to a store; whoever sees its index there sees all of it.

    Args:
        corpus: The folder, all of whose hashes are right.
        url: The folder in the store.
        say: Called with a line about what happens.

    Returns:
        How many files were written; 0 where it is there already.

    Raises:
        CorpusError: A link leads out of the folder, another corpus is there, the store refuses, or
            cannot be reached.
    """
    check_links(corpus, CorpusError)
    index = join_url(url, INDEX)
    if object_exists(index):
        if _same(index, corpus / INDEX):
            return 0
        raise CorpusError(f"{url}: already holds another corpus; choose another URL, or delete it")
    files = [path for path in corpus_files(corpus) if path != corpus / INDEX]
    for number, path in enumerate(files, start=1):
        name = path.relative_to(corpus).as_posix()
        write_object(path, join_url(url, name))
        say(f"publish: {number} of {len(files)}: {name}")
    write_object(corpus / INDEX, index)
    return len(files) + 1


def fetched_corpus(url: str, fault: Fault) -> Path:
    """Return the copy of a corpus on this node, fetched and verified unless it is here.

    Args:
        url: The folder in a store.
        fault: Says what is wrong with a folder that should be a whole corpus.

    Raises:
        CorpusError: No corpus is there, it is not what its index says, or it changed meanwhile.
        RunError: The cache cannot be written.
    """
    listed = _index_of(url)
    folder = cache_folder() / "corpora"
    folder.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(folder / INDEX)
    try:
        read_object(listed, temporary)
        key = file_hash(temporary)
    finally:
        temporary.unlink(missing_ok=True)
    target = folder / key / "corpus"

    def found() -> Path | None:
        return target if target.is_dir() and fault(target) is None else None

    return made_once(target.parent, found, lambda: _fetch(url, target, fault))


def stored_shards(url: str, split: str, cache_bytes: int | None = None) -> dict[str, TokenShards]:
    """Open the domains of a corpus in a store, whose shards are fetched when they are read.

    Args:
        url: The folder of the corpus.
        split: `train` or `validation`.
        cache_bytes: What shards may take on this node; None for half of what the disk has for them.

    Returns:
        The shards of each domain, in the corpus's order.

    Raises:
        CorpusError: No corpus is there, it is not what its index says, or the store refuses.
        RunError: The cache cannot be written.
    """
    (listed,) = list_objects(join_url(url, INDEX), attempts=ATTEMPTS)
    corpus = fetched(listed).path.parent
    names = read_domain_names(corpus)
    records = read_records(corpus)
    cache = ContentCache(cache_folder() / "shards", cache_bytes)

    def opened(name: str) -> TokenShards:
        place = f"{name}/{split}"
        (index,) = list_objects(join_url(url, f"{place}/{INDEX}"), attempts=ATTEMPTS)
        copy = fetched(index)
        known = records.get(f"{place}/{INDEX}")
        if known is not None and known.sha256 != copy.sha256:
            raise CorpusError(f"{index.url}: has changed since the corpus was published")
        with naming(copy.path.parent, join_url(url, place)):
            return TokenShards.open(copy.path.parent, store=ShardStore(join_url(url, place), cache))

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return dict(zip(names, pool.map(opened, names), strict=True))


def check_prepared(where: str) -> None:
    """Check that a corpus is where a folder or a URL says, without reading it.

    Raises:
        CorpusError: There is none, or the store refuses.
    """
    if is_url(where):
        _index_of(where)
    elif not (local_path(where) / INDEX).is_file():
        raise CorpusError(f"corpus.prepared: {where}: holds no prepared corpus (no {INDEX})")


def _index_of(url: str) -> StoredObject:
    """Return the index of a corpus in a store."""
    (listed,) = list_objects(join_url(url, INDEX))
    return listed


def _same(index: str, path: Path) -> bool:
    temporary = temporary_path(cache_folder() / INDEX)
    temporary.parent.mkdir(parents=True, exist_ok=True)
    try:
        read_object(list_objects(index)[0], temporary)
        return file_hash(temporary) == file_hash(path)
    finally:
        temporary.unlink(missing_ok=True)


def _fetch(url: str, target: Path, fault: Fault) -> Path:
    temporary = temporary_path(target)
    temporary.mkdir(parents=True)
    try:
        read_object(_index_of(url), temporary / INDEX)
        index = read_corpus_index(temporary, verify=False)
        parts = {*index.domains, *index.targets, TASK_FOLDER, "tokenizer.json", ".tokenizer"}
        start = len(_index_of(url).url) - len(INDEX)
        for stored in list_objects(url, hidden=True):
            name = stored.url[start:]
            if name.split("/", maxsplit=1)[0] in parts and not name.endswith(_REMEMBERED):
                path = below(temporary, name, CorpusError)
                path.parent.mkdir(parents=True, exist_ok=True)
                read_object(stored, path)
        shutil.rmtree(target, ignore_errors=True)
        found = put_in_place(temporary, target, fault)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    if found is not None:
        raise CorpusError(f"{url}: {found.replace(str(temporary), url)}")
    return target
