"""The environment corpus: real text from installed packages, available on any machine.

Files are those of the standard library and of the packages that fits, proxies and MLflow need, so
they depend only on package versions. Each domain takes files in the order of a hash of their path
until it has enough; no file serves two domains that share text. A piece with mostly known lines is
dropped, and all pieces of a file (of a package, for licences) stay on one side of the split.
"""

import ast
import hashlib
import inspect
import json
import os
import platform
import re
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

from mixopt.corpus.reader_context import Document
from mixopt.errors import CorpusError, did_you_mean
from mixopt.system import needed_by

DOMAIN_BYTES = 4_000_000
FILE_BYTES = 100_000  # taken from one file
MIN_LINE = 10  # characters; shorter lines do not count as seen
MAX_LINE = 2_000
MAX_PIECE = 8_000
MIN_PIECE = 100
MIN_DOCSTRING = 120
# Read beside the standard library: these packages and their requirements, in any order.
EXTRA = "cli"
PACKAGES = ("torch", "datasets", "tokenizers", "zstandard", "packaging", "psutil", "mlflow")
STANDARD_LIBRARY = "python"

# Match comments and strings in source order, so that a quotation mark inside a comment or another
# string does not open a string.
_PYTHON_TOKEN = re.compile(
    r'#[^\n]*|[rRuU]?"""(?:[^"\\]|\\.|"(?!""))*"""|' + r"[rRuU]?'''(?:[^'\\]|\\.|'(?!''))*'''|"
    r'"(?:[^"\\\n]|\\.)*"|' + r"'(?:[^'\\\n]|\\.)*'",
    re.DOTALL,
)
_LEADING = re.compile(r"(?:\s|#[^\n]*\n)*")
_COLON = re.compile(r":[ \t]*(?:#[^\n]*)?\s*\Z")
_HASH_HEADER = re.compile(r"\A(?:\s*#[^\n]*\n)+")
_SLASH_HEADER = re.compile(r"\A(?:\s*(?://[^\n]*(?:\n|\Z)|/\*.*?\*/))+", re.DOTALL)
_LICENCE = re.compile(r"copyright|licen[cs]e|all rights reserved|spdx", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/=_-]{200,}")
_HEX = re.compile(r"[0-9a-fA-F]{32}")
_STATEMENT_END = re.compile(r"(;|\)\{|=>\{|\})(?=[A-Za-z_$(@.#])")
_TESTS = re.compile(r"(^|/)(tests?|_tests)/|(^|/)(test_[^/]*|[^/]*_test|conftest)\.py$")
_METADATA = re.compile(r"([^/-]+)-[^/]*\.dist-info/")
_NOT_LIBRARY = {"site-packages", "dist-packages", "__pycache__"}
_LEGAL = re.compile(r"(^|[/._-])(licen[cs]es?|copying|notices?|third.?party)([/._-]|$)", re.I)
_CODE = (".py", ".pyi", ".h", ".js", ".json")


def code(text: str, header: re.Pattern[str]) -> str:
    """Remove a licence comment at the top, and generated lines."""
    match = header.match(text)
    is_licence = match is not None and _LICENCE.search(match.group())
    return short_lines(text[match.end() :] if match and is_licence else text)


python_code = partial(code, header=_HASH_HEADER)
c_code = partial(code, header=_SLASH_HEADER)


def minified_code(text: str) -> str:
    """Return JavaScript or CSS; put each statement of minified code on its own line."""
    if len(text) > 200 * (text.count("\n") + 1):
        text = _STATEMENT_END.sub(r"\1\n", text)
    return c_code(text)


def docstrings(text: str) -> str:
    """Return the docstrings of a Python file that are long enough to count as prose."""
    leading = _LEADING.match(text)
    first = leading.end() if leading else 0
    texts = []
    for match in _PYTHON_TOKEN.finditer(text):
        literal = match.group()
        start = match.start()
        if literal.endswith(('"""', "'''")) and (start == first or _follows_colon(text, start)):
            texts.append(_prose(literal))
    return "\n\n".join(docstring for docstring in texts if docstring)


