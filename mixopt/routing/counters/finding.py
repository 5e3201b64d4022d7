"""Find the routers of a model, and refuse one whose experts would be counted only in part.

A layer that has experts has a router that is known, or an adapter, or a tap; what is called a
router or experts and is none of these is an error, never a guess (mixopt.routing.counters.unread).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from functools import partial
from typing import Any

from torch import Tensor, nn

from mixopt.errors import RoutingError
from mixopt.routing.counters.adapters import EXAMPLE, FoundRouter, RouterAdapter, RouterTap
from mixopt.routing.counters.unread import (
    LAYER,
    NO_ROUTER,
    is_configured,
    kinds_of,
    modules_of,
    suspected,
    unread,
    what_to_write,
)
from mixopt.routing.families import ROUTERS, KnownRouter

_Source = RouterAdapter | KnownRouter


def find_routers(model: nn.Module, adapters: Sequence[RouterAdapter] = ()) -> list[FoundRouter]:
    """Return the routers of a model in the order of its layers.

    Args:
        model: Any module; it may be wrapped by DDP, FSDP or torch.compile.
        adapters: For modules that are not found without; they go first.

    Raises:
        RoutingError: There is none, one is not known or does not say how many experts it has, a
            layer has experts and no router, or an adapter fits no module.
    """
    _check_adapters(model, adapters)
    found = [
        (name, module, source)
        for name, module in modules_of(model)
        if (source := _source_of(module, adapters)) is not None
    ]
    layers = [_layer_of(name, position) for position, (name, _, _) in enumerate(found)]
    _check_all_found(model, [name for name, _, _ in found])
    names = _router_names([name for name, _, _ in found], layers)
    routers = [
        _router(model, *entry, layer, router)
        for entry, layer, router in zip(found, layers, names, strict=True)
    ]
    return sorted(routers, key=lambda router: router.layer)


def has_experts(model: nn.Module, adapters: Sequence[RouterAdapter] = ()) -> bool:
    """Tell whether a model has routers or experts by their names, known or not.

    Where no module shows it, the configuration of an unknown family does. What has the form of
    experts under other names is told by `suspected_experts`.
    """
    if any(_source_of(module, adapters) is not None for _, module in modules_of(model)):
        return True
    return bool(unread(model, [])) or is_configured(model)


def suspected_experts(model: nn.Module, adapters: Sequence[RouterAdapter] = ()) -> list[str]:
    """Return what looks like experts by its form alone, a line each, and is not counted.

    Args:
        model: As of `find_routers`.
        adapters: As of `find_routers`.
    """
    found = [name for name, module in modules_of(model) if _source_of(module, adapters) is not None]
    return [f"{_kind(model)}: {one}, and {NO_ROUTER}" for one in suspected(model, found)]


def _source_of(module: nn.Module, adapters: Sequence[RouterAdapter]) -> _Source | None:
    for adapter in adapters:
        if adapter.fits(module):
            return adapter
    if isinstance(module, RouterTap):
        return RouterAdapter(
            RouterTap,
            read=_read_tap,
            top_k=None if module.any_number else module.top_k,
            scores=module.scores,
            span=module.span,
            runs=module.runs,
            drops=module.drops,
        )
    return next((ROUTERS[name] for name in kinds_of(module) if name in ROUTERS), None)


def _check_adapters(model: nn.Module, adapters: Sequence[RouterAdapter]) -> None:
    """Check that each adapter reads something: one that does not is of a misspelt class."""
    modules = [module for _, module in modules_of(model)]
    for adapter in adapters:
        if not any(adapter.fits(module) for module in modules):
            kinds = {type(module).__name__ for module in modules}
            near = get_close_matches(adapter.name, sorted(kinds), n=1, cutoff=0.6)
            perhaps = f"; did you mean {near[0]!r}?" if near else ""
            raise RoutingError(
                f"{_kind(model)}: no module is of the class of the adapter for {adapter.name!r}"
                f"{perhaps}; give RouterAdapter the class of the router as the model has it, or"
                " leave the adapter out"
            )


def _check_all_found(model: nn.Module, found: list[str]) -> None:
    apart = unread(model, found)
    if apart:
        raise RoutingError(f"{_kind(model)}: {what_to_write(*apart[0])}")
    if not found and is_configured(model):
        raise RoutingError(f"{_kind(model)}: its configuration has experts, and {NO_ROUTER}")
    if not found:
        seen = "".join(f"; {one}" for one in suspected(model, found)[:1])
        raise RoutingError(
            f"{_kind(model)}: no router and no experts found; looked for routers of transformers'"
            f" families, RouterTap and adapters{seen}: give attach(adapters=[{EXAMPLE}])"
        )


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
    found = list(LAYER.finditer(path))
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
    found = LAYER.findall(name) or re.findall(r"(?:^|\.)(\d+)(?:\.|$)", name)
    return int(found[-1]) if found else position


def _router(
    model: nn.Module, name: str, module: nn.Module, source: _Source, layer: int, router: str
) -> FoundRouter:
    look = partial(_value, model, name, module)
    experts = _size(look, name, module, source.experts)
    top_k = experts if source.top_k is None else _size(look, name, module, source.top_k)
    if top_k > experts:
        raise RoutingError(
            f"router {name!r}: {type(module).__name__} chooses {top_k} of {experts} experts; give"
            " RouterAdapter(experts=, top_k=) numbers that can be"
        )
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
            drops=source.drops,
            any_number=source.top_k is None,
        )
    scored = source.scores
    idle = source.idle if isinstance(source.idle, int) else look(source.idle) or 0
    return FoundRouter(
        name,
        layer,
        module,
        experts,
        top_k,
        scored if isinstance(scored, str) else scored(module),
        lambda output: source.read(output, experts, top_k),
        router,
        idle=idle,
        bias=partial(look, source.bias) if _has_bias(look, source) else None,
        drops=source.drops or idle > 0,
    )


def _has_bias(look: partial[Any], source: KnownRouter) -> bool:
    return source.bias is not None and isinstance(look(source.bias), Tensor)


def _size(look: partial[Any], name: str, module: nn.Module, source: int | str) -> int:
    size = look(source) if isinstance(source, str) else source
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
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
