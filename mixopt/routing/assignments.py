"""What was counted: how often each domain's tokens were given to each expert of each layer.

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
        top_k: Experts of a token.
        counts_HDE: Assignments to each expert.
        dropped_D: Assignments that were dropped for want of capacity.
        probability_DE: Sum over tokens of the router's probability of each expert; 0 where it
            gave none.
        entropy_D: Sum over tokens of the entropy of those probabilities, nats.
        squared_logsumexp_D: Sum over tokens of the square of the logits' logsumexp.
        chosen_D: Sum over tokens of the probability of the experts that were chosen.
        router: Which router of the layer, where the model has layers of several.
    """

    layer: int
    top_k: int
    counts_HDE: Counts
    dropped_D: Counts
    probability_DE: Array
    entropy_D: Array
    squared_logsumexp_D: Array
    chosen_D: Array
    router: str = ""

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
        """Tokens of each domain: each has `top_k` assignments, kept or dropped."""
        tokens_D: Counts = (self.counts_DE.sum(1) + self.dropped_D) // self.top_k
        return tokens_D

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
    "probability_DE",
    "entropy_D",
    "squared_logsumexp_D",
    "chosen_D",
)


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
        raise RoutingError(f"layer {key} has no router; those that have: {known}")

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
        layers = (
            replace(a, **{n: array + sign * b.arrays()[n] for n, array in a.arrays().items()})
            for a, b in zip(self.layers, other.layers, strict=True)
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
    return array[:, places] if name == "counts_HDE" else array[places]


def _said(size: tuple[int, int] | None) -> str:
    return "no router" if size is None else f"{size[0]} experts, {size[1]} of a token"
