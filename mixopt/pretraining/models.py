"""Build causal language models (Hugging Face architectures or plug-ins), and read their folders.

A plug-in is a module class behind an entry point in `mixopt.models`, or `package.module:Name`. It
is called with `vocab_size`, `sequence_length` and the options, takes token ids of shape (B, T), and
returns logits of shape (B, T, V) or an object with `logits`; with `training.mask_documents` it also
gets `position_ids` of shape (B, T), which restart at 0 for each document. Optional:

- `own_loss`: auxiliary loss of its last forward pass in training;
- `transformers_form()`: configuration fields of an equal transformers model, with `model_type`, and
  its weights by their names there, for the export.

Of a transformers folder, local or on the hub, only `config.json` and safetensors are read. Nothing
in it is executed: pickles are refused, code beside the weights (`auto_map`) is not imported, and
configuration fields that would fetch and run code, such as attention kernels, are dropped.

Shapes: B sequences, T tokens, V vocabulary.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from mixopt.errors import (
    ConfigError,
    MixoptError,
    PluginError,
    RoutingError,
    RunError,
    did_you_mean,
)
from mixopt.pretraining.config import ModelConfig
from mixopt.routing import FoundRouter, find_routers, has_experts
from mixopt.system import (
    FileRecord,
    build_plugin,
    checked_as,
    file_record,
    local_path,
    one_line,
    plugin_names,
    read_json,
)

# Fields that models read but not every configuration class lists (Qwen3-MoE's head_dim).
_UNLISTED = {"head_dim", "attn_implementation"}
# Settings for training, whatever the family's default.
_TRAINING_FIELDS: dict[str, Any] = {
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
    "is_decoder": True,
    "use_cache": False,
    "output_router_logits": True,
}
CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
_FOLDER_PARTS = "a folder of transformers has config.json beside its safetensors"
_HUB_NAME = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*/[\w.-]+)(?:@(?P<revision>\w[\w./-]*))?")
_FAULTS = {
    "missing_keys": "is missing in the weights",
    "unexpected_keys": "has no place in the model",
}
# Fields without effect on shape or computation, not recorded. Those of `_CODE` may name code.
_DESCRIPTIVE = {
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


def build_model(config: ModelConfig, vocab_size: int, sequence_length: int, seed: int) -> nn.Module:
    """Build a model on the CPU in float32, the same on every rank."""
    configured = config.options.get("vocab_size")
    if isinstance(configured, int) and configured < vocab_size:
        raise ConfigError(
            f"model.options.vocab_size: {configured}, and the corpus's tokenizer has {vocab_size}"
            " ids"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if ":" in config.name or config.name in plugin_names("model"):
            fixed = {"vocab_size": vocab_size, "sequence_length": sequence_length}
            try:
                model = build_plugin("model", config.name, fixed | config.options)
            except ConfigError as error:  # our decoder is a proxy as well, and calls its options so
                raise ConfigError(str(error).replace("proxy.options.", "model.options.")) from error
        else:
            hub_config = hugging_face_config(config, vocab_size, sequence_length)
            from transformers import AutoModelForCausalLM

            with _as_options():
                model = AutoModelForCausalLM.from_config(hub_config)
    if not isinstance(model, nn.Module):
        raise PluginError(f"model {config.name!r}: {type(model).__name__} is not a torch module")
    return model


def causal_models() -> tuple[Mapping[str, Any], Mapping[str, str]]:
    """Return transformers' configuration classes by type, and its causal model classes."""
    try:
        from transformers import CONFIG_MAPPING
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    except ImportError as error:
        raise PluginError("a model of transformers needs it: pip install 'mixopt[all]'") from error
    return CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def hugging_face_config(
    config: ModelConfig, vocab_size: int | None = None, sequence_length: int | None = None
) -> Any:
    """Return the configuration of a Hugging Face model."""
    kinds, classes = causal_models()
    if config.name not in classes:
        near = did_you_mean(config.name, {*classes, *plugin_names("model")})
        raise ConfigError(f"model.name: {config.name!r} is not a causal language model{near}")
    kind = kinds[config.name]
    if "text_config" in getattr(kind, "sub_configs", {}):
        text = f"{config.name}_text"
        hint = f"its text model, {text}" if text in classes else "a model of text"
        raise ConfigError(f"model.name: {config.name!r} reads more than text; give {hint}")
    fields = _fields(kind)
    for option in config.options:
        if option not in fields:
            raise ConfigError(
                f"model.options.{option}: {config.name!r} has no such field"
                f"{did_you_mean(option, fields)}"
            )
    ours = dict(_TRAINING_FIELDS)
    if vocab_size is not None:
        ours["vocab_size"] = vocab_size
    if sequence_length is not None:
        ours["max_position_embeddings"] = sequence_length
    options = {name: value for name, value in ours.items() if name in fields}
    with _as_options():
        return kind(**(options | config.options))


