"""Find the routers of a model, and read what they chose.

Hugging Face's routers are modules of their own that return (logits, weights, expert ids), so one
adapter reads all of them: the ids are what the experts were given, also where a bias or groups
make them differ from the largest logits. Any other module is read by a line:

    RouterAdapter("MyRouter", read=lambda output: (output.expert_ids, output.logits))

and where the choice is made inside a larger forward, a tap goes there:

    self.tap = RouterTap(experts=8, top_k=2)            # in __init__
    self.tap(expert_ids, logits)                        # in forward

What is routed need not be a token of text, nor an expert a feed-forward layer: heads of attention,
ranks of a LoRA, memories and whole models are chosen by routers as well (docs/experts/systems.md).

Shapes: K experts of a token, E experts, H numbers that an expert gives.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from mixopt.errors import RoutingError
from mixopt.routing.assignments import router_key
from mixopt.routing.families import Read, Scores

# How many tokens, one after the other, a choice is made for.
Span = int | Literal["sequence"]
EXAMPLE = "RouterAdapter('MyRouter', read=lambda output: (output.expert_ids, output.logits))"
_HUGGING_FACE = re.compile(r"Top[kK]Router$")
_LAYER = re.compile(r"(?:^|\.)(?:layers?|blocks?|h)\.(\d+)(?:\.|$)")


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

        Raises:
            RoutingError: A number that cannot be.
        """
        super().__init__()
        self.num_experts, self.top_k = experts, experts if top_k is None else top_k
        self.scores, self.span, self.runs = scores, span, runs
        if not 1 <= self.top_k <= experts:
            raise RoutingError(f"RouterTap: top_k {top_k} of {experts} experts")
        check_use("RouterTap", span, runs)

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
                `experts` itself stands for a choice that was dropped for want of capacity, -1 for
                a place that is not used because the token has fewer experts. May be left out where
                `weights` are of all experts: those above 0 are chosen.
            logits: Of all experts, shape (..., E).
            weights: With which each chosen expert's output is taken, >= 0, shape (..., K).
            shared: Share of the shared experts, which every token goes through, in the layer's
                output, 0 to 1, shape (...). Read by a probe alone.
            outputs: What each expert gave, shape (..., E, H). Read by a probe alone.
        """
        return expert_ids, logits, weights, shared, outputs


def check_use(where: str, span: Span, runs: int | None) -> None:
    """Check what a choice is for and how often it is made.

    Raises:
        RoutingError: A number that cannot be.
    """
    if span != "sequence" and (not isinstance(span, int) or span < 1):
        raise RoutingError(f"{where}: span {span!r}; give a number of tokens, or 'sequence'")
    if runs is not None and runs < 1:
        raise RoutingError(f"{where}: runs {runs!r}; give how often it runs in a forward pass")


@dataclass(frozen=True)
class RouterAdapter:
    """How to read the routers of one class.

    Attributes:
        router: The class, or the end of its name.
        read: From what the module returns to the ids of the chosen experts, integers of shape
            (..., K), and the logits of all experts, shape (..., E), or None. An id that equals the
            number of experts is a choice that was dropped, -1 a place that is not used. Weights,
            the share of shared experts and the experts' outputs may follow, as `RouterTap` takes
            them.
        experts: Number of experts, or the attribute of the module that has it.
        top_k: Experts of a token, or the attribute of the module that has it.
        scores: What turns logits into probabilities.
        span: Tokens that one choice is for, as in `RouterTap`.
        runs: How often it runs in a forward pass, as in `RouterTap`.
    """

    router: type[nn.Module] | str
    read: Read
    experts: int | str = "num_experts"
    top_k: int | str = "top_k"
    scores: Scores = "softmax"
    span: Span = 1
    runs: int | None = 1

    def __post_init__(self) -> None:
        """Check what a choice is for and how often it is made.

        Raises:
            RoutingError: A number that cannot be.
        """
        check_use("RouterAdapter", self.span, self.runs)

    def fits(self, module: nn.Module) -> bool:
        """Tell whether it reads this module; FSDP puts its own class before the module's."""
        if isinstance(self.router, str):
            return type(module).__name__.endswith(self.router)
        return isinstance(module, self.router)