def json_text(text: str) -> str:
    """Return JSON without lines of hashes; reformat JSON written on one line."""
    if len(text) > MAX_LINE * (text.count("\n") + 1) / 10:
        try:
            text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
        except ValueError:
            return ""
    return "\n".join(line for line in short_lines(text).split("\n") if not _HEX.search(line))


def description(text: str) -> str:
    """Return Markdown, or the text after the headers of a package's METADATA."""
    return short_lines(text.partition("\n\n")[2] if text.startswith("Metadata-Version:") else text)


def short_lines(text: str) -> str:
    """Remove lines longer than `MAX_LINE` characters or with encoded data."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    short = (line.rstrip() for line in lines if len(line) <= MAX_LINE)
    return "\n".join(line for line in short if len(line) < 200 or not _BASE64.search(line))


def pieces(text: str, longest: int = MAX_PIECE) -> Iterator[str]:
    """Cut text into pieces of at most `longest` characters, at blank lines or line ends."""
    text = text.strip("\n")
    while len(text) > longest:
        cuts = (text.rfind(end, longest // 2, longest) for end in ("\n\n", "\n"))
        cut = next((cut for cut in cuts if cut > 0), longest)
        yield text[:cut].rstrip()
        text = text[cut:].strip("\n")
    if text.strip():
        yield text.rstrip()


def _follows_colon(text: str, start: int) -> bool:
    """Return whether the string begins a line that follows a colon."""
    line_start = text.rfind("\n", 0, start) + 1
    if text[line_start:start].strip():
        return False
    return _COLON.search(text, max(line_start - 200, 0), line_start) is not None


def _prose(literal: str) -> str:
    try:
        text = inspect.cleandoc(str(ast.literal_eval(literal)))
    except (SyntaxError, ValueError):
        return ""
    lines = text.split("\n")
    code_lines = sum(line.lstrip().startswith((">>>", "...")) for line in lines)
    if len(text) < MIN_DOCSTRING or 4 * code_lines > len(lines) or _LICENCE.search(text[:300]):
        return ""
    return text


class InstalledFile(NamedTuple):
    """One file of a package: its path, and its key, the path below the package."""

    package: str
    key: str
    path: str

    @property
    def is_test(self) -> bool:
        """Whether the file belongs to a package's tests."""
        return _TESTS.search(self.key) is not None

    @property
    def is_legal(self) -> bool:
        """Whether the file is a licence or a notice."""
        return _LEGAL.search(self.key) is not None and not self.key.endswith(_CODE)

    def is_in_half(self, half: int) -> bool:
        """Return whether the hash of the path's end is in a half; vendored copies agree."""
        if self.is_test or self.package == STANDARD_LIBRARY:
            return False
        end = "/".join(self.key.split("/")[-2:])
        return hashlib.blake2b(end.encode(), digest_size=1).digest()[0] % 2 == half


class _Domain(NamedTuple):
    """The files of a domain, and the function that extracts its text from them."""

    suffixes: tuple[str, ...]
    extract: Callable[[str], str]
    accepts: Callable[[InstalledFile], bool] = lambda file: not file.is_test
    file_bytes: int = FILE_BYTES


_PROSE = ("dist-info/METADATA", ".md", ".rst")
DOMAINS: dict[str, _Domain] = {
    "docstrings": _Domain((".py",), docstrings, lambda file: file.is_in_half(0)),
    "python_site": _Domain((".py",), python_code, lambda file: file.is_in_half(1)),
    "cpp_headers": _Domain((".h", ".hpp", ".hh", ".cuh", ".inl"), c_code),
    "cython": _Domain((".pyx", ".pxd", ".pxi"), python_code),
    "stubs": _Domain((".pyi",), python_code),
    "javascript": _Domain((".js", ".mjs"), minified_code, file_bytes=200_000),
    "json": _Domain((".json",), json_text, file_bytes=250_000),
    "readme_markdown": _Domain(_PROSE, description, lambda file: not file.is_legal),
    "legal": _Domain(("",), short_lines, lambda file: file.is_legal),
}


