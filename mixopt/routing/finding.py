"""Find the routers of a model, and refuse models whose experts could only be counted in part.

A module named like a router or experts in a layer where nothing can be read
(mixopt.routing.adapters) is an error, never a guess.
"""

from __future__ import annotations

import inspect
import math
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from torch import nn

from mixopt.errors import ConfigError, RoutingError, did_you_mean
from mixopt.routing.adapters import (
    EXAMPLE,
    EXCEPTIONS,
    IDS,
    REFUSED,
    FoundRouter,
    RouterAdapter,
    Source,
    check_sizes,
    ids_argument,
    is_count,
    kinds_of,
)
from mixopt.system import load_object

# `block.3.layer.1` of T5-like models is layer 3.
_LAYER = re.compile(r"(?:^|\.)(?:layers?|blocks?|h)\.(\d+)(?:\.layer\.\d+)?(?:\.|$)")
# Encoders of other modalities, and experts for images beside those for text (ERNIE 4.5 VL).
_NO_TEXT = re.compile(r"(?:^|[._])(?:vision|visual|audio)")
_ROUTER = re.compile(r"(Router|Gating|Gate)(V?\d+)?$")
_EXPERTS = re.compile(r"Experts$")
_NAMED_EXPERTS = re.compile(r"(^|_)(experts|expert_?\d+)$")
_WHOLE = ("", "module", "_orig_mod")  # the model itself, and its names in DDP and torch.compile
_TOP_K_OF_GEMMA = "config.top_k_experts"  # its experts and router do not have the number
_COEFFICIENTS = ("router_aux_loss_coef", "aux_loss_coef", "ffn_config.moe_loss_weight")
_WAY_OUT = (
    "call them with the ids as `top_k_index`, or write an adapter for the module that chooses, such"
    f" as {EXAMPLE}, and name it in YAML as experts:"
    " {adapters: ['my_package.routers:MY_ADAPTER']}, or give it to attach(adapters=[...]);"
    " where the choice is made inside a larger forward, put a RouterTap there"
)


class _ReadModule(NamedTuple):
    """A module whose calls are read: its path in the model, and how."""

    name: str
    module: nn.Module
    source: Source


def find_routers(model: nn.Module, adapters: Sequence[RouterAdapter] = ()) -> list[FoundRouter]:
    """Return the routers of a model, in the order of its layers."""
    _check_adapters(model, adapters)
    sources = _sources(model, adapters)
    names = [source.name for source in sources]
    unread = _unread(model, names)
    if unread:
        raise RoutingError(f"{_kind(model)}: {unread[0]}")
    if not sources:
        raise RoutingError(
            f"{_kind(model)}: no router and no experts found; if it has experts, {_WAY_OUT}"
        )
    layers = [_layer_of(name, position) for position, name in enumerate(names)]
    router_names = _router_names(names, layers)
    routers: list[FoundRouter] = []
    for source, layer, router_name in zip(sources, layers, router_names, strict=True):
        routers.append(_router(model, source, layer, router_name))
    return sorted(routers, key=lambda router: router.layer)


def has_experts(model: nn.Module) -> bool:
    """Return whether a model has modules named like routers or experts."""
    return bool(_sources(model, ()) or _unread(model, []))


def named_adapters(names: Sequence[str]) -> tuple[RouterAdapter, ...]:
    """Import adapters by name: `package.module:Name` of an adapter or a list."""
    adapters: list[RouterAdapter] = []
    for name in names:
        loaded = load_object("experts.adapters: adapter", name)
        listed = loaded if isinstance(loaded, list | tuple) else [loaded]
        for adapter in listed:
            if not isinstance(adapter, RouterAdapter):
                raise RoutingError(
                    f"experts.adapters: {name!r} is {adapter!r}; name a RouterAdapter or a list of"
                    f" some, such as {EXAMPLE}"
                )
            adapters.append(adapter)
    return tuple(adapters)


