"""Token files of other tools: find the files of a source, and read them.

    megatron    PREFIX.bin and PREFIX.idx (version 1); the index states type and documents
    datatrove   NAME.ds with its .index and .metadata, which state documents and type
    npy         numpy array of integers, in C order; its header states the type
    raw         only integers, as nanoGPT, OLMo-core, dolma and `tofile` write; needs `dtype`

The token type comes from the file or the caller and is never guessed: 32-bit tokens read as 16 bits
are twice as many and look valid. Tokens are read in parts, an index at once, and neither is mapped:
reading a file that is being truncated raises an error, while its mapping would kill the process.
"""

import glob
import struct
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mixopt.errors import CorpusError
from mixopt.system import (
    AnyArray,
    DType,
    IntArray,
    is_url,
    local_path,
    one_line,
    readable,
    visible_files,
)

TYPES: dict[str, DType] = {
    "uint8": np.dtype("u1"),
    "uint16": np.dtype("<u2"),
    "uint32": np.dtype("<u4"),
    "int32": np.dtype("<i4"),
    "int64": np.dtype("<i8"),
}
PART = 1 << 20  # tokens in memory at a time
_PLACE = np.dtype("<i8")  # Megatron's byte offsets and document bounds
_OFFSET = np.dtype("<u8")  # datatrove's document ends
_SUFFIXES = (".idx", ".bin", ".npy", ".ds")
_NUMPY = b"\x93NUMPY"
_DATATROVE_TYPES = {"2": "uint16", "4": "uint32"}
_MEGATRON = b"MMIDIDX\x00\x00"
_MEGATRON_HEAD = struct.Struct("<QBQQ")
_MEGATRON_TYPES = {1: "uint8", 4: "int32", 5: "int64", 8: "uint16"}
_MEGATRON_START = len(_MEGATRON) + _MEGATRON_HEAD.size
_HEADERS = {  # first bytes of files that hold more than tokens
    _NUMPY: "numpy's: use format 'npy'",
    b"MMIDIDX": "Megatron's index: name the .bin beside it",
    b"PK\x03\x04": "a zip archive, such as .npz: write only its tokens",
    b"PAR1": "Parquet: write only its tokens",
    b"\x89HDF": "HDF5: write only its tokens",
    b"\x1f\x8b": "gzip: unpack it",
    b"\x28\xb5\x2f\xfd": "zstd: unpack it",
    b"BZh": "bzip2: unpack it",
    b"\xfd7zXZ": "xz: unpack it",
    (20240520).to_bytes(4, "little"): "llm.c's: remove its first 1,024 bytes",
    (20240801).to_bytes(4, "little"): "llm.c's: remove its first 1,024 bytes",
}


class TokenFile(NamedTuple):
    """Tokens of another tool; `ends` reads the document ends, if the format has them."""

    path: Path
    files: tuple[Path, ...]
    stored: DType
    tokens: int
    offset: int = 0
    documents: int = 0
    ends: Callable[[], IntArray] | None = None

    @property
    def is_shard(self) -> bool:
        """Whether the file is a valid shard byte for byte."""
        return self.offset == 0 and self.stored.itemsize in (2, 4) and self.stored.byteorder != ">"

    def parts(self) -> Iterator[AnyArray]:
        """Yield the tokens in parts; signed types may have negative values."""
        with readable(self.path, CorpusError), self.path.open("rb") as stream:
            stream.seek(self.offset)
            for start in range(0, self.tokens, PART):
                yield _numbers(self.path, self.stored, min(PART, self.tokens - start), stream)


def open_token_files(
    patterns: Sequence[str], format: str | None, dtype: str | None
) -> list[TokenFile]:
    """Open the files of all patterns, in the order of patterns and names; read no token."""
    with readable(", ".join(patterns), CorpusError):
        matches = chain.from_iterable(_matching(pattern, format) for pattern in patterns)
        files = list(dict.fromkeys(matches))
        examples = dict(reversed(files))  # the first file of each format
        if files and examples.keys() - {format or files[0][0]}:
            formats = " and ".join(f"{kind} ({examples[kind]})" for kind in sorted(examples))
            expected = f", not {format}" if format and len(examples) == 1 else ""
            raise CorpusError(f"the tokens are {formats}{expected}; select one format by a glob")
        return [FORMATS[kind](path, dtype) for kind, path in files]


