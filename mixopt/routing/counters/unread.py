"""Find what in a model looks like routers or experts, and that nothing reads.

Names are believed: of a class, of a module, of a number of experts. What they name is refused. A
form is a guess: weights stacked, or modules in a list, beside something with as many outputs. It is
reported and not refused, since a dense model may have it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import nn

from mixopt.routing.counters.adapters import EXAMPLE
from mixopt.routing.families import FAMILIES, REFUSED

# `block.3.layer.1` of T5 and its kin is layer 3.
LAYER = re.compile(r"(?:^|\.)(?:layers?|blocks?|h)\.(\d+)(?:\.layer\.\d+)?(?:\.|$)")
_ROUTER = re.compile(r"(Router|Gating|Gate)(V?\d+)?$")
_GATE = re.compile(r"Gate(V?\d+)?$")  # dense models have gates, too
_CHOOSES = re.compile(r"gate|gating|router|switch", re.IGNORECASE)
_EXPERTS = re.compile(r"Experts$")
_NAMED_EXPERTS = re.compile(r"(^|_)(experts|expert_?\d+)$")
_WHOLE = ("", "module", "_orig_mod")  # the model itself, and what DDP and torch.compile call it
# Encoders of other things than text, and experts of images beside those of text (ERNIE 4.5 VL).
_NO_TEXT = re.compile(r"(?:^|[._])(?:vision|visual|audio)")
_SIZES = (
    "num_experts",
    "num_local_experts",
    "n_routed_experts",
    "moe_num_experts",
    "n_experts",
    "num_routed_experts",
    "num_moe_experts",
    "num_total_experts",
    "n_local_experts",
    "nb_experts",
)

_NAMED = (
    "name it in YAML as experts: {adapters: ['my_package.routers:MY_ADAPTER']}, or give it to"
    " attach(adapters=[...])"
)
NO_ROUTER = (
    f"no router of it is known: write an adapter for the module that chooses, such as {EXAMPLE},"
    f" and {_NAMED}; where the choice is made inside a larger forward, put a RouterTap there"
)


def modules_of(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules of a model and their names, without transformers' own of images."""
    for name, module in model.named_modules():
        if not (_is_of_transformers(module) and _NO_TEXT.search(name)):
            yield name, module


def kinds_of(module: nn.Module) -> list[str]:
    """Return the names of a module's classes; FSDP puts one of its own before the module's."""
    return [kind.__name__ for kind in type(module).__mro__]


def is_configured(model: nn.Module) -> bool:
    """Tell whether a model's configuration, of an unknown family, has a number of experts."""
    config = getattr(model, "config", None)
    if getattr(config, "model_type", None) in FAMILIES:
        return False
    sizes = (getattr(config, size, None) for size in _SIZES)
    return any(isinstance(size, int) and size > 1 for size in sizes)


def unread(model: nn.Module, found: Sequence[str]) -> list[tuple[str, nn.Module]]:
    """Return what is called a router or experts, routers first, and no found router serves.

    Args:
        model: Any module.
        found: Names of the routers that are found.
    """
    apart, served = _Unserved.of(found), {_place(name) for name in found}
    routers, experts = [], []
    for name, module in modules_of(model):
        if not apart.has(name):
            continue
        if _is_router(module) or (_place(name) not in served and _routes(model, name, module)):
            routers.append((name, module))
        elif _place(name) not in served and _is_experts(name, module):
            experts.append((name, module))
    return routers + experts


def suspected(model: nn.Module, found: Sequence[str]) -> list[str]:
    """Return what has the form of experts in places that no found router serves, a line each.

    Args:
        model: Any module.
        found: Names of the routers that are found.
    """
    apart, served, lines = _Unserved.of(found), {_place(name) for name in found}, []
    for name, module in modules_of(model):
        own = not (_is_of_transformers(module) or _is_of_torch(module))
        if not own or not apart.has(name) or _place(name) in served:
            continue
        pair = _chosen_from(module)
        if pair is not None:
            chooser, group = pair
            lines.append(
                f"{name!r} ({type(module).__name__}) looks like {group.members} experts,"
                f" {group.name!r}, of which {chooser!r} chooses"
            )
    return lines


def what_to_write(name: str, module: nn.Module) -> str:
    """Say what an adapter of something that is not read must be, or why there is none."""
    kind = type(module).__name__
    refused = next((REFUSED[name] for name in kinds_of(module) if name in REFUSED), None)
    if refused:
        return f"{name!r} ({kind}) is not counted: {refused}"
    if not _ROUTER.search(kind):
        return f"{name!r} ({kind}) has experts, and {NO_ROUTER}"
    example = EXAMPLE.replace("MyRouter", kind)
    return (
        f"{name!r} is a router of a class that is not known, {kind}: write an adapter that says"
        f" what it returns and how it scores, such as {example}, and {_NAMED}"
    )


