"""Ways to read a router: knowledge of its class, an adapter, or a tap.

The ids are what the experts were given, also where a bias or groups make them differ from the
largest logits. Classes of transformers' families are known (`mixopt.routing.families`). Any other
module is read by a line:

    RouterAdapter("MyRouter", read=lambda output: (output.expert_ids, output.logits))

and where the choice is made inside a larger forward, a tap goes there:

    self.tap = RouterTap(experts=8, top_k=2)            # in __init__
    self.tap(expert_ids, logits)                        # in forward

What is routed need not be a token of text, nor an expert a feed-forward layer: heads of attention,
ranks of a LoRA, memories and whole models are chosen by routers as well (docs/experts/systems.md).

Shapes: K experts of a token, E experts, H numbers that an expert gives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from torch import Tensor, nn

from mixopt.errors import RoutingError, did_you_mean
from mixopt.routing.assignments import router_key
from mixopt.routing.families import Read, Scores
from mixopt.system import shown_value

# How many tokens, one after the other, a choice is made for.
Span = int | Literal["sequence"]
_READ = "lambda output: (output.expert_ids, output.logits)"
EXAMPLE = f"RouterAdapter('MyRouter', read={_READ})"
_SIZE = "the attribute of the router that has it, or a number"


class RouterTap(nn.Module):
    """Tells RouterStats what a module chose: call it with the ids, and the logits if there are any.

    It computes nothing and has no weights; without a RouterStats it costs nothing. Gates that mix
    all experts, and experts that choose their tokens, give weights alone: `tap(weights=gates)`.
    """

    def __init__(
        self,
        *,
        experts: int,
        top_k: int | None = None,
        scores: Scores = "softmax",
        span: Span = 1,
        runs: int | None = 1,
        drops: bool = False,
    ) -> None:
        """Say what is chosen from.

        Args:
            experts: Routed experts to choose from; shared ones are left out.
            top_k: Experts of a token; None where it may have any number, up to all and down to
                none.
            scores: What turns logits into probabilities.
            span: Tokens that one choice is for: a patch of so many, one after the other, or a
                whole "sequence". It counts as the choice of each of them.
            runs: How often it is called in a forward pass, such as once for each step of a
                recurrent model; None for any number. Each call counts.
            drops: Whether the id `experts` stands for a choice that was dropped for want of
                capacity; without it that id is an error, as of too few experts.

        Raises:
            RoutingError: A word that is unknown, or a number that cannot be.
        """
        super().__init__()
        check_number("RouterTap", "experts", experts)
        if top_k is not None:
            check_number("RouterTap", "top_k", top_k)
        check_use("RouterTap", scores, span, runs)
        check_truth("RouterTap", "drops", drops)
        self.num_experts, self.top_k = experts, experts if top_k is None else top_k
        self.any_number = top_k is None
        self.scores, self.span, self.runs, self.drops = scores, span, runs, drops
        if self.top_k > experts:
            raise RoutingError(f"RouterTap: top_k {top_k} of {experts} experts")

    def forward(
        self,
        expert_ids: Tensor | None = None,
        logits: Tensor | None = None,
        weights: Tensor | None = None,
        shared: Tensor | None = None,
        outputs: Tensor | None = None,
    ) -> tuple[Tensor | None, ...]:
        """Return what it is given.

        Args:
            expert_ids: Integers below `experts`, shape (..., K), tokens in the order of the batch;
                -1 stands for a place that is not used because the token has fewer experts and,
                with `drops=True`, `experts` itself for a choice that was dropped. May be left out
                where `weights` are of all experts: those above 0 are chosen.
            logits: Of all experts, shape (..., E).
            weights: With which each chosen expert's output is taken, >= 0, shape (..., K).
            shared: Share of the shared experts, which every token goes through, in the layer's
                output, 0 to 1, shape (...). Read by a probe alone.
            outputs: What each expert gave, shape (..., E, H). Read by a probe alone.
        """
        return expert_ids, logits, weights, shared, outputs


def check_use(where: str, scores: Scores, span: Span, runs: int | None) -> None:
    """Check how a choice is scored, what it is for and how often it is made.

    Raises:
        RoutingError: A word that is unknown, or a number that cannot be.
    """
    known = get_args(Scores)
    if scores not in known:
        known_words = did_you_mean(str(scores), known)
        raise RoutingError(f"{where}: scores {shown_value(scores)} is unknown{known_words}")
    if span != "sequence":
        check_number(where, "span", span, "a number of tokens, or 'sequence'")
    if runs is not None:
        often = "how often it runs in a forward pass, or None for any number of times"
        check_number(where, "runs", runs, often)


def check_number(where: str, name: str, value: object, wanted: str = "a whole number") -> None:
    """Check that something is a whole number of at least 1.

    Raises:
        RoutingError: It is not, with what is wanted.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise RoutingError(f"{where}: {name} {shown_value(value)}; give {wanted}, 1 or more")


