"""A Ray node's storage for a sweep: its corpus, and folders for files and logs.

A node that sees the owner's corpus, by its hash, uses it where it is. Another one gets its files
in pieces, once, into a cache by hash: under a temporary name, verified, then renamed. A piece is
small enough to travel inside a call, so that the corpus is never in the object store. Whether a
node sees the folder of the sweep's trials is told by a mark that its owner has put there.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mixopt.corpus import Corpus, corpus_hash, put_in_place
from mixopt.errors import CorpusError, MixoptError, RunError
from mixopt.sweeps.on_ray.ray_setup import MARK
from mixopt.sweeps.worker_logs import LOGS
from mixopt.system import below, temporary_path


class NodeStore:
    """Finds what groups need on this node; as an actor, it is given what is not there."""

    def __init__(self, setup: Mapping[str, Any], node: str) -> None:
        """Note what is wanted.

        Args:
            setup: Of the sweep, as mixopt.sweeps.on_ray.ray_setup makes it.
            node: What this node is called.
        """
        self._setup, self._node = setup, node
        self._wanted: str = setup["job"]["corpus_hash"]
        self._cache = cache_folder(setup["cache"])
        self._temporary: Path | None = None

    def look(self) -> dict[str, Any]:
        """Return where the corpus is, None where it is not, with the reason; files and logs."""
        path = Path(self._setup["job"]["corpus"])
        reason = self._fault(path)
        if reason is not None:
            path = self._cache / self._wanted
            if self._fault(path) is not None:
                return {"corpus": None, "reason": reason}
        return {"corpus": str(path), **self._places()}

    def begin(self) -> None:
        """Get ready for the files of the corpus."""
        self._drop()
        self._cache.mkdir(parents=True, exist_ok=True)
        self._temporary = temporary_path(self._cache / self._wanted)
        self._temporary.mkdir()

    def piece(self, name: str, at: int, content: bytes) -> None:
        """Take a piece of a file: what it has from a byte on."""
        assert self._temporary is not None
        path = below(self._temporary, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("r+b" if at else "wb") as stream:
            stream.seek(at)
            stream.write(content)

    def finish(self) -> str | None:
        """Verify what has come and give it its name; return what is wrong with it."""
        assert self._temporary is not None
        fault = put_in_place(self._temporary, self._cache / self._wanted, self._fault)
        self._drop()
        return fault

    def _fault(self, path: Path) -> str | None:
        """Return why a folder is not the corpus that is wanted."""
        if not path.is_dir():
            return f"{path} is not visible on {self._node}"
        try:
            if corpus_hash(path) != self._wanted:
                raise CorpusError(f"{path} on {self._node} is another corpus")
            Corpus.open(path, verify=True)
        except (MixoptError, OSError) as error:
            return str(error)
        return None

    def _places(self) -> dict[str, Any]:
        """Return the folder of files and that of logs: shared ones, or its own."""
        folder = Path(self._setup["folder"])
        shared = False
        with suppress(OSError):
            shared = (folder / MARK).read_text(encoding="utf-8") == self._setup["mark"]
        own = folder if shared else self._cache / "sweeps" / self._setup["name"]
        files = self._setup["job"]["training"]["files"] if shared else str(own / "files")
        return {"files": files, "shared": shared, "logs": str(own / LOGS)}

    def _drop(self) -> None:
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
        self._temporary = None


def cache_folder(given: str | None) -> Path:
    """Return a node's folder for corpora, from what a user wrote.

    Args:
        given: A path in which `~` and variables such as `$SCRATCH` are the node's; a folder of the
            user's among the system's temporary ones when None.

    Raises:
        RunError: It belongs to somebody else.
    """
    if given is not None:
        return Path(os.path.expandvars(given)).expanduser()
    user = os.getuid() if hasattr(os, "getuid") else ""
    folder = Path(tempfile.gettempdir(), f"mixopt-{user}")
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or (user != "" and folder.stat().st_uid != user):
        raise RunError(
            f"{folder}: belongs to another user; set sweep.options.cache to another folder"
        )
    return folder
