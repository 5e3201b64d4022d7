"""The environment corpus: real text that the installed packages ship, on any machine.

Files are those of the standard library and of the packages that mixopt's extras bring, a function
of their versions alone: whatever else is installed beside them is not looked at. Each domain takes
its files in the order of a hash of their path until it has enough, so that no package crowds out
the rest and few files are read. No file serves two domains that share text: half of the packages'
Python files give docstrings, the other half code. A piece most of whose lines the domain has seen
is dropped, and all pieces of a file (of a package, where a package's files resemble each other)
stay on one side of the split, so that held-out text is new.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from mixopt.corpus import extract
from mixopt.corpus.documents import Document
from mixopt.errors import CorpusError, did_you_mean

DOMAIN_BYTES = 4_000_000
MIN_BYTES = 1_000_000
FILE_BYTES = 100_000  # of one file
MIN_LINE = 10  # characters of a line that is remembered
EXTRAS = ("regressors", "proxies", "mlflow")
STANDARD_LIBRARY = "python"

_TESTS = re.compile(r"(^|/)(tests?|_tests)/|(^|/)(test_[^/]*|[^/]*_test|conftest)\.py$")
_METADATA = re.compile(r"([^/-]+)-[^/]*\.dist-info/")
_NOT_LIBRARY = {"site-packages", "dist-packages", "__pycache__"}
_LEGAL = re.compile(r"(^|[/._-])(licen[cs]es?|copying|notices?|third.?party)([/._-]|$)", re.I)


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
    def is_legal(self) -> bool:
        """Whether it is a licence or a notice."""
        code = (".py", ".pyi", ".h", ".js", ".json")
        return _LEGAL.search(self.key) is not None and not self.key.endswith(code)

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


@dataclass(frozen=True)
class EnvironmentDomain:
    """One domain: which files it takes, and what it takes out of them."""

    description: str
    suffixes: tuple[str, ...]
    extract: Callable[[str], str]
    accepts: Callable[[InstalledFile], bool] = lambda file: not file.is_test
    by_package: bool = False
    file_bytes: int = FILE_BYTES


def _in_library(file: InstalledFile) -> bool:
    return file.package == STANDARD_LIBRARY and not file.is_test


def _in_packages(half: int) -> Callable[[InstalledFile], bool]:
    return lambda file: file.package != STANDARD_LIBRARY and not file.is_test and file.half == half


DOMAINS: dict[str, EnvironmentDomain] = {
    "docstrings": EnvironmentDomain(
        "English technical prose: docstrings of the packages' Python files",
        (".py",),
        extract.docstrings,
        _in_packages(0),
    ),
    "python_stdlib": EnvironmentDomain(
        "Python: the standard library", (".py",), extract.python_code, _in_library
    ),
    "python_site": EnvironmentDomain(
        "Python: the packages", (".py",), extract.python_code, _in_packages(1)
    ),
    "python_tests": EnvironmentDomain(
        "Python: tests", (".py",), extract.python_code, lambda file: file.is_test
    ),
    "cpp_headers": EnvironmentDomain(
        "C and C++ headers", (".h", ".hpp", ".hh", ".cuh", ".inl"), extract.c_code
    ),
    "cython": EnvironmentDomain("Cython", (".pyx", ".pxd", ".pxi"), extract.python_code),
    "stubs": EnvironmentDomain("Python type stubs", (".pyi",), extract.python_code),
    "javascript": EnvironmentDomain(
        "JavaScript, a line for each statement",
        (".js", ".mjs"),
        extract.minified_code,
        file_bytes=200_000,
    ),
    "css": EnvironmentDomain("style sheets", (".css",), extract.minified_code, file_bytes=200_000),
    "json": EnvironmentDomain("JSON", (".json",), extract.json_text, file_bytes=250_000),
    "numbers": EnvironmentDomain(
        "tables of numbers",
        (".csv", ".dat", ".txt"),
        extract.numbers,
        lambda file: not file.is_legal,
        file_bytes=300_000,
    ),
    "font_metrics": EnvironmentDomain("Adobe font metrics", (".afm",), extract.short_lines),
    "readme_markdown": EnvironmentDomain(
        "English: packages' descriptions and other Markdown and reStructuredText",
        ("dist-info/METADATA", ".md", ".rst"),
        extract.description,
        lambda file: not file.is_legal,
    ),
    "legal": EnvironmentDomain(
        "English: licences and notices",
        ("",),
        extract.short_lines,
        lambda file: file.is_legal,
        by_package=True,
    ),
    "config": EnvironmentDomain(
        "configuration",
        (".yaml", ".yml", ".toml", ".cfg", ".ini", ".cmake"),
        extract.python_code,
    ),
}


def environment_documents(name: str, installed: InstalledFiles | None = None) -> Iterator[Document]:
    """Give all pieces of one domain, reading files as they are asked for."""
    if name not in DOMAINS:
        raise CorpusError(f"unknown environment domain {name!r}{did_you_mean(name, DOMAINS)}")
    domain, seen = DOMAINS[name], set[str]()
    by_group: Counter[str] = Counter()
    for file in (installed or installed_files()).files:
        if not (file.key.endswith(domain.suffixes) and domain.accepts(file)):
            continue
        group = file.package if domain.by_package else f"{file.package}/{file.key}"
        for piece in extract.pieces(domain.extract(_read(file))):
            size = len(piece.encode())
            if by_group[group] + size > domain.file_bytes:
                break
            if len(piece) >= extract.MIN_PIECE and _is_new(piece, seen):
                by_group[group] += size
                yield Document(piece, group)


def _is_new(piece: str, seen: set[str]) -> bool:
    """Tell whether half of the text is in lines not seen before, and remember its lines."""
    lines = [line for line in map(str.strip, piece.split("\n")) if len(line) >= MIN_LINE]
    known = sum(len(line) for line in lines if line in seen)
    seen.update(lines)
    return 2 * known <= sum(map(len, lines))


def _read(file: InstalledFile) -> str:
    try:
        with open(file.path, encoding="utf-8") as stream:
            return stream.read()
    except (OSError, UnicodeDecodeError):
        return ""


@cache
def installed_files(root: str = "mixopt") -> InstalledFiles:
    """List the standard library and the packages that `root`'s extras need."""
    packages = _closure(root)
    packages.pop(_canonical(root), None)
    found = {file.path: file for file in _library_files()}
    for name, package in sorted(packages.items()):
        for file in _package_files(name, package):
            found.setdefault(file.path, file)
    versions = {STANDARD_LIBRARY: platform.python_version()}
    versions |= {name: package.version for name, package in sorted(packages.items())}
    in_order = sorted(found.values(), key=lambda file: (file.order, file.key, file.package))
    return InstalledFiles(tuple(in_order), versions)