def logits_of(output: Any) -> Tensor:
    """Return the logits from a model's output, shape (B, T, V)."""
    logits: Tensor = output if isinstance(output, Tensor) else output.logits
    return logits


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """Return the layers, which are compiled, recomputed and sharded separately."""
    block_classes = set(getattr(model, "_no_split_modules", None) or ())
    blocks = [module for module in model.modules() if type(module).__name__ in block_classes]
    return blocks or list(getattr(model, "layers", ()))


def has_bfloat16(device: torch.device) -> bool:
    """Return whether a device multiplies bf16 matrices faster than fp32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def flops_per_token(model: nn.Module, sequence_length: int) -> float:
    """Return the FLOPs of a training step per token, as counted for the MFU; 0 if unknown."""
    stated = getattr(model, "flops_per_token", None)
    if stated is not None:
        return float(stated())
    try:
        routers = find_routers(model) if has_experts(model) else []
    except RoutingError:  # what a token's experts compute is unknown
        return 0.0
    looked_up = _lookup_table(model)
    multiplied: float = 0
    for name, weight in model.named_parameters():
        if weight is not looked_up:
            multiplied += weight.numel() * _share(name, weight, routers)
    config = getattr(model, "config", None)
    layers = getattr(config, "num_hidden_layers", 0)
    width = getattr(config, "hidden_size", 0)
    attention = 12.0 * layers * width * sequence_length
    return 6.0 * multiplied + attention


def _lookup_table(model: nn.Module) -> Any:
    """Return the embeddings' weight if it is only looked up; None if it is the head's as well."""
    is_tied = getattr(getattr(model, "config", None), "tie_word_embeddings", False)
    if is_tied or not hasattr(model, "get_input_embeddings"):
        return None
    embeddings: Any = model.get_input_embeddings()  # type: ignore[operator]
    return getattr(embeddings, "weight", None)


def _share(name: str, weight: nn.Parameter, routers: Sequence[FoundRouter]) -> float:
    """Return the share of tokens that a weight processes: 1 except for experts."""
    for router in routers:
        block = router.name.rpartition(".")[0] + "."
        if not name.startswith(block):
            continue
        is_stacked = weight.dim() == 3 and len(weight) == router.experts
        if is_stacked or ".experts." in f".{name.removeprefix(block)}":
            return router.top_k / router.experts
    return 1.0


def _fields(kind: Any) -> set[str]:
    """Return the names of a configuration's fields, derived ones included."""
    listed = set(inspect.signature(kind).parameters) | _UNLISTED
    try:
        return listed | set(kind().to_dict())
    except Exception:  # a class without defaults
        return listed


@contextmanager
def _as_options() -> Iterator[None]:
    """Turn errors of a configuration class or constructor into errors of the options."""
    try:
        yield
    except Exception as error:  # they may raise anything
        raise ConfigError(f"model.options: {one_line(error)}") from error


def document_positions(tokens_BT: Tensor, ends: Sequence[int]) -> Tensor:
    """Return each token's position in its document, from 0, shape (B, T)."""
    place_BT = torch.arange(tokens_BT.shape[1], device=tokens_BT.device).expand_as(tokens_BT)
    begins_BT = torch.stack([tokens_BT == end for end in ends]).any(0)
    return place_BT - torch.where(begins_BT, place_BT, 0).cummax(1).values


