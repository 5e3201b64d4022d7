"""Build causal language models with random weights: Hugging Face architectures or plug-ins.

A plug-in is a module class behind an entry point in `mixopt.models`, or `package.module:Name`. It
is called with `vocab_size`, `sequence_length` and the options, takes token ids of shape (B, T), and
returns logits of shape (B, T, V) or an object with `logits`; with `training.mask_documents` it also
gets `position_ids` of shape (B, T), which restart at 0 for each document. Optional:

- `own_loss`: auxiliary loss of its last forward pass in training;
- `transformers_form()`: configuration fields of an equal transformers model, with `model_type`, and
  its weights by their names there, for the export.

Shapes: B sequences, T tokens, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mixopt.errors import ConfigError, MixoptError, PluginError, RoutingError, did_you_mean
from mixopt.pretraining.config import ModelConfig
from mixopt.routing import FoundRouter, find_routers, has_experts
from mixopt.system import build_plugin, plugin_names

# Fields that models read but not every configuration class lists (Qwen3-MoE's head_dim).
_UNLISTED = {"head_dim", "attn_implementation"}
# Settings for training, whatever the family's default.
_OURS: dict[str, Any] = {
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
    "is_decoder": True,
    "use_cache": False,
    "output_router_logits": True,
}
_MASKS = "training.mask_documents"
_SHORT = 12  # tokens of the two documents in the mask check
_LEAK = 1e-4  # allowed influence across documents, relative to that within one


def build_model(
    config: ModelConfig, *, vocab_size: int, sequence_length: int, seed: int
) -> nn.Module:
    """Build a model on the CPU in float32, the same on every rank."""
    given = config.options.get("vocab_size")
    if isinstance(given, int) and given < vocab_size:
        raise ConfigError(
            f"model.options.vocab_size: {given}, and the corpus's tokenizer has {vocab_size} ids"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if ":" in config.name or config.name in plugin_names("model"):
            model = _plugin(config, vocab_size, sequence_length)
        else:
            built = hugging_face_config(config, vocab_size, sequence_length)
            from transformers import AutoModelForCausalLM

            with _as_options():
                model = AutoModelForCausalLM.from_config(built)
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
    kinds, known = causal_models()
    if config.name not in known:
        near = did_you_mean(config.name, {*known, *plugin_names("model")})
        raise ConfigError(f"model.name: {config.name!r} is not a causal language model{near}")
    kind = kinds[config.name]
    if "text_config" in getattr(kind, "sub_configs", {}):
        raise ConfigError(
            f"model.name: {config.name!r} reads more than text; give its text model, such as"
            f" {config.name}_text"
        )
    fields = _fields(kind)
    for option in config.options:
        if option not in fields:
            raise ConfigError(
                f"model.options.{option}: {config.name!r} has no such field"
                f"{did_you_mean(option, fields)}"
            )
    sizes = {"vocab_size": vocab_size, "max_position_embeddings": sequence_length}
    ours = _OURS | {name: size for name, size in sizes.items() if size is not None}
    options = {n: value for n, value in ours.items() if n in fields} | config.options
    with _as_options():
        return kind(**options)


def logits_of(output: Any) -> Tensor:
    """Return the logits from a model's output, shape (B, T, V)."""
    logits: Tensor = output if isinstance(output, Tensor) else output.logits
    return logits


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """Return the layers, which are compiled, recomputed and sharded separately."""
    whole = set(getattr(model, "_no_split_modules", None) or ())
    blocks = [module for module in model.modules() if type(module).__name__ in whole]
    return blocks or list(getattr(model, "layers", ()))