def _matching(pattern: str, format: str | None) -> list[tuple[str, Path]]:
    """Return the format and path of each file that matches a pattern."""
    if not pattern:
        raise CorpusError("the path is empty")
    if is_url(pattern):
        raise CorpusError(f"{pattern}: token files must be local; copy them to this machine")
    expanded = local_path(pattern)
    paths = [expanded]
    if not any(Path(f"{expanded}{suffix}").exists() for suffix in ("", ".idx", ".bin")):
        paths = sorted(map(Path, glob.glob(str(expanded), recursive=True)))
    if not paths:
        fault = "the glob matches no file" if glob.has_magic(pattern) else "not found"
        raise CorpusError(f"{pattern}: {fault} (working directory {Path.cwd()})")
    matches = []
    for path in paths:
        if not path.is_dir():
            matches.append(_detect(path, format))
            continue
        files = [file for file in visible_files(path) if file.suffix in _SUFFIXES]
        if not files:
            raise CorpusError(f"{path}: has no token files")
        matches += [_detect(file, None) for file in files]
    return matches


def _detect(path: Path, format: str | None) -> tuple[str, Path]:
    """Return the format, by name or first bytes, and the path or prefix of its files."""
    if path.suffix in (".index", ".metadata") and path.with_suffix("").suffix == ".ds":
        path = path.with_suffix("")
    prefix = path.with_suffix("") if path.suffix in (".bin", ".idx") else path
    if format is None and _beside(prefix, ".idx").exists():
        format = "megatron"
    elif format is None and path.suffix == ".npy" and _first_bytes(path, 6) == _NUMPY:
        format = "npy"
    elif format is None:
        format = "datatrove" if path.suffix == ".ds" else "raw"
    return format, prefix if format == "megatron" else path


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _first_bytes(path: Path, count: int) -> bytes:
    with path.open("rb") as stream:
        return stream.read(count)


def _numbers(
    path: Path, dtype: DType, count: int, stream: Any = None, *, offset: int = 0
) -> AnyArray:
    """Read `count` numbers of a file."""
    with readable(path, CorpusError):
        numbers = np.fromfile(path if stream is None else stream, dtype, count, offset=offset)
    if len(numbers) < count:
        raise CorpusError(f"{path}: was truncated while it was being read")
    return numbers


def _count(path: Path, dtype: DType, offset: int = 0) -> int:
    """Return the count of numbers in a file after `offset` bytes."""
    size = path.stat().st_size - offset
    if size <= 0:
        raise CorpusError(f"{path}: has no tokens")
    if size % dtype.itemsize:
        raise CorpusError(f"{path}: {size} bytes are not a whole number of {dtype.name} tokens")
    return size // dtype.itemsize


def _check_type(path: Path, stated: str, dtype: str | None) -> None:
    if dtype not in (None, stated):
        raise CorpusError(f"{path}: its tokens are {stated}, not {dtype!r}; leave out dtype")


def _check_count(path: Path, tokens: int, expected: int, label: str) -> None:
    if tokens != expected:
        raise CorpusError(f"{path}: truncated or altered: {tokens} tokens, but {label} {expected}")


def _raw(path: Path, dtype: str | None) -> TokenFile:
    start = _first_bytes(path, 8)
    for header, label in _HEADERS.items():
        if start.startswith(header):
            raise CorpusError(f"{path}: has a header, but raw tokens have none; it is {label}")
    if dtype is None:
        raise CorpusError(
            f"{path}: raw tokens do not state their type; give dtype='uint16' (as nanoGPT writes)"
            " or dtype='uint32'"
        )
    return TokenFile(path, (path,), TYPES[dtype], _count(path, TYPES[dtype]))


def _npy(path: Path, dtype: str | None) -> TokenFile:
    if _first_bytes(path, len(_NUMPY)) != _NUMPY:
        raise CorpusError(
            f"{path}: has no numpy header (nor has OLMo-core's .npy): use format 'raw' with dtype"
        )
    try:
        array = np.load(path, mmap_mode="r")  # reads only the header
    except Exception as error:  # numpy raises any type on a damaged header
        raise CorpusError(f"{path}: not a .npy: {one_line(error)}") from error
    if not np.issubdtype(array.dtype, np.integer):
        raise CorpusError(f"{path}: is an array of {array.dtype.name}; tokens are integers")
    if not array.flags.c_contiguous:
        raise CorpusError(f"{path}: is in Fortran order; save numpy.ascontiguousarray of it")
    _check_type(path, array.dtype.name, dtype)
    tokens = _count(path, array.dtype, array.offset)
    _check_count(path, tokens, array.size, "its header says")
    return TokenFile(path, (path,), array.dtype, tokens, array.offset)


