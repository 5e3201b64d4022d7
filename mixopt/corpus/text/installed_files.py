"""List the files of the standard library and of the packages that mixopt's extras bring.

The list is a function of the installed versions of those packages alone: whatever else is
installed beside them is not looked at. A file's key is its path below its package, so the order
of keys does not depend on where Python lives.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import sysconfig
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from mixopt.errors import CorpusError

EXTRAS = ("regressors", "proxies", "mlflow")
STANDARD_LIBRARY = "python"
_TESTS = re.compile(r"(^|/)(tests?|_tests)/|(^|/)(test_[^/]*|[^/]*_test|conftest)\.py$")
_METADATA = re.compile(r"([^/-]+)-[^/]*\.dist-info/")
_NOT_LIBRARY = {"site-packages", "dist-packages", "__pycache__"}


@dataclass(frozen=True)
class InstalledFile:
    """One file of a package: where it is, and its path below the package."""

    package: str
    key: str
    path: str

    @cached_property
    def order(self) -> bytes:
        """Place in an order by hash, in which no package comes in one block."""
        return hashlib.blake2b(self.key.encode(), digest_size=8).digest()

    @property
    def is_test(self) -> bool:
        """Whether it belongs to a package's tests."""
        return _TESTS.search(self.key) is not None

    @property
    def half(self) -> int:
        """Return 0 or 1 by the end of its path, so that a vendored copy falls on the same side."""
        end = "/".join(self.key.split("/")[-2:])
        return hashlib.blake2b(end.encode(), digest_size=1).digest()[0] % 2


@dataclass(frozen=True)
class InstalledFiles:
    """The files, in order of their hash, and the versions that they come from."""

    files: tuple[InstalledFile, ...]
    versions: dict[str, str] = field(default_factory=dict)


def installed_files(root: str = "mixopt") -> InstalledFiles:
    """List the standard library and the packages that `root`'s extras need.

    Raises:
        CorpusError: `root` is not installed, or `packaging` is not.
    """
    packages = _closure(root, EXTRAS)
    packages.pop(_canonical(root), None)
    found = {file.path: file for file in _library_files()}
    for name, package in sorted(packages.items()):
        for file in _package_files(name, package):
            found.setdefault(file.path, file)
    versions = {STANDARD_LIBRARY: platform.python_version()}
    versions |= {name: package.version for name, package in sorted(packages.items())}
    in_order = sorted(found.values(), key=lambda file: (file.order, file.key, file.package))
    return InstalledFiles(tuple(in_order), versions)


def _closure(root: str, extras: tuple[str, ...]) -> dict[str, Distribution]:
    try:
        from packaging.requirements import Requirement

        distribution(root)
    except (ImportError, PackageNotFoundError) as error:
        raise CorpusError(
            f"the environment corpus needs {error.name}: pip install 'mixopt[proxies]'"
        ) from error
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [(_canonical(root), frozenset(extras))]
    while waiting:
        name, wanted = waiting.pop()
        package = _installed(name)
        if package is None or (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        found[name] = package
        for line in package.requires or []:
            need = Requirement(line)
            marker = need.marker
            if marker is None or any(marker.evaluate({"extra": e}) for e in wanted | {""}):
                waiting.append((_canonical(need.name), frozenset(need.extras)))
    return found


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def _package_files(name: str, package: Distribution) -> list[InstalledFile]:
    base = os.path.normpath(str(package.locate_file("")))
    return [
        InstalledFile(name, _key(path), os.path.join(base, path))
        for path in _recorded(package)
        if not path.startswith((".", "/")) and not path.endswith((".pyc", ".so"))
    ]


def _recorded(package: Distribution) -> list[str]:
    record = package.read_text("RECORD")
    if record is None:
        return [str(path) for path in package.files or []]
    lines = (line.rsplit(",", 2)[0] for line in record.splitlines() if line)
    return [line.strip('"') for line in lines]


def _key(path: str) -> str:
    """Leave the version out of the name of a folder with a package's metadata."""
    return _METADATA.sub(r"\1.dist-info/", path)


def _library_files() -> list[InstalledFile]:
    root = Path(sysconfig.get_path("stdlib"))
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in _NOT_LIBRARY]
        below = os.path.relpath(folder, root)
        for name in names:
            key = name if below == "." else f"{below}/{name}".replace(os.sep, "/")
            found.append(InstalledFile(STANDARD_LIBRARY, key, os.path.join(folder, name)))
    return found
