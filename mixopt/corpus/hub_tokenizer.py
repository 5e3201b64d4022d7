"""Find what a tokenizer's name stands for: files in a folder or on the hub, a prepared corpus."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mixopt.corpus.index_files import CORPUS_FORMAT, INDEX, STREAM_FORMAT
from mixopt.errors import CorpusError, PluginError
from mixopt.system import read_json

# What tokenizers without a configuration call the end of a document.
_USUAL = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>", "[SEP]")
_PREPARED = tuple(one.partition("/")[0] + "/" for one in (CORPUS_FORMAT, STREAM_FORMAT))
_OTHERWISE = "give a local folder, or use bytes or bpe:8192, which need no download"


def find_tokenizer_file(name: str) -> Path | None:
    """Return the `tokenizer.json` that a name stands for, None where transformers is needed.

    Args:
        name: A `tokenizer.json`, a folder, or a name on the hub.

    Raises:
        CorpusError: There is nothing of that name, or the hub cannot be reached.
    """
    local = Path(name).expanduser()
    if local.is_file():
        return local
    if local.is_dir():
        return local / "tokenizer.json" if (local / "tokenizer.json").exists() else None
    if local.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise CorpusError(f"tokenizer {name!r}: no such folder or file; {_OTHERWISE}")
    path = _fetch(name, "tokenizer.json")
    if path is not None:
        _fetch(name, "tokenizer_config.json")
    return path


def prepared_tokenizer(name: str) -> str | None:
    """Return the tokenizer that a prepared corpus was made with; None where a name is none's.

    Args:
        name: A folder of what `mixopt prepare` or `mixopt pretrain` wrote, or anything else.

    Raises:
        CorpusError: Its index cannot be read.
    """
    index = Path(name).expanduser() / INDEX
    if not index.is_file():
        return None
    content = read_json(index, error=CorpusError)
    kind = str(content.get("format")) if isinstance(content, dict) else ""
    known: Any = content.get("tokenizer") if kind.startswith(_PREPARED) else None
    return known if isinstance(known, str) else None


def end_of_document_token(path: Path, vocabulary: Mapping[str, int], name: str) -> str:
    """Return the token that ends a document: the configuration's, else one of the usual names.

    Raises:
        CorpusError: There is none.
    """
    configuration = path.with_name("tokenizer_config.json")
    configured = _configured(configuration)
    for token in (configured, *_USUAL):
        if token is not None and token in vocabulary:
            return token
    raise CorpusError(
        f"tokenizer {name!r} has no end-of-document token: {configuration}"
        f" names none as eos_token and none of {', '.join(_USUAL)} is in its vocabulary"
    )


def _configured(path: Path) -> str | None:
    try:
        configuration = read_json(path, error=CorpusError)
    except CorpusError:
        return None
    token: Any = configuration.get("eos_token") if isinstance(configuration, dict) else None
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else None


def _fetch(name: str, file: str) -> Path | None:
    """Download one file of a hub repository; None where the repository does not have it."""
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import (
            EntryNotFoundError,
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
        )
    except ImportError as error:
        raise PluginError(
            f"tokenizer {name!r} needs huggingface_hub: pip install 'mixopt[proxies]'"
        ) from error
    try:
        return Path(hf_hub_download(name, file))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            return None
        reason = ": " + str(error).split("\n", maxsplit=1)[0]
        if isinstance(error, LocalEntryNotFoundError):
            reason = " is not on this machine and the hub cannot be reached"
        raise CorpusError(f"tokenizer {name!r}{reason}; {_OTHERWISE}") from error
