"""The data that a probe keeps of one router: sums over the tokens of each sequence.

Shapes: T tokens, K experts of a token, E experts, D domains, U parts of sequences of one domain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixopt.routing.counters.adapters import FoundRouter, check_ids
from mixopt.routing.counters.layer_counter import probabilities
from mixopt.routing.counters.reading import UNUSED, RoutedTokens
from mixopt.routing.probe_result import SUMS_OF_A_SEQUENCE, LayerProbe
from mixopt.system import Array, BoolArray, IntArray


@dataclass(frozen=True, eq=False)
class Pass:
    """What a router chose in one pass, on the host.

    Attributes:
        experts: E.
        ids_TK: Experts; E where a choice was dropped, E + 1 for a place that is not used, E + 2 for
            an id that is too low, E + 3 for one that is too high.
        values: By the name of the sum in `LayerProbe`, what is summed, shape (T, E).
        weights_TK: Weights of the experts, or None.
        shared_T: Share of the shared experts in the output, or None.
    """

    experts: int
    ids_TK: IntArray
    values: dict[str, Array]
    weights_TK: Array | None
    shared_T: Array | None

    @classmethod
    def of(cls, router: FoundRouter, routed: RoutedTokens, *, probable: bool) -> Pass:
        """Return what was read of a router's output.

        Args:
            router: The router.
            routed: What was read.
            probable: Whether its probabilities are wanted.
        """
        experts = router.experts
        ids_TK = routed.ids.detach().cpu().numpy().astype(np.int64)
        values = {}
        if probable and routed.logits is not None:
            probability_TE = probabilities(routed.logits.float(), router.scores)
            values["probability_UE"] = _array(probability_TE)[:, :experts]
        if routed.outputs is not None:
            outputs_TEH = routed.outputs.float()
            values["zeros_UE"] = _array((outputs_TEH == 0).float().mean(-1))
        return cls(
            experts,
            _places(ids_TK, experts),
            values,
            None if routed.weights is None else _array(routed.weights),
            None if routed.shared is None else _array(routed.shared),
        )

    def check_ids(self, router: FoundRouter, real_T: BoolArray) -> None:
        """Check that the ids are of experts, but those of padding.

        Args:
            router: The router.
            real_T: Which tokens are not padding.

        Raises:
            RoutingError: Some are not.
        """
        ids, experts = self.ids_TK[real_T], self.experts
        last, low, high = (int((ids == experts + beyond).sum()) for beyond in (0, 2, 3))
        check_ids(router, low, last, high)

    def by_unit(self, place_T: IntArray, units: int, real_T: BoolArray) -> dict[str, Any]:
        """Return the sums of each unit by their names in `LayerProbe`.

        Args:
            place_T: Unit of each real token.
            units: U.
            real_T: Which tokens are not padding.
        """
        places = self.experts + 2
        cell = (place_T[:, None] * places + self.ids_TK[real_T]).ravel()
        counts = np.bincount(cell, minlength=units * places).reshape(units, places)
        sums: dict[str, Any] = {
            "counts_UE": counts[:, : self.experts],
            "dropped_U": counts[:, self.experts],
            "unused_U": counts[:, self.experts + 1],
        }
        if self.weights_TK is not None:
            weights = np.bincount(cell, self.weights_TK[real_T].ravel(), units * places)
            sums["weight_UE"] = weights.reshape(units, places)[:, : self.experts]
        for name, values_TE in self.values.items():
            sums[name] = np.zeros((units, self.experts))
            np.add.at(sums[name], place_T, values_TE[real_T])
        return sums


class Kept:
    """What is kept of one router, batch by batch.

    Attributes:
        ids_TK: Experts of the first tokens.
    """

    def __init__(self, domains: int) -> None:
        self.ids_TK: list[IntArray] = []
        self._sums: dict[str, list[NDArray[Any]]] = {}
        self._shared_D, self._tokens_D = np.zeros(domains), np.zeros(domains, np.int64)

    def add(self, passes: Sequence[dict[str, Any]]) -> None:
        """Add the sums of a batch, over all passes of the router."""
        for name in passes[0]:
            whole = np.sum([one[name] for one in passes], axis=0)
            self._sums.setdefault(name, []).append(whole)

    def add_shared(self, one: Pass, domain_T: IntArray, real_T: BoolArray) -> None:
        """Add what a pass says of shared experts.

        Args:
            one: The pass.
            domain_T: Domain of each real token.
            real_T: Which tokens are not padding.
        """
        if one.shared_T is not None:
            count = len(self._tokens_D)
            self._shared_D += np.bincount(domain_T, one.shared_T[real_T], count)
            self._tokens_D += np.bincount(domain_T, minlength=count)

    def layer(self, router: FoundRouter, shared_D: Array) -> LayerProbe:
        """Return all of it.

        Args:
            router: The router.
            shared_D: What is known of shared experts without the router's word.
        """
        if self._tokens_D.any():
            unknown_D = np.full(len(self._tokens_D), np.nan)
            seen_D = self._tokens_D > 0
            shared_D = np.divide(self._shared_D, self._tokens_D, out=unknown_D, where=seen_D)
        sums = {name: np.concatenate(parts) for name, parts in self._sums.items()}
        return LayerProbe(
            layer=router.layer,
            router=router.router,
            top_k=router.top_k,
            ids_TK=np.concatenate(self.ids_TK),
            shared_D=shared_D,
            counts_UE=sums.pop("counts_UE"),
            **{name: sums[name] for name in SUMS_OF_A_SEQUENCE if name in sums},
        )


def _places(ids_TK: IntArray, experts: int) -> IntArray:
    """Return ids with places of their own for those of no expert."""
    apart = [ids_TK == UNUSED, ids_TK < UNUSED, ids_TK > experts]
    return np.select(apart, [experts + 1, experts + 2, experts + 3], ids_TK)


def _array(tensor: Any) -> Array:
    return np.asarray(tensor.detach().double().cpu().numpy())
