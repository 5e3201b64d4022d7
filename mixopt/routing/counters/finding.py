"""Find the routers of a model, and refuse one whose experts would be counted only in part.

A layer that has experts has a router that is known, or an adapter, or a tap; what looks like a
router and is none of these is an error, never a guess.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from mixopt.errors import RoutingError
from mixopt.routing.counters.adapters import EXAMPLE, FoundRouter, RouterAdapter, RouterTap
from mixopt.routing.families import FAMILIES, REFUSED, ROUTERS, KnownRouter

# `block.3.layer.1` of T5 and its kin is layer 3.
_LAYER = re.compile(r"(?:^|\.)(?:layers?|blocks?|h)\.(\d+)(?:\.layer\.\d+)?(?:\.|$)")
_ROUTER = re.compile(r"(Router|Gating|Gate)$")
_EXPERTS = re.compile(r"Experts$")
_WHOLE = ("", "module", "_orig_mod")  # the model itself, and what DDP and torch.compile call it
# Encoders of other things than text, and experts of images beside those of text (ERNIE 4.5 VL).
_NO_TEXT = re.compile(r"(?:^|[._])(?:vision|visual|audio)")
_SIZES = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_Source = RouterAdapter | KnownRouter


def find_routers(model: nn.Module, adapters: Sequence[RouterAdapter] = ()) -> list[FoundRouter]:
    """Return the routers of a model in the order of its layers.

    Args:
        model: Any module; it may be wrapped by DDP, FSDP or torch.compile.
        adapters: For modules that are not found without; they go first.

    Raises:
        RoutingError: There is none, one is not known or does not say how many experts it has, or a
            layer has experts and no router.
    """
    found = [
        (name, module, source)
        for name, module in _modules(model)
        if (source := _source_of(module, adapters)) is not None
    ]
    layers = [_layer_of(name, position) for position, (name, _, _) in enumerate(found)]
    _check_all_found(model, [name for name, _, _ in found])
    _check_adapters(model, adapters)
    names = _router_names([name for name, _, _ in found], layers)
    routers = [
        _router(model, *entry, layer, router)
        for entry, layer, router in zip(found, layers, names, strict=True)
    ]
    return sorted(routers, key=lambda router: router.layer)


def has_experts(model: nn.Module, adapters: Sequence[RouterAdapter] = ()) -> bool:
    """Tell whether a model has routers or experts, known or not.

    Where no module shows it, the configuration of an unknown family does.
    """
    if any(_source_of(module, adapters) is not None for _, module in _modules(model)):
        return True
    return next(_unread(model, []), None) is not None or _is_configured(model)


def _modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules of a model and their names, without transformers' own of images."""
    for name, module in model.named_modules():
        known = any(kind.__module__.startswith("transformers.") for kind in type(module).__mro__)
        if not (known and _NO_TEXT.search(name)):
            yield name, module


def _source_of(module: nn.Module, adapters: Sequence[RouterAdapter]) -> _Source | None:
    for adapter in adapters:
        if adapter.fits(module):
            return adapter
    if isinstance(module, RouterTap):
        return RouterAdapter(
            RouterTap,
            read=_read_tap,
            scores=module.scores,
            span=module.span,
            runs=module.runs,
        )
    return next((ROUTERS[name] for name in _kinds(module) if name in ROUTERS), None)


def _kinds(module: nn.Module) -> list[str]:
    """Return the names of a module's classes; FSDP puts one of its own before the module's."""
    return [kind.__name__ for kind in type(module).__mro__]


def _check_all_found(model: nn.Module, found: list[str]) -> None:
    unread = sorted(_unread(model, found), key=lambda entry: not _is_router(entry[1]))
    if unread:
        raise RoutingError(f"{_kind(model)}: {_what_to_write(*unread[0])}")
    if not found and _is_configured(model):
        raise RoutingError(f"{_kind(model)}: its configuration has experts, and {_NO_ROUTER}")
    if not found:
        raise RoutingError(
            f"{_kind(model)}: no router and no experts found; looked for routers of transformers'"
            f" families, RouterTap and adapters: give attach(adapters=[{EXAMPLE}])"
        )


def _check_adapters(model: nn.Module, adapters: Sequence[RouterAdapter]) -> None:
    """Refuse an adapter that would read nothing: its class is misspelt, or it is of another model.

    Raises:
        RoutingError: It fits no module.
    """
    for adapter in adapters:
        if not any(adapter.fits(module) for _, module in _modules(model)):
            kind = adapter.router if isinstance(adapter.router, str) else adapter.router.__name__
            raise RoutingError(
                f"{_kind(model)}: the adapter of {kind!r} fits no module; give the class of one, or"
                " the end of its name, or leave the adapter out"
            )


_NAMED = (
    "name it in YAML as experts: {adapters: ['my_package.routers:MY_ADAPTER']}, or give it to"
    " attach(adapters=[...])"
)
_NO_ROUTER = (
    f"no router of it is known: write an adapter for the module that chooses, such as {EXAMPLE},"
    f" and {_NAMED}; where the choice is made inside a larger forward, put a RouterTap there"
)


def _what_to_write(name: str, module: nn.Module) -> str:
    kind = type(module).__name__
    refused = next((REFUSED[name] for name in _kinds(module) if name in REFUSED), None)
    if refused:
        return f"{name!r} ({kind}) is not counted: {refused}"
    if not _ROUTER.search(kind):
        return f"{name!r} ({kind}) has experts, and {_NO_ROUTER}"
    example = EXAMPLE.replace("MyRouter", kind)
    return (
        f"{name!r} is a router of a class that is not known, {kind}: write an adapter that says"
        f" what it returns and how it scores, such as {example}, and {_NAMED}"
    )


