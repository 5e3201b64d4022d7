"""Models in transformers folders, local or on the hub: configuration, weights and errors.

Only `config.json` and safetensors are read. Nothing in the folder is executed: pickles are refused,
code beside the weights (`auto_map`) is not imported, and configuration fields that would fetch and
run code, such as attention kernels, are dropped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn

from mixopt.errors import MixoptError, RunError, did_you_mean
from mixopt.pretraining.config import ModelConfig
from mixopt.pretraining.models import causal_models, error_line, hugging_face_config
from mixopt.system import FileRecord, checked_as, file_record, read_json

CONFIG, INDEX = "config.json", "model.safetensors.index.json"
_WHAT = "a folder of transformers has config.json beside its safetensors"
_HUB_NAME = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*/[\w.-]+)(?:@(?P<revision>\w[\w./-]*))?")
_FAULTS = {
    "mismatched_keys": "does not fit",
    "missing_keys": "is missing in the weights",
    "unexpected_keys": "has no place in the model",
}
# Fields without effect on shape or computation, not recorded. Those of `_CODE` may name code.
_ABOUT = {
    "architectures", "transformers_version", "torch_dtype", "dtype", "name_or_path",
    "_name_or_path", "model_type", "return_dict", "output_hidden_states", "output_attentions",
    "problem_type", "id2label", "label2id", "chunk_size_feed_forward", "is_encoder_decoder",
    "use_cache", "pad_token_id", "bos_token_id", "eos_token_id", "output_router_logits",
    "is_decoder",
}  # fmt: skip
_CODE = {
    "auto_map", "attn_implementation", "_attn_implementation", "attn_implementation_internal",
    "_attn_implementation_internal", "experts_implementation", "_experts_implementation",
    "experts_implementation_internal", "_experts_implementation_internal", "custom_pipelines",
    "base_model_tp_plan", "base_model_pp_plan", "base_model_ep_plan",
}  # fmt: skip


def is_transformers_folder(path: Path) -> bool:
    """Whether a folder has the configuration or weights of a transformers model."""
    return (path / CONFIG).exists() or any(path.glob("*.safetensors"))


def folder_model(path: Path) -> ModelConfig:
    """Return type and fields of a folder's model, as in the section `model`."""
    file = path / CONFIG
    content = read_json(file, missing=f"not found: {_WHAT}")
    values: dict[str, Any] = checked_as(dict[str, Any], content, str(file))
    kinds, known = causal_models()
    name = str(values.get("model_type"))
    if name not in known:
        near = did_you_mean(name, known)
        raise RunError(f"{file}: model_type: {name!r} is not a known causal language model{near}")
    if values.get("quantization_config"):
        raise RunError(
            f"{file}: quantization_config: training needs plain weights; give the model that it"
            " was quantised from"
        )
    try:
        config = kinds[name].from_dict({k: v for k, v in values.items() if k not in _CODE})
        fields = {n: v for n, v in config.to_dict().items() if n not in _ABOUT | _CODE}
        return ModelConfig(name=name, options=json.loads(json.dumps(fields)))
    except Exception as error:  # a configuration class may raise anything
        raise RunError(f"{file}: {error_line(error)}") from error


def folder_records(path: Path) -> dict[str, FileRecord]:
    """Return size and hash of `config.json` and of all weight files."""
    return {name: file_record(path / name) for name in (CONFIG, *_weight_files(path))}


def load_folder(path: Path, model: ModelConfig) -> nn.Module:
    """Load the model of a folder with its weights, in float32 on the CPU."""
    from transformers import AutoModelForCausalLM

    _weight_files(path)
    config = hugging_face_config(model)
    try:
        with quietly():
            loaded, report = AutoModelForCausalLM.from_pretrained(
                str(path),
                config=config,
                dtype="float32",
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,  # listed in the report, which is checked
                output_loading_info=True,
            )
    except MixoptError:
        raise
    except Exception as error:  # transformers may raise anything while loading
        raise RunError(f"{path}: cannot be loaded: {error_line(error)}") from error
    _check_report(path, report)
    module: nn.Module = loaded
    _check_tied(path, module)
    return module


@contextmanager
def quietly() -> Iterator[None]:
    """Silence transformers' progress bars and load reports."""
    from transformers.utils import logging

    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()


def is_hub_name(text: str) -> bool:
    """Whether a text has the form `organisation/name` or `organisation/name@revision`."""
    return _HUB_NAME.fullmatch(text) is not None


def hub_folder(text: str) -> Path:
    """Return a model's folder in the hub's cache, downloaded without code if necessary."""
    match = _HUB_NAME.fullmatch(text)
    assert match is not None, "a name of the hub"
    try:
        from huggingface_hub import snapshot_download

        path = snapshot_download(
            match["name"],
            revision=match["revision"],
            allow_patterns=["*.json", "*.safetensors", "*.model", "*.txt"],
            ignore_patterns=["consolidated*", "original/*", "onnx/*"],
        )
    except (ImportError, OSError, ValueError) as error:  # hub errors are OSErrors
        raise RunError(
            f"{text!r}: no such folder, and no model that the hub gives:"
            f" {error_line(error)}; give a folder with config.json and safetensors"
        ) from error
    return Path(path)


def _weight_files(path: Path) -> list[str]:
    """Return the names of weight files, after checking that safetensors can open them."""
    if (path / "adapter_config.json").exists():
        raise RunError(
            f"{path / 'adapter_config.json'}: an adapter is a part of a model; merge it into its"
            " base model first"
        )
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise RunError(
            f"{path}: has no safetensors; a pickle can run code when it is read: save the model by"
            " save_pretrained of transformers"
        )
    for file in files:
        try:
            with safe_open(file, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            what = f"is truncated or damaged: {error_line(error)}"
            raise RunError(f"{file}: {what}; fetch the model again") from error
    names, index = [file.name for file in files], path / INDEX
    if index.exists():
        content = checked_as(dict[str, Any], read_json(index), str(index))
        where = f"{index}: weight_map"
        named = checked_as(dict[str, str], content.get("weight_map"), where).values()
        if others := sorted(set(named) - set(names)):
            raise RunError(
                f"{where}: {others[0]!r} is not one of the safetensors beside it; fetch the model"
                " again"
            )
    return names


def _check_report(path: Path, report: Mapping[str, Any]) -> None:
    """Raise RunError if weights were missing, unused or of other shapes."""
    for kind, what in _FAULTS.items():
        names = sorted(map(_shown, report.get(kind) or ()))
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise RunError(f"{path}: {CONFIG} does not fit the weights: {names[0]} {what}{more}")


def _check_tied(path: Path, model: nn.Module) -> None:
    """Raise RunError for a separate head that the configuration ties, which would lose it."""
    head, table = model.get_output_embeddings(), model.get_input_embeddings()  # type: ignore[operator]
    tied = getattr(model.config, "tie_word_embeddings", False)
    if tied and head is not None and head.weight is not table.weight:
        raise RunError(
            f"{path}: {CONFIG}: tie_word_embeddings is true, and the weights have a head of their"
            " own; set model.options.tie_word_embeddings: false"
        )


def _shown(key: Any) -> str:
    """Return a tensor's name, with both shapes if they differ."""
    if isinstance(key, str):
        return key
    name, there, here = key
    return f"{name}, of shape {tuple(there)} in the weights and {tuple(here)} in the model,"