class _Unserved(NamedTuple):
    """Names that are neither found routers, nor inside one, nor around one."""

    found: frozenset[str]
    around: frozenset[str]
    inside: tuple[str, ...]

    @classmethod
    def of(cls, found: Sequence[str]) -> _Unserved:
        around = {name[:at] for name in found for at in _ends(name)}
        return cls(frozenset(found), frozenset(around), tuple(f"{name}." for name in found))

    def has(self, name: str) -> bool:
        return not (name in self.found or name in self.around or name.startswith(self.inside))


class _Group(NamedTuple):
    """Things of one kind in a block, of which some may be chosen."""

    name: str
    members: int
    stacked: bool  # in one array of weights, rather than modules in a list


def _is_of_transformers(module: nn.Module) -> bool:
    return any(kind.__module__.startswith("transformers.") for kind in type(module).__mro__)


def _is_of_torch(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.nn.")


def _is_router(module: nn.Module) -> bool:
    """Tell by its class and a number of experts, or by the list of those that are refused."""
    named = bool(_ROUTER.search(type(module).__name__))
    return (named and _is_sized(module)) or not REFUSED.keys().isdisjoint(kinds_of(module))


def _is_sized(module: nn.Module) -> bool:
    own = {name: size for name, size in vars(module).items() if "expert" in name}
    sizes = own | {name: getattr(module, name, None) for name in _SIZES}
    return any(isinstance(size, int) and not isinstance(size, bool) for size in sizes.values())


def _routes(model: nn.Module, name: str, module: nn.Module) -> bool:
    """Tell of a module of nobody's family by its class alone; of a gate by what it is beside."""
    block, _, own = name.rpartition(".")
    kind = type(module).__name__
    if own in _WHOLE or _is_of_transformers(module) or not _ROUTER.search(kind):
        return False
    if not _GATE.search(kind):
        return True
    pair = _chosen_from(model.get_submodule(block))
    return pair is not None and pair[0] == own


def _is_experts(name: str, module: nn.Module) -> bool:
    kind, own = type(module).__name__, name.rpartition(".")[2]
    if own in _WHOLE or "shared" in own:
        return False
    named = _EXPERTS.search(kind) and "Shared" not in kind
    return bool(named or _NAMED_EXPERTS.search(own))


def _chosen_from(block: nn.Module) -> tuple[str, _Group] | None:
    """Return what chooses in a block and what it chooses from, by their sizes.

    Stacked weights are beside any linear layer of as many outputs; modules in a list beside one
    that is called a gate or a router.
    """
    choosers = list(_choosers(block))
    for group in _groups(block):
        for name, widths, is_named in choosers:
            if group.members in widths and (is_named or group.stacked):
                return name, group
    return None


def _choosers(block: nn.Module) -> Iterator[tuple[str, set[int], bool]]:
    """Yield what may choose: its name, how many it may choose from, and whether a name shows it."""
    for name, child in block.named_children():
        last = child[-1] if isinstance(child, nn.Sequential) and len(child) else child
        is_named = bool(_CHOOSES.search(name) or _ROUTER.search(type(child).__name__))
        if isinstance(last, nn.Linear):
            yield name, {last.out_features}, is_named
        elif is_named:
            yield name, {size for one in child.parameters() for size in one.shape}, True
    for name, weight in block.named_parameters(recurse=False):
        if weight.dim() == 2 and _CHOOSES.search(name):
            yield name, set(weight.shape), True


def _groups(block: nn.Module) -> Iterator[_Group]:
    yield from _stacks("", block)
    for name, child in block.named_children():
        if isinstance(child, nn.ModuleList):
            if len(child) > 1 and len({type(one) for one in child}) == 1:
                yield _Group(name, len(child), stacked=False)
        elif not (_is_of_torch(child) or _ROUTER.search(type(child).__name__)):
            yield from _stacks(f"{name}.", child)


def _stacks(prefix: str, module: nn.Module) -> Iterator[_Group]:
    for name, weight in module.named_parameters(recurse=False):
        if weight.dim() > 2 and len(weight) > 1:
            yield _Group(prefix + name, len(weight), stacked=True)


def _ends(name: str) -> list[int]:
    """Return where the paths of the modules around one end, the model's own among them."""
    return [0, *(at for at, letter in enumerate(name) if letter == ".")]


def _place(name: str) -> str:
    """Return the path to the layer that a module is in; nothing where it is in none."""
    found = list(LAYER.finditer(name))
    return name[: found[-1].end(1)] if found else ""