def folder_model(path: Path) -> ModelConfig:
    """Return type and fields of a folder's model, as in the section `model`."""
    file = path / CONFIG
    content = read_json(file, missing=f"not found: {_FOLDER_PARTS}")
    values: dict[str, Any] = checked_as(dict[str, Any], content, str(file))
    kinds, classes = causal_models()
    name = str(values.get("model_type"))
    if name not in classes:
        near = did_you_mean(name, classes)
        raise RunError(f"{file}: model_type: {name!r} is not a known causal language model{near}")
    if values.get("quantization_config"):
        raise RunError(
            f"{file}: quantization_config: training needs plain weights; give the model that it"
            " was quantised from"
        )
    try:
        config = kinds[name].from_dict(_without(values, _CODE))
        fields = _without(config.to_dict(), _DESCRIPTIVE | _CODE)
        return ModelConfig(name=name, options=json.loads(json.dumps(fields)))
    except Exception as error:  # a configuration class may raise anything
        raise RunError(f"{file}: {one_line(error)}") from error


def _without(fields: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}


def folder_records(path: Path) -> dict[str, FileRecord]:
    """Return size and hash of `config.json` and of all weight files."""
    records = {CONFIG: file_record(path / CONFIG)}
    records |= {name: file_record(path / name) for name in _weight_files(path)}
    return records


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
        raise RunError(f"{path}: cannot be loaded: {one_line(error)}") from error
    _check_loaded(path, loaded, report)
    module: nn.Module = loaded
    return module


@contextmanager
def quietly() -> Iterator[None]:
    """Silence transformers' progress bars and load reports."""
    from transformers.utils import logging

    has_bars = logging.is_progress_bar_enabled()
    level = logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if has_bars:
            logging.enable_progress_bar()


def local_folder(text: str) -> Path:
    """Return a path, or a hub name's folder in its cache, downloaded without code if necessary."""
    path = local_path(text)
    match = _HUB_NAME.fullmatch(text)
    if path.exists() or match is None:
        return path
    try:
        from huggingface_hub import snapshot_download

        fetched = snapshot_download(
            match["name"],
            revision=match["revision"],
            allow_patterns=["*.json", "*.safetensors", "*.model", "*.txt"],
            ignore_patterns=["consolidated*", "original/*", "onnx/*"],
        )
    except (ImportError, OSError, ValueError) as error:  # hub errors are OSErrors
        raise RunError(
            f"{text!r}: no such folder, and the hub has no such model:"
            f" {one_line(error)}; give a folder with config.json and safetensors"
        ) from error
    return Path(fetched)


def _weight_files(path: Path) -> list[str]:
    """Return the names of weight files, after checking that safetensors can open them."""
    if (path / "adapter_config.json").exists():
        raise RunError(
            f"{path / 'adapter_config.json'}: an adapter is only a part of a model; merge it into"
            " its base model first"
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
            fault = f"is truncated or damaged: {one_line(error)}"
            raise RunError(f"{file}: {fault}; fetch the model again") from error
    names = [file.name for file in files]
    index = path / INDEX
    if index.exists():
        content = checked_as(dict[str, Any], read_json(index), str(index))
        where = f"{index}: weight_map"
        weight_map = checked_as(dict[str, str], content.get("weight_map"), where)
        missing = sorted(set(weight_map.values()) - set(names))
        if missing:
            raise RunError(
                f"{where}: {missing[0]!r} is not one of the safetensors beside it; fetch the model"
                " again"
            )
    return names


def _check_loaded(path: Path, model: Any, report: Mapping[str, Any]) -> None:
    """Raise RunError if weights are missing, unused, of other shapes, or tied by mistake."""
    for kind, fault in _FAULTS.items():
        for name in sorted(report.get(kind) or ()):
            raise RunError(f"{path}: {CONFIG} does not fit the weights: {name} {fault}")
    for name, saved, expected in sorted(report.get("mismatched_keys") or ()):
        raise RunError(
            f"{path}: {CONFIG} does not fit the weights: {name} has shape {tuple(saved)} in the"
            f" weights, and {tuple(expected)} in the model"
        )
    head = model.get_output_embeddings()
    tied = getattr(model.config, "tie_word_embeddings", False)
    if tied and head is not None and head.weight is not model.get_input_embeddings().weight:
        raise RunError(
            f"{path}: {CONFIG}: tie_word_embeddings is true, and the weights have a head of their"
            " own; set model.options.tie_word_embeddings: false"
        )