def has_bfloat16(device: torch.device) -> bool:
    """Return whether a device multiplies bf16 matrices faster than fp32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def flops_per_token(model: nn.Module, sequence_length: int) -> float:
    """Return the FLOPs of a training step per token, as counted for the MFU; 0 if unknown."""
    own = getattr(model, "flops_per_token", None)
    if own is not None:
        return float(own())
    config = getattr(model, "config", None)
    width = getattr(config, "hidden_size", 0)
    attention = 12.0 * getattr(config, "num_hidden_layers", 0) * width * sequence_length
    tied = bool(getattr(config, "tie_word_embeddings", False))
    table = None if tied else getattr(model, "get_input_embeddings", lambda: None)()
    try:
        routers = find_routers(model) if has_experts(model) else []
    except RoutingError:  # what a token's experts compute is unknown
        return 0.0
    multiplied = sum(
        weight.numel() * _share(name, weight, routers)
        for name, weight in model.named_parameters()
        if weight is not getattr(table, "weight", None)
    )
    return 6.0 * multiplied + attention


def _share(name: str, weight: nn.Parameter, routers: Sequence[FoundRouter]) -> float:
    """Return the share of tokens that a weight processes: 1 except for experts."""
    for router in routers:
        block = router.name.rpartition(".")[0] + "."
        stacked = weight.dim() == 3 and len(weight) == router.experts
        if name.startswith(block) and (stacked or ".experts." in f".{name.removeprefix(block)}"):
            return router.top_k / router.experts
    return 1.0


def _plugin(config: ModelConfig, vocab_size: int, sequence_length: int) -> Any:
    known = {"vocab_size": vocab_size, "sequence_length": sequence_length}
    try:
        return build_plugin("model", config.name, known | config.options)
    except ConfigError as error:  # our decoder is a proxy as well, and calls its options that
        raise ConfigError(str(error).replace("proxy.options.", "model.options.")) from error


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
        raise ConfigError(f"model.options: {error_line(error)}") from error


def error_line(error: BaseException, *, with_kind: bool = False) -> str:
    """Return a library's error as one line; our own errors unchanged."""
    if isinstance(error, MixoptError):
        return str(error)
    kind, text = type(error).__name__, " ".join(str(error).split())[:300]
    return f"{kind}: {text}" if with_kind and text else text or kind


class DocumentMasks:
    """Separates the documents of a row, by `position_ids` that restart at 0 for each document.

    Each document is followed by the end-of-document id. As a target that id ends a document; as an
    input it starts the next one, whose first token is predicted from it alone.
    """

    def __init__(self, model: nn.Module, ends: Sequence[int], length: int, vocab_size: int) -> None:
        """Check that a model keeps documents apart.

        Args:
            model: The model, on the CPU.
            ends: Ids that end a document.
            length: Tokens of a sequence.
            vocab_size: Number of ids.
        """
        taken = inspect.signature(model.forward).parameters
        if "position_ids" not in taken:
            raise ConfigError(
                f"{_MASKS}: {type(model).__name__} takes no position_ids, which would tell it where"
                " documents begin; leave it out"
            )
        # With a cache transformers builds no masks from positions.
        self._ends, self._fixed = ends, {"use_cache": False} if "use_cache" in taken else {}
        self._check(model, min(length, _SHORT) // 2, vocab_size)

    def inputs(self, tokens_BT: Tensor) -> dict[str, Any]:
        """Return the arguments of a call besides the tokens."""
        return {"position_ids": document_positions(tokens_BT, self._ends), **self._fixed}

    def _check(self, model: nn.Module, half: int, vocab_size: int) -> None:
        """Check on two documents of `half` tokens that outputs of one ignore the other."""
        if half < 2 or vocab_size < 4:
            return
        name = type(model).__name__
        kind = str(getattr(getattr(model, "config", None), "_attn_implementation", ""))
        if kind.startswith("flash"):
            raise ConfigError(
                f"{_MASKS}: model.options.attn_implementation: {kind} keeps documents apart in"
                " single rows only; give sdpa or flex_attention"
            )
        was_training = model.training
        try:
            leak, within = self._influences(model.eval(), half, vocab_size)
        except Exception as error:  # a model without support may raise anything
            raise ConfigError(
                f"{_MASKS}: {name} cannot be called so: {error_line(error)}"
            ) from error
        finally:
            model.train(was_training)
        if not leak <= _LEAK * within:
            raise ConfigError(
                f"{_MASKS}: {name} does not keep documents apart by position_ids: what it predicts"
                " in one depends on the one before it; leave it out, or take another model"
            )

    @torch.no_grad()
    def _influences(self, model: nn.Module, half: int, ids: int) -> tuple[float, float]:
        """Return how much outputs for a document depend on its surroundings, and on itself."""
        before, other, own = torch.randint(
            ids, (3, half), generator=torch.Generator().manual_seed(0)
        )
        other = torch.where(other == before, (other + 1) % ids, other)
        changed = own.clone()
        changed[0] = (own[0] + 1) % ids
        rows = torch.stack([torch.cat(p) for p in ((before, own), (other, own), (before, changed))])
        places = torch.arange(half).repeat(3, 2)
        output = logits_of(model(rows, position_ids=places, **self._fixed))[:, half:]
        same, elsewhere, moved = output
        return (same - elsewhere).abs().max().item(), (same - moved)[1:].abs().max().item()


def document_positions(tokens_BT: Tensor, ends: Sequence[int]) -> Tensor:
    """Return each token's position in its document, from 0, shape (B, T)."""
    place_BT = torch.arange(tokens_BT.shape[1], device=tokens_BT.device).expand_as(tokens_BT)
    begins_BT = torch.stack([tokens_BT == end for end in ends]).any(0)
    return place_BT - torch.where(begins_BT, place_BT, 0).cummax(1).values
