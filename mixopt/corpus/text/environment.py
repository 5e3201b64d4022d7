"""The environment corpus: real text that the installed packages ship, on any machine.

Each domain takes its files in the order of a hash of their path until it has enough, so that no
package crowds out the rest and few files are read. No file serves two domains that share text:
half of the packages' Python files give docstrings, the other half code. A piece most of whose
lines the domain has seen is dropped, and all pieces of a file (of a package, where a package's
files resemble each other) stay on one side of the split, so that held-out text is new.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from mixopt.corpus.text import extract
from mixopt.corpus.text.documents import Document
from mixopt.corpus.text.installed_files import (
    STANDARD_LIBRARY,
    InstalledFile,
    InstalledFiles,
    installed_files,
)
from mixopt.errors import CorpusError, did_you_mean

DOMAIN_BYTES = 4_000_000
LEAST_BYTES = 1_000_000
FILE_BYTES = 100_000
LEAST_LINE = 10

_LEGAL = re.compile(r"(^|[/._-])(licen[cs]es?|copying|notices?|third.?party)([/._-]|$)", re.I)


@dataclass(frozen=True)
class EnvironmentDomain:
    """One domain: which files it takes, and what it takes out of them.

    Attributes:
        description: What the text is.
        suffixes: Ends of the names of its files.
        extract: Makes clean text of a file.
        accepts: Further condition on a file.
        by_package: Whether a package's files stay together in a split.
        file_bytes: Most text of one file (of one package, if `by_package`).
    """

    description: str
    suffixes: tuple[str, ...]
    extract: Callable[[str], str]
    accepts: Callable[[InstalledFile], bool] = lambda file: not file.is_test
    by_package: bool = False
    file_bytes: int = FILE_BYTES

    def takes(self, file: InstalledFile) -> bool:
        """Tell whether a file belongs to the domain."""
        return file.key.endswith(self.suffixes) and self.accepts(file)


def _in_library(file: InstalledFile) -> bool:
    return file.package == STANDARD_LIBRARY and not file.is_test


def _in_packages(half: int) -> Callable[[InstalledFile], bool]:
    return lambda file: file.package != STANDARD_LIBRARY and not file.is_test and file.half == half


def _is_legal(file: InstalledFile) -> bool:
    return _LEGAL.search(file.key) is not None and not file.key.endswith(
        (".py", ".pyi", ".h", ".js", ".json")
    )


def _is_readme(file: InstalledFile) -> bool:
    return not _is_legal(file)


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
        lambda file: not _is_legal(file),
        file_bytes=300_000,
    ),
    "font_metrics": EnvironmentDomain("Adobe font metrics", (".afm",), extract.short_lines),
    "readme_markdown": EnvironmentDomain(
        "English: packages' descriptions and other Markdown and reStructuredText",
        ("dist-info/METADATA", ".md", ".rst"),
        extract.description,
        _is_readme,
    ),
    "legal": EnvironmentDomain(
        "English: licences and notices",
        ("",),
        extract.short_lines,
        _is_legal,
        by_package=True,
    ),
    "config": EnvironmentDomain(
        "configuration",
        (".yaml", ".yml", ".toml", ".cfg", ".ini", ".cmake"),
        extract.python_code,
    ),
}


def environment_domains() -> dict[str, str]:
    """Return the names of the environment's domains, with descriptions."""
    return {name: domain.description for name, domain in DOMAINS.items()}


class Environment:
    """The text of the installed packages by domain; files are listed once, when first needed."""

    def __init__(self, installed: InstalledFiles | None = None) -> None:
        """Take these files, or those that `installed_files` lists."""
        self._given = installed

    @cached_property
    def installed(self) -> InstalledFiles:
        """The files and the versions they come from."""
        return self._given or installed_files()

    def documents(self, name: str) -> Iterator[Document]:
        """Give all pieces of one domain, reading files as they are asked for.

        Args:
            name: One of `environment_domains()`.

        Raises:
            CorpusError: There is no such domain.
        """
        if name not in DOMAINS:
            raise CorpusError(f"unknown environment domain {name!r}{did_you_mean(name, DOMAINS)}")
        domain, seen = DOMAINS[name], set[str]()
        by_group: Counter[str] = Counter()
        for file in filter(domain.takes, self.installed.files):
            group = file.package if domain.by_package else f"{file.package}/{file.key}"
            for piece in extract.pieces(domain.extract(_read(file))):
                size = len(piece.encode())
                if by_group[group] + size > domain.file_bytes:
                    break
                if len(piece) >= extract.LEAST_PIECE and _is_new(piece, seen):
                    by_group[group] += size
                    yield Document(piece, group)


def _is_new(piece: str, seen: set[str]) -> bool:
    """Tell whether half of the text is in lines not seen before, and remember its lines."""
    lines = [line for line in map(str.strip, piece.split("\n")) if len(line) >= LEAST_LINE]
    known = sum(len(line) for line in lines if line in seen)
    seen.update(lines)
    return 2 * known <= sum(map(len, lines))


def _read(file: InstalledFile) -> str:
    try:
        with open(file.path, encoding="utf-8") as stream:
            return stream.read()
    except (OSError, UnicodeDecodeError):
        return ""
