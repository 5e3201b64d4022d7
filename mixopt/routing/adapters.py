"""How chosen experts are read: from the ids that experts are called with, or by an adapter.

Experts in transformers are called with the ids that the router chose, `top_k_index` or
`router_indices`. The few other families are in `EXCEPTIONS`. Your own model does the same, has a
`RouterTap`, or is given a `RouterAdapter`.

Shapes: T tokens, K experts of a token, E experts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from mixopt.errors import RoutingError
from mixopt.system import shown_value

IDS = ("top_k_index", "router_indices")  # argument names of the ids in calls of experts
# Classes called with ids that are not counted, and why.
REFUSED = {
    "Inkling2LoopExperts": "layers of its loop run several times in one forward pass, and experts"
    " are counted once"
}
EXAMPLE = "RouterAdapter('MyRouter', read=lambda output: output.expert_ids)"


class RouterTap(nn.Module):
    """Passes the choice of a larger module to RouterStats: call it with the ids.

    It has no weights and computes nothing:

        self.tap = RouterTap(experts=8, top_k=2)            # in __init__
        self.tap(expert_ids)                                # in forward
    """

    def __init__(self, *, experts: int, top_k: int) -> None:
        """Define the choice.

        Args:
            experts: Routed experts to choose from; shared ones are left out.
            top_k: Experts of a token.

        Raises:
            RoutingError: An impossible number.
        """
        super().__init__()
        self.num_experts = experts
        self.top_k = top_k
        check_sizes("RouterTap", experts, top_k)

    def forward(self, top_k_index: Tensor) -> Tensor:
        """Return its argument.

        Args:
            top_k_index: Integers below `experts`, shape (..., top_k), tokens in the order of the
                batch; -1 for assignments that no expert computes.
        """
        return top_k_index


@dataclass(frozen=True)
class RouterAdapter:
    """How routers of one class are read.

    Attributes:
        router: The class, or the end of its name.
        read: Function from the module's output to the ids of the chosen experts, integers of shape
            (..., K), tokens in the order of the batch; -1 for assignments that no expert computes.
        experts: Number of experts, or the attribute of the module that has it.
        top_k: Experts of a token, or the attribute of the module that has it.
    """

    router: type[nn.Module] | str
    read: Callable[[Any], Tensor]
    experts: int | str = "num_experts"
    top_k: int | str = "top_k"

    def __post_init__(self) -> None:
        """Check the class."""
        if not isinstance(self.router, str | type) or not self.router:
            shown = shown_value(self.router)
            raise RoutingError(
                f"RouterAdapter: router {shown}; give a class, or the end of its name"
            )

    @property
    def name(self) -> str:
        """The name of the class, or its end."""
        return self.router if isinstance(self.router, str) else self.router.__name__

    def fits(self, module: nn.Module) -> bool:
        """Return whether it reads this module."""
        if isinstance(self.router, str):
            return any(kind.endswith(self.router) for kind in kinds_of(module))
        return isinstance(module, self.router)


class FoundRouter(NamedTuple):
    """A router: where its ids are read, and its numbers of experts.

    Attributes:
        name: Path of the module in the model: experts, or the router of an exception or adapter.
        layer: The model's number of the layer.
        module: The module.
        experts: Routed experts to choose from.
        top_k: Experts of a token.
        parameters: Names of the module's call arguments.
        read: Function from call arguments by name, output, and both numbers to the ids; -1 for
            assignments that no expert computes.
        router: Its name in the layer, if layers have several.
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
    """How a class is read: E and K are numbers or attributes, `child` is the called part."""

    read: Callable[[dict[str, Any], Any, int, int], Tensor]
    experts: str | int = "num_experts"
    top_k: str | int = "top_k"
    child: str = ""


def _switch_ids(_: dict[str, Any], output: Any, experts: int, top_k: int) -> Tensor:
    """Return the ids of one-hot choices within the capacity."""
    chosen_TE: Tensor = output[0].flatten(0, -2)
    return chosen_TE.argmax(-1).masked_fill(chosen_TE.sum(-1) == 0, -1)[:, None]


EXCEPTIONS = {
    # Experts are rows of an embedding.
    "DogeCDMoE": Source(
        lambda arguments, output, experts, top_k: arguments["input"],
        "num_embeddings",
        child="down_embed",
    ),
    # Its experts get slices of tokens sorted by expert; logits are the last output.
    "JetMoeTopKGating": Source(
        lambda arguments, output, experts, top_k: output[4].topk(top_k, dim=1).indices
    ),
    # All experts run on all tokens; scores of unchosen experts are 0.
    "Llama4Router": Source(
        lambda arguments, output, experts, top_k: output[1].topk(top_k, dim=1).indices
    ),
    # Experts beyond the number are identities.
    "LongcatFlashExperts": Source(
        lambda arguments, output, experts, top_k: arguments["top_k_index"].masked_fill(
            arguments["top_k_index"] >= experts, -1
        ),
        "num_routed_experts",
    ),
    "SwitchTransformersTop1Router": Source(_switch_ids, top_k=1),
    # A skipped token goes to the first expert with weight 0.
    "ZayaExperts": Source(
        lambda arguments, output, experts, top_k: arguments["top_k_index"].masked_fill(
            arguments["top_k_weights"] == 0, -1
        )
    ),
}


def ids_argument(name: str) -> Source:
    """Return the source for experts that are called with the ids as argument `name`."""
    return Source(lambda arguments, output, experts, top_k: arguments[name])


def check_sizes(where: str, experts: object, top_k: object) -> None:
    """Check numbers of experts, and of experts of a token."""
    _check_count(f"{where}: experts", experts)
    _check_count(f"{where}: top_k", top_k)
    if top_k > experts:  # type: ignore[operator]
        raise RoutingError(f"{where}: chooses {top_k} of {experts} experts")


def _check_count(where: str, size: object) -> None:
    if not is_count(size):
        raise RoutingError(f"{where} {shown_value(size)}; give a whole number above 0")


def is_count(value: object) -> bool:
    """Return whether a value is an integer above 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def kinds_of(module: nn.Module) -> list[str]:
    """Return the names of a module's classes; FSDP puts one of its own before the module's."""
    return [kind.__name__ for kind in type(module).__mro__]