def auxiliary_coefficient(model: nn.Module) -> float:
    """Return the coefficient of a transformers model's auxiliary loss; 0 without one."""
    for module in filter(_is_of_transformers, model.modules()):
        if not _has_auxiliary_loss(module):
            continue
        config = getattr(module, "config", None)
        for path in _COEFFICIENTS:
            value = _at(config, path)
            if value is None:
                continue
            if not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise ConfigError(
                    f"model.options: {path}: {value!r} is not possible; it must be 0 or more;"
                    " 0 adds no auxiliary loss"
                )
            return float(value)
    return 0.0


def _has_auxiliary_loss(module: nn.Module) -> bool:
    sources = (sys.modules.get(kind.__module__) for kind in type(module).__mro__)
    return any(hasattr(source, "load_balancing_loss_func") for source in sources)


def _sources(model: nn.Module, adapters: Sequence[RouterAdapter]) -> list[_ReadModule]:
    """Return the modules whose calls are read; adapters take precedence."""
    adapter_of = {name: _fitting(adapters, module) for name, module in _modules(model)}
    adapted = {_layer_path(name) for name, adapter in adapter_of.items() if adapter is not None}
    sources: list[_ReadModule] = []
    for name, adapter in adapter_of.items():
        module = model.get_submodule(name)
        if adapter is not None:
            sources.append(_ReadModule(name, module, _of_adapter(adapter)))
            continue
        source = _source_of(module)
        if source is not None and _layer_path(name) not in adapted:
            called = f"{name}.{source.child}" if source.child else name
            sources.append(_ReadModule(called, model.get_submodule(called), source))
    return sources


def _fitting(adapters: Sequence[RouterAdapter], module: nn.Module) -> RouterAdapter | None:
    """Return the first adapter that reads a module."""
    for adapter in adapters:
        if adapter.fits(module):
            return adapter
    return None


def _source_of(module: nn.Module) -> Source | None:
    kinds = kinds_of(module)
    for kind in kinds:
        if kind in EXCEPTIONS:
            return EXCEPTIONS[kind]
    if not REFUSED.keys().isdisjoint(kinds):
        return None
    parameters = _parameters(module)
    for name in IDS:
        if name in parameters:
            return ids_argument(name)
    return None


def _of_adapter(adapter: RouterAdapter) -> Source:
    read = adapter.read
    return Source(
        lambda arguments, output, experts, top_k: read(output), adapter.experts, adapter.top_k
    )


def _parameters(module: nn.Module) -> list[str]:
    """Return the names of a module's call arguments."""
    return list(inspect.signature(type(module).forward).parameters)[1:]


def _router(model: nn.Module, read: _ReadModule, layer: int, router_name: str) -> FoundRouter:
    name = read.name
    module = read.module
    source = read.source
    kind = type(module).__name__
    block = model.get_submodule(name.rpartition(".")[0]) if name else module
    experts = _size(module, block, source.experts)
    top_k = _size(module, block, source.top_k) or _size(module, block, _TOP_K_OF_GEMMA)
    if experts is None or top_k is None:
        attribute = source.experts if experts is None else source.top_k
        raise RoutingError(
            f"router {name!r}: {kind} has no number {attribute!r}; give RouterAdapter(experts=,"
            " top_k=) numbers, or the attributes that have them"
        )
    check_sizes(f"router {name!r}: {kind}", experts, top_k)
    return FoundRouter(
        name=name,
        layer=layer,
        module=module,
        experts=experts,
        top_k=top_k,
        parameters=_parameters(module),
        read=source.read,
        router=router_name,
    )


def _size(module: nn.Module, block: nn.Module, source: int | str) -> int | None:
    """Return a number, or resolve an attribute of the module, its block or its parts."""
    if isinstance(source, int):
        return source
    for owner in (module, block, *block.modules()):
        value = _at(owner, source)
        if is_count(value):
            return int(value)
    return None


