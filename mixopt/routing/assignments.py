"""Assignment counts: tokens of each domain by expert and layer.

All reports about a model's experts are derived from these counts, so a record contains nothing
else. Counts of disjoint batches can be added.

Shapes: D domains, E experts, H = 2 halves, even and odd, of the sequences.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mixopt.errors import RoutingError
from mixopt.system import IntArray


@dataclass(frozen=True, eq=False)
class LayerAssignments:
    """Assignments of one router.

    Attributes:
        layer: The model's own number of the layer.
        top_k: Experts of a token.
        counts_HDE: Assignments to each expert.
        dropped_HD: Assignments that no expert computes: dropped for capacity, to an identity
            expert, or of a token with fewer experts.
        router: Name of the router in its layer, if layers have several.
    """

    layer: int
    top_k: int
    counts_HDE: IntArray
    dropped_HD: IntArray
    router: str = ""

    def __add__(self, other: LayerAssignments) -> LayerAssignments:
        """Return the sum of two counts of the same router."""
        return replace(
            self,
            counts_HDE=self.counts_HDE + other.counts_HDE,
            dropped_HD=self.dropped_HD + other.dropped_HD,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the counts as JSON values, with each array as one line of text."""
        return {
            "layer": self.layer,
            "router": self.router,
            "top_k": self.top_k,
            "experts": self.experts,
            "counts": _text(self.counts_HDE),
            "dropped": _text(self.dropped_HD),
        }

    @property
    def key(self) -> str:
        """The router's name in the model: "3", or "3/attention.router"."""
        return f"{self.layer}/{self.router}".removesuffix("/")

    @property
    def experts(self) -> int:
        """Number of routed experts."""
        return int(self.counts_HDE.shape[-1])

    @property
    def counts_DE(self) -> IntArray:
        """Assignments of both halves."""
        return np.asarray(self.counts_HDE.sum(0))

    @property
    def dropped_D(self) -> IntArray:
        """Assignments of both halves that no expert computes."""
        return np.asarray(self.dropped_HD.sum(0))

    @property
    def tokens_D(self) -> IntArray:
        """Tokens of each domain, with `top_k` assignments each."""
        return np.asarray((self.counts_DE.sum(1) + self.dropped_D) // self.top_k)


@dataclass(frozen=True, eq=False)
class Assignments:
    """Assignments of all routers of a model.

    Attributes:
        domains: Names of the domains, D of them.
        layers: One for each router, in the model's order.
    """

    domains: tuple[str, ...]
    layers: tuple[LayerAssignments, ...]

    def __add__(self, other: Assignments) -> Assignments:
        """Return the sum of two counts."""
        self.check_sizes(other.domains, other.sizes, "the other table")
        others = {layer.key: layer for layer in other.layers}
        layers = tuple(layer + others[layer.key] for layer in self.layers)
        return Assignments(self.domains, layers)

    @property
    def tokens_D(self) -> IntArray:
        """Tokens of each domain."""
        return self.layers[0].tokens_D

    @property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """Experts, and experts of a token, by router."""
        return {layer.key: (layer.experts, layer.top_k) for layer in self.layers}

    def check_sizes(
        self, domains: tuple[str, ...], sizes: dict[str, tuple[int, int]], source: str
    ) -> None:
        """Check that other assignments have the same domains and experts."""
        if domains != self.domains:
            raise RoutingError(
                f"{source} counts the domains {', '.join(domains)}; here they are"
                f" {', '.join(self.domains)}"
            )
        for key in self.sizes | sizes:
            ours = self.sizes.get(key)
            theirs = sizes.get(key)
            if ours != theirs:
                raise RoutingError(
                    f"{source} is of other experts: layer {key} has {_size_text(theirs)};"
                    f" here it has {_size_text(ours)}"
                )

    def to_json(self) -> dict[str, Any]:
        """Return the counts as JSON values, with each array as one line of text."""
        layers = [layer.to_json() for layer in self.layers]
        return {"domains": list(self.domains), "layers": layers}

    @classmethod
    def from_dict(cls, content: object, source: str) -> Assignments:
        """Parse the output of `to_json`."""
        fields: Any = content
        try:
            domains = tuple(str(name) for name in fields["domains"])
            layers = tuple(_layer_of(layer, len(domains)) for layer in fields["layers"])
            if not layers:
                raise ValueError("no layers")
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else error
            raise RoutingError(f"{source}: not counts of experts: {reason}") from error
        return cls(domains, layers)


@dataclass(frozen=True, eq=False)
class ExpertCounts:
    """Assignments of one trial, by training domain.

    Attributes:
        train: Assignments in the second half of the steps, after experts have specialised; domains
            have the proportions of the mixture.
        held_out: Assignments at the end, of equally many held-out tokens of each domain.
    """

    train: Assignments
    held_out: Assignments


def _layer_of(content: Mapping[str, Any], domains: int) -> LayerAssignments:
    experts = int(content["experts"])
    top_k = int(content["top_k"])
    layer = int(content["layer"])
    counts_HDE = _array(content["counts"]).reshape(2, domains, experts)
    dropped_HD = _array(content["dropped"]).reshape(2, domains)
    if top_k < 1 or experts < 1 or counts_HDE.min() < 0 or dropped_HD.min() < 0:
        raise ValueError(f"layer {layer}: numbers below 0 or no experts")
    return LayerAssignments(layer, top_k, counts_HDE, dropped_HD, str(content["router"]))


def _text(array: IntArray) -> str:
    return " ".join(map(str, array.ravel().tolist()))


def _array(text: str) -> IntArray:
    return np.array(text.split(), dtype=np.int64)


def _size_text(size: tuple[int, int] | None) -> str:
    return "no router" if size is None else f"{size[0]} experts, {size[1]} of a token"
