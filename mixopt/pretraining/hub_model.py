"""The files of a model on the Hugging Face hub, from its cache or by download; no code."""

from __future__ import annotations

import re
from pathlib import Path

from mixopt.errors import PluginError, RunError

_NAME = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*/[\w.-]+)(?:@(?P<revision>\w[\w./-]*))?")
_FILES = ["*.json", "*.safetensors", "*.model", "*.txt"]
_NOT = ["consolidated*", "original/*", "onnx/*"]


def is_hub_name(text: str) -> bool:
    """Whether a text has the form `organisation/name`, or `organisation/name@revision`."""
    return _NAME.fullmatch(text) is not None


def pinned_name(text: str, folder: Path) -> str:
    """Return the name of a model with the revision that a folder of the cache has."""
    return f"{text.partition('@')[0]}@{folder.name}"


def hub_folder(text: str) -> Path:
    """Return the folder of the cache with a model's configuration, weights and tokenizer.

    Raises:
        RunError: There is no such model here, and the hub has none or cannot be reached.
        PluginError: huggingface_hub is not installed.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise PluginError(
            f"model.from: {text!r} needs huggingface_hub: pip install 'mixopt[pretraining]'"
        ) from error
    found = _NAME.fullmatch(text)
    assert found is not None, "a name of the hub"
    name, revision = found.group("name"), found.group("revision")
    try:
        path = snapshot_download(
            name, revision=revision, allow_patterns=_FILES, ignore_patterns=_NOT
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        reason = str(error).split("\n", maxsplit=1)[0]
        if isinstance(error, LocalEntryNotFoundError):
            reason = "it is not in the hub's cache, and the hub cannot be reached"
        raise RunError(
            f"model.from: {text!r}: no such folder, and no model of the hub: {reason}; give a"
            " folder with config.json and safetensors, or the directory of a mixopt pretrain"
        ) from error
    return Path(path)