def _check_adapters(model: nn.Module, adapters: Sequence[RouterAdapter]) -> None:
    """Raise RoutingError for an adapter that reads nothing, such as one of a misspelt class."""
    modules = [module for _, module in _modules(model)]
    for adapter in adapters:
        if not any(adapter.fits(module) for module in modules):
            kinds = {type(module).__name__ for module in modules}
            raise RoutingError(
                f"{_kind(model)}: no module is of the class of the adapter for {adapter.name!r}"
                f"{did_you_mean(adapter.name, kinds)}; give RouterAdapter the class of the router"
                " as the model has it"
            )


def _unread(model: nn.Module, read: Sequence[str]) -> list[str]:
    """Return modules named like routers or experts in layers without a router that is read."""
    served = {_layer_path(name) for name in read}
    lines: list[str] = []
    for name, module in _modules(model):
        if name.rpartition(".")[2] in _WHOLE or _layer_path(name) in served:
            continue
        kind = type(module).__name__
        refused = [REFUSED[ancestor] for ancestor in kinds_of(module) if ancestor in REFUSED]
        if refused:
            lines.append(f"{name!r} ({kind}) is not counted: {refused[0]}")
        elif _is_router(module) or _is_experts(name, module):
            lines.append(
                f"{name!r} ({kind}) is a router or has experts, and nothing that"
                f" chooses among them is known: {_WAY_OUT}"
            )
    return lines


def _is_router(module: nn.Module) -> bool:
    """Return whether a module is a router: by its class name, or for a gate also by its sizes."""
    kind = type(module).__name__
    if not _ROUTER.search(kind):
        return False
    for name, size in vars(module).items():
        if "expert" in name and is_count(size):
            return True
    return not ("Gate" in kind or _is_of_transformers(module))


def _is_experts(name: str, module: nn.Module) -> bool:
    kind = type(module).__name__
    last_name = name.rpartition(".")[2]
    match = _EXPERTS.search(kind) or _NAMED_EXPERTS.search(last_name)
    return bool(match) and "shared" not in last_name and "Shared" not in kind


def _modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield modules with their names, without those of transformers for images and audio."""
    for name, module in model.named_modules():
        if not (_is_of_transformers(module) and _NO_TEXT.search(name)):
            yield name, module


def _is_of_transformers(module: nn.Module) -> bool:
    return any(kind.__module__.startswith("transformers.") for kind in type(module).__mro__)


def _kind(model: nn.Module) -> str:
    kind = type(model).__name__
    family = _at(model, "config.model_type")
    return f"{kind} (family {family!r})" if family else kind


def _layer_path(name: str) -> str:
    """Return the path of the layer around a module, or of its block if there is none."""
    end = _layer_end(name)
    return name.rpartition(".")[0] if end is None else name[:end]


def _layer_end(name: str) -> int | None:
    """Return where the number of the last layer in a path ends."""
    matches = list(_LAYER.finditer(name))
    return matches[-1].end(1) if matches else None


def _layer_of(name: str, position: int) -> int:
    """Return the model's number of the layer; dense layers count too."""
    numbers = _LAYER.findall(name) or re.findall(r"(?:^|\.)(\d+)(?:\.|$)", name)
    return int(numbers[-1]) if numbers else position


def _router_names(paths: list[str], layers: list[int]) -> list[str]:
    """Return the names of routers in a layer: their paths in it, or "" for a single one."""
    if len(set(layers)) == len(layers):
        return [""] * len(paths)
    names = [_path_in_layer(path) for path in paths]
    is_unique = len(set(zip(layers, names, strict=True))) == len(names)
    return names if is_unique else paths  # encoder and decoder have the same layer numbers


def _path_in_layer(path: str) -> str:
    end = _layer_end(path)
    return path if end is None else path[end + 1 :]


def _at(value: Any, path: str) -> Any:
    for part in path.split("."):
        value = getattr(value, part, None)
    return value