def _closure(root: str) -> dict[str, Distribution]:
    """Return the packages that a package with its extras needs, itself among them."""
    try:
        from packaging.requirements import Requirement

        distribution(root)
    except (ImportError, PackageNotFoundError) as error:
        raise CorpusError(
            f"the environment corpus needs {error.name}: pip install 'mixopt[proxies]'"
        ) from error
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [(_canonical(root), frozenset(EXTRAS))]
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            package = distribution(name)
        except PackageNotFoundError:
            continue
        found[name] = package
        for line in package.requires or []:
            need = Requirement(line)
            marker = need.marker
            if marker is None or any(marker.evaluate({"extra": e}) for e in extras | {""}):
                waiting.append((_canonical(need.name), frozenset(need.extras)))
    return found


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _package_files(name: str, package: Distribution) -> Iterator[InstalledFile]:
    """Give a package's files; the name of its folder of metadata without the version."""
    base = os.path.normpath(str(package.locate_file("")))
    record = package.read_text("RECORD")
    if record is None:
        paths = [str(path) for path in package.files or []]
    else:
        lines = (line.rsplit(",", 2)[0] for line in record.splitlines() if line)
        paths = [line.strip('"') for line in lines]
    for path in paths:
        if not path.startswith((".", "/")) and not path.endswith((".pyc", ".so")):
            key = _METADATA.sub(r"\1.dist-info/", path)
            yield InstalledFile(name, key, os.path.join(base, path))


def _library_files() -> Iterator[InstalledFile]:
    root = Path(sysconfig.get_path("stdlib"))
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in _NOT_LIBRARY]
        below = os.path.relpath(folder, root)
        for name in names:
            key = name if below == "." else f"{below}/{name}".replace(os.sep, "/")
            yield InstalledFile(STANDARD_LIBRARY, key, os.path.join(folder, name))
