"""Delete what steps left in a run directory, never what a link in it leads to."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path


def delete_outputs(outputs: Iterable[Path], *, keep: str | None) -> None:
    """Delete files and folders.

    Args:
        outputs: They need not be there.
        keep: Entry of each folder that stays.
    """
    for output in outputs:
        if output.is_dir() and not output.is_symlink():
            _delete(output, keep=keep)
        else:
            output.unlink(missing_ok=True)


def _delete(folder: Path, *, keep: str | None) -> None:
    """Delete a folder, or all that is in it but one entry."""
    if keep is None or not (folder / keep).is_dir():
        shutil.rmtree(folder)
        return
    for path in folder.iterdir():
        if path.name == keep:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