def _datatrove(path: Path, dtype: str | None) -> TokenFile:
    index = _beside(path, ".index")
    metadata = _beside(path, ".metadata")
    if metadata.exists():
        line = _first_bytes(metadata, 4096).decode(errors="replace").partition("\n")[0].strip()
        type_code = _DATATROVE_TYPES.get(line.rpartition("|")[2])
        if type_code is None:
            raise CorpusError(
                f"{metadata}: its first line is {line[:80]!r}, but datatrove's ends with the bytes"
                " per token, as in 'gpt2|2'"
            )
        _check_type(path, type_code, dtype)
        dtype = type_code
    if dtype is None:
        raise CorpusError(
            f"{metadata}: not found, and no other file states the token type; give"
            " dtype='uint16' or 'uint32'"
        )
    documents = _count(index, _OFFSET)
    tokens = _count(path, TYPES[dtype])

    def ends() -> IntArray:
        return _rising(index, _numbers(index, _OFFSET, documents), "the ends of its documents")

    last = _numbers(index, _OFFSET, 1, offset=8 * (documents - 1))
    _check_count(path, tokens, int(last[0]), "its index has")
    return TokenFile(path, (path, index), TYPES[dtype], tokens, documents=documents, ends=ends)


def _megatron(prefix: Path, dtype: str | None) -> TokenFile:
    """Open Megatron's files: .idx has a header, sequence lengths and offsets, then documents."""
    path = _beside(prefix, ".bin")
    index = _beside(prefix, ".idx")
    content = _first_bytes(index, _MEGATRON_START)
    if content[: len(_MEGATRON)] != _MEGATRON or len(content) < _MEGATRON_START:
        raise CorpusError(f"{index}: not a Megatron index: it begins with {content[:9]!r}")
    version, code, sequences, bounds = _MEGATRON_HEAD.unpack_from(content, len(_MEGATRON))
    if version != 1 or code not in _MEGATRON_TYPES:
        codes = ", ".join(f"{name} ({code})" for code, name in _MEGATRON_TYPES.items())
        raise CorpusError(
            f"{index}: version {version} of a Megatron index, tokens of type code {code};"
            f" supported: version 1 of {codes}"
        )
    size = index.stat().st_size
    at_bounds = _MEGATRON_START + 12 * sequences
    expected = at_bounds + 8 * bounds
    # Multimodal indices have one more byte per sequence.
    if bounds < 1 or size not in (expected, expected + sequences):
        raise CorpusError(
            f"{index}: truncated or altered: {size} bytes, and {sequences} sequences and"
            f" {bounds} bounds of documents take {expected}"
        )
    name = _MEGATRON_TYPES[code]
    _check_type(index, name, dtype)
    stored = TYPES[name]
    tokens = _count(path, stored)

    def starts() -> IntArray:
        """Return the tokens before each sequence, followed by the total."""
        lengths = _numbers(index, np.dtype("<i4"), sequences, offset=_MEGATRON_START)
        return np.append(0, np.cumsum(lengths, dtype=np.int64))

    def ends() -> IntArray:
        """Return the end of each document in tokens, converted from bounds in sequences."""
        label = "the bounds of its documents"
        marks = _rising(index, _numbers(index, _PLACE, bounds, offset=at_bounds), label)
        if marks[0] != 0 or marks[-1] != sequences:
            raise CorpusError(
                f"{index}: altered: its documents begin at sequence {marks[0]} and end at sequence"
                f" {marks[-1]} of {sequences}"
            )
        places: IntArray = starts()[marks[1:]]
        return places

    before = starts()
    places = _numbers(index, _PLACE, sequences, offset=_MEGATRON_START + 4 * sequences)
    wrong = np.flatnonzero((np.diff(before) < 0) | (places != before[:-1] * stored.itemsize))
    if len(wrong):
        raise CorpusError(
            f"{index}: altered: sequence {wrong[0]} is at byte {places[wrong[0]]} or has a wrong"
            f" length; the one before it ends at {before[wrong[0]] * stored.itemsize}"
        )
    _check_count(path, tokens, int(before[-1]), f"its index of {sequences} sequences has")
    return TokenFile(path, (path, index), stored, tokens, documents=bounds - 1, ends=ends)


def _rising(index: Path, numbers: AnyArray, label: str) -> IntArray:
    rising = numbers.astype(np.int64)
    if (np.diff(rising, prepend=0) < 0).any():
        raise CorpusError(f"{index}: altered: {label} are not increasing")
    return rising


FORMATS: dict[str, Callable[[Path, str | None], TokenFile]] = {
    "megatron": _megatron,
    "datatrove": _datatrove,
    "npy": _npy,
    "raw": _raw,
}
