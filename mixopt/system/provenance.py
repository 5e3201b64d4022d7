"""Provenance of a run's numbers: versions, machine and commit, without names or paths."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version

# The folders of an absolute path; not those of an address or of a relative path.
_FOLDERS = re.compile(
    r"(?<![\w:/.~\\-])(?:file://)?(?:~?/|[A-Za-z]:[\\/])(?:[^\s/\\'\"<>|]+[/\\])+"
)

# What the numbers of a run depend on.
PACKAGES = (
    "mixopt",
    "numpy",
    "polars",
    "scipy",
    "scikit-learn",
    "lightgbm",
    "torch",
    "datasets",
    "tokenizers",
    "mlflow",
)


def package_versions() -> dict[str, str]:
    """Return the installed versions of Python and of the packages that a run depends on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> str:
    """Return the kind of machine in words: system, architecture and usable cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{platform.system()} {platform.machine()}, {cores} cores"


def git_commit() -> str | None:
    """Return the commit of the working directory, with `+` where files differ from it.

    git may run programs that the repository's own configuration names.
    """
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        return f"{commit}+" if _git("status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.SubprocessError):
        return None


def without_folders(text: str) -> str:
    """Return a text with the folders of absolute paths left out: `.../name`."""
    return _FOLDERS.sub("\N{HORIZONTAL ELLIPSIS}/", text)


def _git(*arguments: str) -> str:
    command = ["git", "-c", "core.fsmonitor=false", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=5)
    return done.stdout.strip()
