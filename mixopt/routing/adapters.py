"""Ways to read which experts were chosen: by the ids experts are called with, or by an adapter.

Experts of transformers are called with the ids that the router chose, `top_k_index` or
`router_indices`. The few families that do it otherwise are in `EXCEPTIONS`; a model of one's own
does it, has a `RouterTap`, or is given a `RouterAdapter`.

Shapes: T tokens, K experts of a token, E experts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from mixopt.errors import RoutingError
from mixopt.system import shown_value

IDS = ("top_k_index", "router_indices")  # what experts call the ids that they are given
EXAMPLE = "RouterAdapter('MyRouter', read=lambda output: output.expert_ids)"


class RouterTap(nn.Module):
    """Tells RouterStats what a larger forward chose: call it with the ids.

    It computes nothing and has no weights:

        self.tap = RouterTap(experts=8, top_k=2)            # in __init__
        self.tap(expert_ids)                                # in forward
    """

    def __init__(self, *, experts: int, top_k: int) -> None:
        """Say what is chosen from.

        Args:
            experts: Routed experts to choose from; shared ones are left out.
            top_k: Experts of a token.

        Raises:
            RoutingError: A number that is not possible.
        """
        super().__init__()
        self.num_experts, self.top_k = experts, top_k
        check_sizes("RouterTap", experts, top_k)

    def forward(self, top_k_index: Tensor) -> Tensor:
        """Return what it is given.

        Args:
            top_k_index: Integers below `experts`, shape (..., top_k), tokens in the order of the
                batch; -1 stands for a place that no expert computes.
        """
        return top_k_index


@dataclass(frozen=True)
class RouterAdapter:
    """How to read the routers of one class.

    Attributes:
        router: The class, or the end of its name.
        read: From what the module returns to the ids of the chosen experts, integers of shape
            (..., K), tokens in the order of the batch; -1 is a place that no expert computes.
        experts: Number of experts, or the attribute of the module that has it.
        top_k: Experts of a token, or the attribute of the module that has it.
    """

    router: type[nn.Module] | str
    read: Callable[[Any], Tensor]
    experts: int | str = "num_experts"
    top_k: int | str = "top_k"

    def __post_init__(self) -> None:
        """Check what is said of the router."""
        if not isinstance(self.router, str | type) or not self.router:
            given = shown_value(self.router)
            raise RoutingError(
                f"RouterAdapter: router {given}; give a class, or the end of its name"
            )
        if not callable(self.read):
            raise RoutingError(f"RouterAdapter: read {shown_value(self.read)}; give a function")
        for name, size in (("experts", self.experts), ("top_k", self.top_k)):
            if not (isinstance(size, str) and size) and not is_count(size):
                raise RoutingError(
                    f"RouterAdapter: {name} {shown_value(size)}; give the attribute of the router"
                    " that has it, or a number of 1 or more"
                )

    @property
    def name(self) -> str:
        """The name of the class, or its end."""
        return self.router if isinstance(self.router, str) else self.router.__name__

    def fits(self, module: nn.Module) -> bool:
        """Tell whether it reads this module."""
        if isinstance(self.router, str):
            return any(kind.endswith(self.router) for kind in kinds_of(module))
        return isinstance(module, self.router)


class FoundRouter(NamedTuple):
    """Where the ids of a router are read, and what it chooses from.

    Attributes:
        name: Path of the module in the model: experts, or the router of an exception or adapter.
        layer: Number that the model gives the layer.
        module: The module.
        experts: Routed experts to choose from.
        top_k: Experts of a token.
        parameters: Names of what the module is called with.
        read: From the arguments of a call, by name, what it returns, and both numbers to the ids;
            -1 stands for an assignment that no expert computes.
        router: Names it in its layer, where layers have several.
    """

    name: str
    layer: int
    module: nn.Module
    experts: int
    top_k: int
    parameters: Sequence[str]
    read: Callable[[dict[str, Any], Any, int, int], Tensor]
    router: str = ""


class Source(NamedTuple):
    """How one class is read: E and K are numbers or attributes, `child` the part that is called."""

    read: Callable[[dict[str, Any], Any, int, int], Tensor]
    experts: str | int = "num_experts"
    top_k: str | int = "top_k"
    child: str = ""


def _switch_ids(_: dict[str, Any], output: Any, experts: int, top_k: int) -> Tensor:
    """Read the one-hot choices within the capacity."""
    chosen_TE: Tensor = output[0].flatten(0, -2)
    return chosen_TE.argmax(-1).masked_fill(chosen_TE.sum(-1) == 0, -1)[:, None]


EXCEPTIONS = {
    # An expert is a row of an embedding.
    "DogeCDMoE": Source(
        lambda given, output, experts, top_k: given["input"], "num_embeddings", child="down_embed"
    ),
    # Its experts are given slices of the tokens, sorted by expert; logits are last.
    "JetMoeTopKGating": Source(
        lambda given, output, experts, top_k: output[4].topk(top_k, dim=1).indices
    ),
    # All experts run on all tokens, times a score of 0 where they are not chosen.
    "Llama4Router": Source(
        lambda given, output, experts, top_k: output[1].topk(top_k, dim=1).indices
    ),
    # Experts beyond the number return what they are given.
    "LongcatFlashExperts": Source(
        lambda given, output, experts, top_k: given["top_k_index"].masked_fill(
            given["top_k_index"] >= experts, -1
        ),
        "num_routed_experts",
    ),
    "SwitchTransformersTop1Router": Source(_switch_ids, top_k=1),
    # A skipped token is given to the first expert, times 0.
    "ZayaExperts": Source(
        lambda given, output, experts, top_k: given["top_k_index"].masked_fill(
            given["top_k_weights"] == 0, -1
        )
    ),
}


def _by_name(name: str) -> Source:
    return Source(lambda given, output, experts, top_k: given[name])


BY_NAME = {name: _by_name(name) for name in IDS}
# What is called with ids and yet not counted, and why.
REFUSED = {
    "Inkling2LoopExperts": "layers of its loop run several times in one forward pass, and experts"
    " are counted once"
}


def check_sizes(where: str, experts: object, top_k: object) -> None:
    """Check numbers of experts, and of experts of a token."""
    for name, size in (("experts", experts), ("top_k", top_k)):
        if not is_count(size):
            raise RoutingError(f"{where}: {name} {shown_value(size)}; give a whole number above 0")
    if top_k > experts:  # type: ignore[operator]
        raise RoutingError(f"{where}: chooses {top_k} of {experts} experts")


def is_count(value: object) -> bool:
    """Tell whether something is a whole number above 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def kinds_of(module: nn.Module) -> list[str]:
    """Return the names of a module's classes; FSDP puts one of its own before the module's."""
    return [kind.__name__ for kind in type(module).__mro__]
