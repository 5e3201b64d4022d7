"""Counts of assignments: how often each domain's tokens went to each expert of each layer.

Everything that is said about a model's experts is derived from this, so a logger keeps it and
nothing else. Counts of disjoint batches add up; the counts of a window are a difference.

Shapes: D domains, E experts, H = 2 halves (sequences at even and at odd places of their batches).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixopt.errors import RoutingError, did_you_mean
from mixopt.system import Array, IntArray

Counts = IntArray


@dataclass(frozen=True, eq=False)
class LayerAssignments:
    """What one router chose.

    Attributes:
        layer: The model's own number of the layer.
        top_k: Experts of a token; where that varies, the most.
        counts_HDE: Assignments to each expert.
        dropped_D: Assignments that were dropped for want of capacity.
        unused_D: Places of tokens that were given fewer than `top_k` experts, by choice.
        weight_HDE: Sum over tokens of the weight with which each expert's output is taken; 0 where
            the router does not tell.
        probability_DE: Sum over tokens of the router's probability of each expert; 0 where it
            gave none.
        entropy_D: Sum over tokens of the entropy of those probabilities, nats.
        squared_logsumexp_D: Sum over tokens of the square of the logits' logsumexp.
        chosen_D: Sum over tokens of the probability of the experts that were chosen.
        router: Which router of the layer, where the model has layers of several.
        varies: Whether it is known, before anything is counted, that a token may be computed by
            fewer than `top_k` experts.
    """

    layer: int
    top_k: int
    counts_HDE: Counts
    dropped_D: Counts
    unused_D: Counts
    weight_HDE: Array
    probability_DE: Array
    entropy_D: Array
    squared_logsumexp_D: Array
    chosen_D: Array
    router: str = ""
    varies: bool = False

    @property
    def key(self) -> str:
        """The router's name among all of the model: "3", or "3/attention"."""
        return router_key(self.layer, self.router)

    @property
    def experts(self) -> int:
        """Number of routed experts."""
        return int(self.counts_HDE.shape[-1])

    @property
    def counts_DE(self) -> Counts:
        """Assignments of both halves."""
        counts_DE: Counts = self.counts_HDE.sum(0)
        return counts_DE

    @property
    def tokens_D(self) -> Counts:
        """Tokens of each domain: each has `top_k` places, assigned, dropped or unused."""
        places_D: Counts = self.counts_DE.sum(1) + self.dropped_D + self.unused_D
        return np.asarray(places_D // self.top_k)

    @property
    def experts_of_a_token(self) -> float:
        """Mean number of experts that a token is given or was to be given; NaN without tokens."""
        tokens = int(self.tokens_D.sum())
        given = int(self.counts_HDE.sum() + self.dropped_D.sum())
        return given / tokens if tokens else float("nan")

    @property
    def highest_load(self) -> float:
        """Load of an expert that all tokens choose over the even one.

        It is E / K, and E where a token may have that expert alone. Routers of any number of
        experts have K = E.
        """
        fewer = self.varies or self.top_k == self.experts
        fewer = fewer or bool(self.unused_D.any() or self.dropped_D.any())
        return float(self.experts) if fewer else self.experts / self.top_k

    @property
    def weighs(self) -> bool:
        """Whether the router tells the weights of its experts."""
        return bool(self.weight_HDE.any())

    def by_weight(self) -> LayerAssignments:
        """Return as counts how each domain's tokens fall on the experts by weight.

        A token is divided among its experts in proportion to their weights, so that one expert is
        given to each token on the whole. Numbers are rounded so that they add up to the tokens.
        Without weights, the counts themselves.
        """
        if not self.weighs:
            return self
        return replace(
            self,
            top_k=1,
            counts_HDE=_apportioned(self.weight_HDE, self.tokens_D),
            dropped_D=np.zeros_like(self.dropped_D),
            unused_D=np.where(self.weight_HDE.sum((0, 2)) > 0, 0, self.tokens_D),
        )

    @property
    def scored_D(self) -> Array:
        """Tokens for which the router gave probabilities."""
        scored_D: Array = self.probability_DE.sum(1)
        return scored_D

    def arrays(self) -> dict[str, Any]:
        """Return what adds up, by name."""
        return {name: getattr(self, name) for name in ARRAYS}


ARRAYS = (
    "counts_HDE",
    "dropped_D",
    "unused_D",
    "weight_HDE",
    "probability_DE",
    "entropy_D",
    "squared_logsumexp_D",
    "chosen_D",
)
# Of few routers; they are not written where they are 0, and files of before do not have them.
OPTIONAL = ("unused_D", "weight_HDE")


@dataclass(frozen=True, eq=False)
class Assignments:
    """What all routers of a model chose.

    Attributes:
        domains: Names of the domains, D of them.
        layers: One for each router, in the model's order.
    """

    domains: tuple[str, ...]
    layers: tuple[LayerAssignments, ...]

    def __add__(self, other: Assignments) -> Assignments:
        """Return what both counted.

        Raises:
            RoutingError: They are of other domains or experts.
        """
        return self._with(other, 1)

    def __sub__(self, other: Assignments) -> Assignments:
        """Return what was counted since `other`.

        Raises:
            RoutingError: They are of other domains or experts.
        """
        return self._with(other, -1)

    def by_weight(self) -> Assignments:
        """Return them by the weights of the experts instead of their number.

        It is what dense gates are to be judged by, which give every token to every expert. What is
        made of counts can be made of it: `diagnose(stats.total().by_weight())`. Routers that do
        not tell weights keep their counts; `LayerAssignments.by_weight` says how it is done.
        """
        return replace(self, layers=tuple(layer.by_weight() for layer in self.layers))

    @property
    def tokens_D(self) -> Counts:
        """Tokens of each domain."""
        return self.layers[0].tokens_D

    def layer(self, key: int | str) -> LayerAssignments:
        """Return what a router chose.

        Args:
            key: The model's own number of the layer; with the router's name where there are
                several ("3/attention").

        Raises:
            RoutingError: There is no such router.
        """
        for layer in self.layers:
            if layer.key == str(key):
                return layer
        known = ", ".join(layer.key for layer in self.layers)
        raise RoutingError(f"layer {key} has no router; layers with one: {known}")

    def of_router(self, key: int | str) -> Assignments:
        """Return those of one router alone, in memory of their own.

        Args:
            key: As in `layer`.

        Raises:
            RoutingError: There is no such router.
        """
        layer = self.layer(key)
        own = {name: array.copy() for name, array in layer.arrays().items()}
        return Assignments(self.domains, (replace(layer, **own),))

    def only(self, domains: Mapping[str, str] | Sequence[str]) -> Assignments:
        """Return the assignments of some domains.

        Args:
            domains: Their names, or new names by old ones, such as those of one member of a stack
                of models that were counted together: `{"7/web": "web", "7/code": "code"}`.

        Raises:
            RoutingError: A domain that is not there.
        """
        names = domains if isinstance(domains, Mapping) else {name: name for name in domains}
        for name in names:
            if name not in self.domains:
                raise RoutingError(f"unknown domain {name!r}{did_you_mean(name, self.domains)}")
        places = [self.domains.index(name) for name in names]
        layers = (
            replace(layer, **{n: _of_domains(n, a, places) for n, a in layer.arrays().items()})
            for layer in self.layers
        )
        return Assignments(tuple(names.values()), tuple(layers))

    @property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """Experts, and experts of a token, by router."""
        return {layer.key: (layer.experts, layer.top_k) for layer in self.layers}

    @property
    def highest_load(self) -> float:
        """The highest one of any router, as `LayerAssignments.highest_load`."""
        return max(layer.highest_load for layer in self.layers)

    def check_sizes(
        self, domains: tuple[str, ...], sizes: Mapping[str, tuple[int, int]], source: str
    ) -> None:
        """Check that other assignments are of these domains and experts.

        Args:
            domains: Of the other assignments.
            sizes: Of the other assignments.
            source: What they are called in a message.

        Raises:
            RoutingError: They are not.
        """
        if domains != self.domains:
            raise RoutingError(
                f"{source} counts the domains {', '.join(domains)}; here they are"
                f" {', '.join(self.domains)}"
            )
        ours = self.sizes
        for layer in dict.fromkeys([*ours, *sizes]):
            if ours.get(layer) != sizes.get(layer):
                raise RoutingError(
                    f"{source} is of other experts: layer {layer} has {_said(sizes.get(layer))};"
                    f" here it has {_said(ours.get(layer))}"
                )

    def _with(self, other: Assignments, sign: int) -> Assignments:
        self.check_sizes(other.domains, other.sizes, "the other table")
        others = {layer.key: layer.arrays() for layer in other.layers}
        layers = (
            replace(a, **{n: array + sign * others[a.key][n] for n, array in a.arrays().items()})
            for a in self.layers
        )
        return Assignments(self.domains, tuple(layers))


def router_key(layer: int, router: str) -> str:
    """Return a router's name among all of a model."""
    return f"{layer}/{router}" if router else str(layer)


def split_key(key: str) -> tuple[int, str]:
    """Return the layer and the router of `router_key`."""
    layer, _, router = key.partition("/")
    return int(layer), router


def no_layer(key: int | str, experts: int, top_k: int, domains: int) -> LayerAssignments:
    """Return a router of which nothing has been counted."""
    layer, router = split_key(str(key))
    return LayerAssignments(
        layer=layer,
        router=router,
        top_k=top_k,
        counts_HDE=np.zeros((2, domains, experts), np.int64),
        dropped_D=np.zeros(domains, np.int64),
        unused_D=np.zeros(domains, np.int64),
        weight_HDE=np.zeros((2, domains, experts)),
        probability_DE=np.zeros((domains, experts)),
        entropy_D=np.zeros(domains),
        squared_logsumexp_D=np.zeros(domains),
        chosen_D=np.zeros(domains),
    )


def nothing(domains: tuple[str, ...], sizes: Mapping[str, tuple[int, int]]) -> Assignments:
    """Return the assignments before anything was counted.

    Args:
        domains: Names of the domains.
        sizes: Experts, and experts of a token, by router.
    """
    layers = (no_layer(key, *size, len(domains)) for key, size in sizes.items())
    return Assignments(domains, tuple(layers))


def _of_domains(name: str, array: NDArray[Any], places: list[int]) -> Any:
    return array[:, places] if name.endswith("_HDE") else array[places]


def _apportioned(weight_HDE: Array, tokens_D: Counts) -> Counts:
    """Return whole numbers in proportion to weights that add up to each domain's tokens."""
    halves, domains, experts = weight_HDE.shape
    weight_DC = weight_HDE.swapaxes(0, 1).reshape(domains, -1)
    total_D1 = weight_DC.sum(1, keepdims=True)
    share_DC = np.divide(weight_DC, total_D1, out=np.zeros_like(weight_DC), where=total_D1 > 0)
    # Ends of the cells one after the other, rounded: the last one is the domain's tokens.
    ends_DC = np.rint(share_DC.cumsum(1) * tokens_D[:, None]).astype(np.int64)
    counts_DC = np.diff(ends_DC, axis=1, prepend=0)
    return np.asarray(counts_DC.reshape(domains, halves, experts).swapaxes(0, 1))


def _said(size: tuple[int, int] | None) -> str:
    return "no router" if size is None else f"{size[0]} experts, {size[1]} of a token"