def _unread(model: nn.Module, found: list[str]) -> Iterator[tuple[str, nn.Module]]:
    """Yield what looks like routers or experts, and that none of the found routers serves."""
    inside = tuple(f"{name}." for name in found)
    served = {_place(name) for name in found}
    around = {name[:at] for name in found for at in _ends(name)}
    for name, module in _modules(model):
        if name in found or name in around or name.startswith(inside):
            continue
        if _is_router(module) or (_is_experts(name, module) and _place(name) not in served):
            yield name, module


def _is_router(module: nn.Module) -> bool:
    kinds = _kinds(module)
    sized = any(isinstance(getattr(module, size, None), int) for size in _SIZES)
    return (sized and bool(_ROUTER.search(kinds[0]))) or not REFUSED.keys().isdisjoint(kinds)


def _is_experts(name: str, module: nn.Module) -> object:
    kind, own = type(module).__name__, name.rpartition(".")[2]
    if own in _WHOLE:
        return False
    return (_EXPERTS.search(kind) and "Shared" not in kind) or own == "experts"


def _ends(name: str) -> list[int]:
    """Return where the paths of the modules around one end, the model's own among them."""
    return [0, *(at for at, letter in enumerate(name) if letter == ".")]


def _place(name: str) -> str:
    """Return the path to the layer that a module is in; nothing where it is in none."""
    found = list(_LAYER.finditer(name))
    return name[: found[-1].end(1)] if found else ""


def _is_configured(model: nn.Module) -> bool:
    config = getattr(model, "config", None)
    if getattr(config, "model_type", None) in FAMILIES:
        return False
    sizes = (getattr(config, size, None) for size in _SIZES)
    return any(isinstance(size, int) and size > 1 for size in sizes)


def _kind(model: nn.Module) -> str:
    family = getattr(getattr(model, "config", None), "model_type", None)
    return type(model).__name__ + (f" (family {family!r})" if family else "")


def _router_names(paths: list[str], layers: list[int]) -> list[str]:
    """Return what tells routers of one layer apart; nothing where each layer has one.

    It is the path without the layer's number and without what all of them have in common:
    `layers.3.attention.router` and `layers.3.mlp.router` are "attention" and "mlp".
    """
    if len(set(layers)) == len(layers):
        return [""] * len(paths)
    parts = [_without_layer(path) for path in paths]
    kinds = [list(kind) for kind in dict.fromkeys(map(tuple, parts))]
    begin, end = _common(kinds), _common([kind[::-1] for kind in kinds])
    names = [".".join(part[begin : len(part) - end]) or part[-1] for part in parts]
    taken = list(zip(layers, names, strict=True))
    return paths if len(set(taken)) < len(taken) else names


def _without_layer(path: str) -> list[str]:
    found = list(_LAYER.finditer(path))
    if not found:
        return path.split(".")
    return [
        part for part in (path[: found[-1].start(1)] + path[found[-1].end(1) :]).split(".") if part
    ]


def _common(kinds: list[list[str]]) -> int:
    """Return how many parts all begin with."""
    columns = zip(*kinds, strict=False)
    return next((k for k, column in enumerate(columns) if len(set(column)) > 1), 0)


def _read_tap(output: Any) -> tuple[Tensor | None, ...]:
    given: tuple[Tensor | None, ...] = output
    return given


def _layer_of(name: str, position: int) -> int:
    """Return the number that the model gives the layer: dense layers count too."""
    found = _LAYER.findall(name) or re.findall(r"(?:^|\.)(\d+)(?:\.|$)", name)
    return int(found[-1]) if found else position


def _router(
    model: nn.Module, name: str, module: nn.Module, source: _Source, layer: int, router: str
) -> FoundRouter:
    look = partial(_value, model, name, module)
    experts, top_k = (_size(look, name, module, size) for size in (source.experts, source.top_k))
    if isinstance(source, RouterAdapter):
        return FoundRouter(
            name,
            layer,
            module,
            experts,
            top_k,
            source.scores,
            source.read,
            router,
            span=source.span,
            runs=source.runs,
        )
    scored = source.scores
    return FoundRouter(
        name,
        layer,
        module,
        experts,
        top_k,
        scored if isinstance(scored, str) else scored(module),
        lambda output: source.read(output, experts, top_k),
        router,
        idle=source.idle if isinstance(source.idle, int) else look(source.idle) or 0,
        bias=partial(look, source.bias) if _has_bias(look, source) else None,
    )


def _has_bias(look: partial[Any], source: KnownRouter) -> bool:
    return source.bias is not None and isinstance(look(source.bias), Tensor)


def _size(look: partial[Any], name: str, module: nn.Module, source: int | str) -> int:
    size = look(source) if isinstance(source, str) else source
    if not isinstance(size, int) or size < 1:
        raise RoutingError(
            f"router {name!r}: {type(module).__name__} has no number {source!r}; give"
            " RouterAdapter(experts=, top_k=) numbers, or the attributes that have them"
        )
    return size


def _value(model: nn.Module, name: str, module: nn.Module, path: str) -> Any:
    """Return what is at a path of a router, of the block around it, or of the configuration."""
    first, _, rest = path.partition(".")
    if first == "config" and not hasattr(module, "config"):
        return _at(_config_of(model, name), rest)
    around = model.get_submodule(name.rpartition(".")[0]) if name else module
    return _at(module, path) if _at(module, path) is not None else _at(around, path)


def _config_of(model: nn.Module, name: str) -> Any:
    """Return the configuration of the nearest module around a router that has one."""
    while name:
        name = name.rpartition(".")[0]
        config = getattr(model.get_submodule(name), "config", None)
        if config is not None:
            return config
    return None


def _at(value: Any, path: str) -> Any:
    for part in path.split("."):
        value = getattr(value, part, None)
    return value