def check_truth(where: str, name: str, value: object) -> None:
    """Check that something is True or False.

    Raises:
        RoutingError: It is not.
    """
    if not isinstance(value, bool):
        raise RoutingError(f"{where}: {name} {shown_value(value)}; give True or False")


@dataclass(frozen=True)
class RouterAdapter:
    """How to read the routers of one class.

    Attributes:
        router: The class, or the end of its name.
        read: From what the module returns to the ids of the chosen experts, integers of shape
            (..., K), and the logits of all experts, shape (..., E), or None. The id -1 is a place
            that is not used. Weights, the share of shared experts and the experts' outputs may
            follow, as `RouterTap` takes them.
        experts: Number of experts, or the attribute of the module that has it.
        top_k: Experts of a token, or the attribute of the module that has it; None where it may
            have any number, as in `RouterTap`.
        scores: What turns logits into probabilities.
        span: Tokens that one choice is for, as in `RouterTap`.
        runs: How often it runs in a forward pass, as in `RouterTap`.
        drops: Whether the id that equals the number of experts is a choice that was dropped, as in
            `RouterTap`.
    """

    router: type[nn.Module] | str
    read: Read
    experts: int | str = "num_experts"
    top_k: int | str | None = "top_k"
    scores: Scores = "softmax"
    span: Span = 1
    runs: int | None = 1
    drops: bool = False

    def __post_init__(self) -> None:
        """Check what is said of the router.

        Raises:
            RoutingError: It cannot be, with what can.
        """
        if not isinstance(self.router, str | type) or not self.router:
            said = shown_value(self.router)
            raise RoutingError(
                f"RouterAdapter: router {said}; give a class, or the end of its name"
            )
        if not callable(self.read):
            raise RoutingError(f"RouterAdapter: read {shown_value(self.read)}; give {_READ}")
        for name, size in (("experts", self.experts), ("top_k", self.top_k)):
            if not (isinstance(size, str) and size) and (size is not None or name == "experts"):
                check_number("RouterAdapter", name, size, _SIZE)
        check_use("RouterAdapter", self.scores, self.span, self.runs)
        check_truth("RouterAdapter", "drops", self.drops)

    @property
    def name(self) -> str:
        """The name of the class, or its end."""
        return self.router if isinstance(self.router, str) else self.router.__name__

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
        span: Tokens that one choice is for, as in `RouterTap`.
        runs: How often it runs in a forward pass, as in `RouterTap`.
        drops: Whether the id that equals the number of experts is a choice that no expert computes.
        any_number: Whether a token may have any number of experts, up to `top_k`.
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
    span: Span = 1
    runs: int | None = 1
    drops: bool = False
    any_number: bool = False

    @property
    def key(self) -> str:
        """Its name among all of the model, as `LayerAssignments.key`."""
        return router_key(self.layer, self.router)

    @property
    def varies(self) -> bool:
        """Whether the experts that compute a token may be fewer than `top_k`."""
        return self.any_number or self.drops


def check_ids(router: FoundRouter, low: int, last: int, high: int) -> None:
    """Check how many ids are of no expert.

    Args:
        router: The router.
        low: How many are below -1, which is a place that is not used.
        last: How many are the number of experts.
        high: How many are above it.

    Raises:
        RoutingError: There are some that stand for nothing.
    """
    experts, beyond = router.experts, high if router.drops else high + last
    if not low and not beyond:
        return
    above = f"{beyond} above {experts if router.drops else experts - 1}"
    known = f"0 to {experts - 1}, -1 for a place that is not used"
    known += f" and {experts} for a dropped choice" if router.drops else ""
    declare = "" if router.drops else f", or drops=True where {experts} is a dropped choice"
    raise RoutingError(
        f"router {router.name!r}: {low + beyond} ids are none of its {experts} experts ({above},"
        f" {low} below -1): they are {known}; give RouterAdapter(experts=) or RouterTap(experts=)"
        f" the actual number{declare}"
    )
