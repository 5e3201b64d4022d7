"""Fields of a source that apply to imported tokens, and those that apply to text.

A field that its format has no use for is an error: it is there because the user believes that it
changes what is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

TokenFormat = Literal[
    "megatron", "nanogpt", "raw", "llmc", "npy", "olmo", "datatrove", "mds", "litdata", "webdataset"
]
TokenType = Literal["uint8", "uint16", "uint32", "int32", "int64"]

_OF_TEXT = (
    "environment", "name", "data_files", "split", "revision", "streaming", "column", "max_bytes",
)  # fmt: skip
_OF_TOKENS = ("dtype", "field", "document_end", "max_tokens")
_UNUSED: dict[TokenFormat, dict[str, str]] = {
    "megatron": dict.fromkeys(("document_end",), "its index says where documents end"),
    "datatrove": dict.fromkeys(("document_end",), "its .index says where documents end"),
    "npy": {"dtype": "a .npy says its type"},
    "llmc": {"dtype": "its header says the type"},
}
_SAMPLED = ("mds", "litdata", "webdataset")
_UNTYPED = ("nanogpt", "raw", "olmo")


def token_field_fault(format: TokenFormat | None, stated: Sequence[str]) -> str | None:
    """Say which field of a source has no use; None where all have.

    Args:
        format: The tool that wrote its tokens; None for text.
        stated: The fields that are not as they are by default.
    """
    if format is None:
        wrong = next((name for name in _OF_TOKENS if name in stated), None)
        what = f"{wrong}: applies to tokens, but this is text; name a format, as format: megatron"
        return None if wrong is None else what
    wrong = next((name for name in _OF_TEXT if name in stated), None)
    if wrong is not None:
        return f"{wrong}: applies to text, but format: {format} is tokens; leave it out"
    if "path" not in stated:
        return f"path: is missing; name the files in format: {format}"
    if "bytes" in stated:
        return "bytes: is the size of text; give tokens of the whole domain"
    return _unused(format, stated)


def _unused(format: TokenFormat, stated: Sequence[str]) -> str | None:
    for name, reason in _UNUSED.get(format, {}).items():
        if name in stated:
            return f"{name}: format: {format} does not use it, because {reason}; leave it out"
    if "field" in stated and format not in _SAMPLED:
        return f"field: format: {format} has no fields; leave it out"
    if format in _UNTYPED and "dtype" not in stated:
        return f"dtype: format: {format} does not state the type of a token; give uint16 or uint32"
    return None
