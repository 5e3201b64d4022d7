"""How a router is read: by what is known of its class, by an adapter, or at a tap.

The ids are what the experts were given, also where a bias or groups make them differ from the
largest logits. Classes of transformers' families are known (`mixopt.routing.families`). Any other
module is read by a line:

    RouterAdapter("MyRouter", read=lambda output: (output.expert_ids, output.logits))

and where the choice is made inside a larger forward, a tap goes there:

    self.tap = RouterTap(experts=8, top_k=2)            # in __init__
    self.tap(expert_ids, logits)                        # in forward

Shapes: T tokens, K experts of a token, E experts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from mixopt.routing.assignments import router_key
from mixopt.routing.families import Read, Scores

EXAMPLE = "RouterAdapter('MyRouter', read=lambda output: (output.expert_ids, output.logits))"


class RouterTap(nn.Module):
    """Tells RouterStats what a module chose: call it with the ids, and the logits if there are any.

    It computes nothing and has no weights; without a RouterStats it costs nothing.
    """

    def __init__(self, *, experts: int, top_k: int, scores: Scores = "softmax") -> None:
        """Say what is chosen from.

        Args:
            experts: Routed experts to choose from; shared ones are left out.
            top_k: Experts of a token.
            scores: What turns logits into probabilities.
        """
        super().__init__()
        self.num_experts, self.top_k, self.scores = experts, top_k, scores

    def forward(
        self, expert_ids: Tensor, logits: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return what it is given.

        Args:
            expert_ids: Integers below `experts`, shape (..., K), tokens in the order of the batch;
                `experts` itself stands for a choice that was dropped for want of capacity.
            logits: Of all experts, shape (..., E).
        """
        return expert_ids, logits


@dataclass(frozen=True)
class RouterAdapter:
    """How to read the routers of one class.

    Attributes:
        router: The class, or the end of its name.
        read: From what the module returns to the ids of the chosen experts, integers of shape
            (..., K), and the logits of all experts, shape (..., E), or None. An id that equals the
            number of experts is a choice that was dropped.
        experts: Number of experts, or the attribute of the module that has it.
        top_k: Experts of a token, or the attribute of the module that has it.
        scores: What turns logits into probabilities.
    """

    router: type[nn.Module] | str
    read: Read
    experts: int | str = "num_experts"
    top_k: int | str = "top_k"
    scores: Scores = "softmax"

    def fits(self, module: nn.Module) -> bool:
        """Tell whether it reads this module; FSDP puts its own class before the module's."""
        if isinstance(self.router, str):
            return type(module).__name__.endswith(self.router)
        return isinstance(module, self.router)


class FoundRouter(NamedTuple):
    """A router of a model: where it is, what it chooses from and how to read it.

    Attributes:
        name: Path of the module in the model.
        layer: Number that the model gives the layer.
        module: The router.
        experts: Routed experts to choose from.
        top_k: Experts of a token.
        scores: What turns logits into probabilities.
        read: From what the module returns to ids and logits.
        router: Names it in its layer, where the model has layers of several.
        idle: Choices beyond the experts that compute nothing; logits have them, too.
        bias: Returns what is added to choose, to balance the load, as the model has it now: of
            E + idle numbers; None where nothing is.
    """

    name: str
    layer: int
    module: nn.Module
    experts: int
    top_k: int
    scores: Scores
    read: Read
    router: str = ""
    idle: int = 0
    bias: Callable[[], Tensor] | None = None

    @property
    def key(self) -> str:
        """Its name among all of the model, as `LayerAssignments.key`."""
        return router_key(self.layer, self.router)
