"""A prepared corpus in a store: published there, its index last, and fetched once a node.

    <cache>/corpora/<SHA-256 of index.json>/corpus/

`index.json` has the hashes of all indices of shards, and these have those of the shards, so that
its own hash names all that the corpus is made of.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from mixopt.corpus.index_files import INDEX, TASK_FOLDER, TOKENIZER_FILES, read_corpus_index
from mixopt.errors import CorpusError
from mixopt.system import (
    Say,
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
    object_exists,
    read_object,
    silent,
    temporary_path,
    write_object,
)

Fault = Callable[[Path], str | None]
_REMEMBERED = (".tmp", ".verified.json", ".lock")


def corpus_files(corpus: Path) -> list[Path]:
    """Return the files of a corpus; what was half-written or remembered there is left out."""
    return sorted(
        path for path in corpus.rglob("*") if path.is_file() and not path.name.endswith(_REMEMBERED)
    )


def publish_corpus(corpus: Path, url: str, say: Say = silent) -> int:
    """Write a corpus to a store; whoever sees its index there sees all of it."""
    check_links(corpus, CorpusError)
    index = join_url(url, INDEX)
    if object_exists(index):
        if file_hash(fetched(list_objects(index)[0])) == file_hash(corpus / INDEX):
            return 0
        raise CorpusError(f"{url}: already holds another corpus; choose another URL, or delete it")
    files = [path for path in corpus_files(corpus) if path != corpus / INDEX]
    for number, path in enumerate(files, start=1):
        name = path.relative_to(corpus).as_posix()
        write_object(path, join_url(url, name))
        say(f"publish: {number} of {len(files)}: {name}")
    write_object(corpus / INDEX, index)
    return len(files) + 1


def local_corpus(where: str | Path, fault: Fault) -> Path:
    """Return the folder of a corpus; one in a store is fetched whole, once a node, and verified."""
    if not is_url(where):
        return Path(where)
    url = str(where)
    index = fetched(list_objects(join_url(url, INDEX))[0])
    target = cache_folder() / "corpora" / file_hash(index) / "corpus"

    def found() -> Path | None:
        return target if target.is_dir() and fault(target) is None else None

    return made_once(target.parent, found, lambda: _fetch(url, index, target, fault))


def check_prepared(where: str) -> None:
    """Check that a corpus is where a folder or a URL says, without reading it."""
    if is_url(where):
        list_objects(join_url(where, INDEX))
    elif not (local_path(where) / INDEX).is_file():
        raise CorpusError(f"corpus.prepared: {where}: holds no prepared corpus (no {INDEX})")


def _fetch(url: str, listed: Path, target: Path, fault: Fault) -> Path:
    temporary = temporary_path(target)
    temporary.mkdir(parents=True)
    try:
        shutil.copyfile(listed, temporary / INDEX)
        index = read_corpus_index(temporary, verify=False)
        parts = {*index.domains, *index.targets, TASK_FOLDER, *TOKENIZER_FILES}
        start = len(list_objects(join_url(url, INDEX))[0].url) - len(INDEX)
        for stored in list_objects(url):
            name = stored.url[start:]
            if name.split("/", maxsplit=1)[0] in parts and not name.endswith(_REMEMBERED):
                path = below(temporary, name, CorpusError)
                path.parent.mkdir(parents=True, exist_ok=True)
                read_object(stored, path)
        found = fault(temporary)
        if found is None:
            shutil.rmtree(target, ignore_errors=True)
            temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    if found is not None:
        raise CorpusError(f"{url}: {found.replace(str(temporary), url)}")
    return target