class FoundRouter(NamedTuple):
    """A router of a model: where it is, what it chooses from and how to read it.

    `router` names it in its layer, where the model has layers of several.
    """

    name: str
    layer: int
    module: nn.Module
    experts: int
    top_k: int
    scores: Scores
    read: Read
    router: str = ""
    span: Span = 1
    runs: int | None = 1

    @property
    def key(self) -> str:
        """Its name among all of the model, as `LayerAssignments.key`."""
        return router_key(self.layer, self.router)


def find_routers(model: nn.Module, adapters: Sequence[RouterAdapter] = ()) -> list[FoundRouter]:
    """Return the routers of a model in the order of its layers.

    Args:
        model: Any module; it may be wrapped by DDP, FSDP or torch.compile.
        adapters: For modules that are not found without; they go first.

    Raises:
        RoutingError: There is none, or one does not say how many experts it has.
    """
    found = []
    for name, module in model.named_modules():
        adapter = _adapter_of(module, adapters)
        if adapter is not None:
            found.append((name, module, adapter))
    if not found:
        raise RoutingError(
            f"{type(model).__name__}: no router found; looked for RouterTap and for classes named"
            " ...TopKRouter that have num_experts and top_k, as Hugging Face's Mixtral, Qwen-MoE,"
            f" OLMoE, DeepSeek-V3 and gpt-oss have; for others give attach(adapters=[{EXAMPLE}])"
        )
    layers = [_layer_of(name, position) for position, (name, _, _) in enumerate(found)]
    names = _router_names([name for name, _, _ in found], layers)
    routers = [
        _router(*entry, layer, router)
        for entry, layer, router in zip(found, layers, names, strict=True)
    ]
    return sorted(routers, key=lambda router: router.layer)


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


def has_routers(model: nn.Module) -> bool:
    """Tell whether a model has modules that are known as routers, readable or not."""
    return any(_adapter_of(module, ()) is not None for module in model.modules())


def _adapter_of(module: nn.Module, adapters: Sequence[RouterAdapter]) -> RouterAdapter | None:
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
    if not _HUGGING_FACE.search(type(module).__name__) or not hasattr(module, "num_experts"):
        return None
    # DeepSeek-V3 and its kin score by sigmoid and choose with a bias that balances the load.
    biased = hasattr(module, "e_score_correction_bias")
    scores: Scores = "sigmoid" if biased else "softmax"
    return RouterAdapter(type(module), read=_read_hugging_face, scores=scores)


def _read_tap(output: Any) -> tuple[Tensor | None, ...]:
    given: tuple[Tensor | None, ...] = output
    return given


def _read_hugging_face(output: Any) -> tuple[Tensor, Tensor | None]:
    return output[2], output[0]


def _layer_of(name: str, position: int) -> int:
    """Return the number that the model gives the layer: dense layers count too."""
    found = _LAYER.findall(name) or re.findall(r"(?:^|\.)(\d+)(?:\.|$)", name)
    return int(found[-1]) if found else position


def _router(
    name: str, module: nn.Module, adapter: RouterAdapter, layer: int, router: str
) -> FoundRouter:
    sizes = [_size(name, module, source) for source in (adapter.experts, adapter.top_k)]
    return FoundRouter(
        name=name,
        layer=layer,
        module=module,
        experts=sizes[0],
        top_k=sizes[1],
        scores=adapter.scores,
        read=adapter.read,
        router=router,
        span=adapter.span,
        runs=adapter.runs,
    )


def _size(name: str, module: nn.Module, source: int | str) -> int:
    size = getattr(module, source, None) if isinstance(source, str) else source
    if not isinstance(size, int) or size < 1:
        raise RoutingError(
            f"router {name!r}: {type(module).__name__} has no number {source!r}; give"
            " RouterAdapter(experts=, top_k=) numbers, or the attributes that have them"
        )
    return size