def environment_documents(name: str) -> Iterator[Document]:
    """Yield all pieces of one domain; read files lazily."""
    if name not in DOMAINS:
        raise CorpusError(f"unknown environment domain {name!r}{did_you_mean(name, DOMAINS)}")
    domain = DOMAINS[name]
    lines = set[str]()
    sizes = Counter[str]()
    for file in installed_files():
        if not (file.key.endswith(domain.suffixes) and domain.accepts(file)):
            continue
        group = file.package if name == "legal" else f"{file.package}/{file.key}"
        for piece in pieces(domain.extract(_read(file))):
            size = len(piece.encode())
            if sizes[group] + size > domain.file_bytes:
                break
            if len(piece) >= MIN_PIECE and _is_new(piece, lines):
                sizes[group] += size
                yield Document(piece, group)


def _is_new(piece: str, earlier: set[str]) -> bool:
    """Return whether at least half of the text is in new lines; add its lines to `earlier`."""
    lines = [line for line in map(str.strip, piece.split("\n")) if len(line) >= MIN_LINE]
    repeated = sum(len(line) for line in lines if line in earlier)
    earlier.update(lines)
    return 2 * repeated <= sum(map(len, lines))


def _read(file: InstalledFile) -> str:
    try:
        return Path(file.path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def environment_versions() -> dict[str, str]:
    """Return the versions of the packages that the text comes from."""
    packages = {name: package.version for name, package in sorted(_packages().items())}
    return {STANDARD_LIBRARY: platform.python_version(), **packages}


@cache
def installed_files() -> tuple[InstalledFile, ...]:
    """List the standard library and the packages in order of a hash of their paths."""
    files = {file.path: file for file in _library_files()}
    for name, package in sorted(_packages().items()):
        for file in _package_files(name, package):
            files.setdefault(file.path, file)
    return tuple(sorted(files.values(), key=_order))


def _order(file: InstalledFile) -> tuple[bytes, str, str]:
    return hashlib.blake2b(file.key.encode(), digest_size=8).digest(), file.key, file.package


@cache
def _packages() -> dict[str, Distribution]:
    """Return the packages to read, with all their requirements."""
    with needed_by("the environment corpus"):
        from packaging.requirements import Requirement

        distribution("mixopt")
    packages: dict[str, Distribution] = {}
    folders: set[tuple[str, frozenset[str]]] = set()
    waiting = [("mixopt", frozenset({EXTRA})), *((name, frozenset[str]()) for name in PACKAGES)]
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in folders:
            continue
        folders.add((name, extras))
        try:
            package = distribution(name)
        except PackageNotFoundError:
            continue
        packages[name] = package
        for need in map(Requirement, package.requires or []):
            marker = need.marker
            if marker is None or any(marker.evaluate({"extra": e}) for e in extras | {""}):
                waiting.append((_canonical(need.name), frozenset(need.extras)))
    packages.pop("mixopt", None)
    return packages


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _package_files(name: str, package: Distribution) -> Iterator[InstalledFile]:
    """Yield a package's files; keys omit the version in the name of the metadata folder."""
    base = os.path.normpath(str(package.locate_file("")))
    for line in (package.read_text("RECORD") or "").splitlines():
        path = line.rsplit(",", 2)[0].strip('"')
        if path and not path.startswith((".", "/")) and not path.endswith((".pyc", ".so")):
            key = _METADATA.sub(r"\1.dist-info/", path)
            yield InstalledFile(name, key, os.path.join(base, path))


def _library_files() -> Iterator[InstalledFile]:
    root = sysconfig.get_path("stdlib")
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in _NOT_LIBRARY]
        for name in names:
            path = os.path.join(folder, name)
            key = os.path.relpath(path, root).replace(os.sep, "/")
            yield InstalledFile(STANDARD_LIBRARY, key, path)
