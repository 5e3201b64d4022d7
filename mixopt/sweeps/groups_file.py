"""Groups of trials that train together: `groups.json`, a list of lists of their names.

It is decided once and kept, because in bfloat16 a member's numbers depend slightly on the size
of its group: a resumed sweep forms the same groups. A group that was halved, since its worker
was short of memory, stands here as its halves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from mixopt.errors import RunError
from mixopt.system import check_names, read_json, write_json
from mixopt.trials import GROUPS

_Groups = list[Annotated[list[str], Field(min_length=1)]]


def read_groups(folder: Path) -> list[list[str]]:
    """Return the groups of a folder of trials; none where none were formed.

    Raises:
        RunError: The file is not what was written.
    """
    path = folder / GROUPS
    if not path.exists():
        return []
    try:
        groups: list[list[str]] = read_json(path, _Groups)
        names = Counter(name for group in groups for name in group)
        check_names(names, f"{path}: trial", RunError)
        twice = [name for name, times in names.items() if times > 1]
        if twice:
            raise RunError(f"{path}: trial {twice[0]!r} is in two places")
    except RunError as error:
        raise RunError(f"{error}; delete {path}, and the groups are formed again") from error
    return groups


def write_groups(folder: Path, groups: Sequence[Sequence[str]]) -> None:
    """Keep the groups."""
    write_json(folder / GROUPS, [list(group) for group in groups])
