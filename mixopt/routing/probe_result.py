"""The result of a probe: stored, compared with an earlier checkpoint, and tested against chance.

Chance is what shuffling the sequences' domains gives: the tokens of a sequence stay together, as
they resemble each other, and what is measured beyond that is due to the domains.

Shapes: U sequences of one domain, T tokens that were kept, K experts of a token, E experts,
D domains, L layers, P permutations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mixopt.errors import RoutingError
from mixopt.routing import manifold, measures
from mixopt.routing.assignments import Assignments, nothing, router_key
from mixopt.system import Array, IntArray

if TYPE_CHECKING:
    import polars as pl

Counts = IntArray

# Fewer leave too much to chance; OLMoE's analysis has about 200,000 tokens of each domain.
ENOUGH_SEQUENCES, ENOUGH_TOKENS = 1024, 50_000


@dataclass(frozen=True, eq=False)
class LayerProbe:
    """What one router chose.

    Attributes:
        layer: The model's own number of the layer.
        top_k: Experts of a token.
        counts_UE: Assignments of each sequence.
        ids_TK: Experts of the first tokens, of the router's last pass; one that equals E was
            dropped, E + 1 is a place that is not used.
        shared_D: Mean share of the shared experts in the size of the layer's output, by domain;
            NaN where it is not known.
        router: Which router of the layer, where the model has layers of several.
        dropped_U: Choices of each sequence that were dropped; None where all places that are not
            counted were.
        unused_U: Places of each sequence that are not used; None where there are none.
        weight_UE: Sum over each sequence's tokens of the experts' weights; None where the router
            does not tell, as below.
        probability_UE: Of the router's probabilities.
        zeros_UE: Of the share of zeros in what an expert gives.
    """

    layer: int
    top_k: int
    counts_UE: Counts
    ids_TK: Counts
    shared_D: Array
    router: str = ""
    dropped_U: Counts | None = None
    unused_U: Counts | None = None
    weight_UE: Array | None = None
    probability_UE: Array | None = None
    zeros_UE: Array | None = None

    @property
    def key(self) -> str:
        """The router's name among all of the model, as `LayerAssignments.key`."""
        return router_key(self.layer, self.router)

    @property
    def experts(self) -> int:
        """Number of routed experts."""
        return int(self.counts_UE.shape[1])

    @property
    def routing_UE(self) -> Array:
        """How each sequence falls on the experts, adding up to 1; NaN where it does not."""
        return measures.expert_profiles(self.routed_UE)

    @property
    def routed_UE(self) -> Array:
        """What of each sequence falls on the experts, by the most that is known.

        By the weights of the experts, else by the router's probabilities, else by counts.
        """
        known = (self.weight_UE, self.probability_UE, self.counts_UE)
        return np.asarray(next(sums for sums in known if sums is not None), float)


# What is kept by sequence beside the counts, where it is known.
SUMS_OF_A_SEQUENCE = (
    "dropped_U",
    "unused_U",
    "weight_UE",
    "probability_UE",
    "zeros_UE",
)


@dataclass(frozen=True, eq=False)
class ProbeResult:
    """What all routers chose for fixed batches.

    Attributes:
        domains: Names of the domains.
        domain_U: Domain of each sequence; one of two domains counts as two sequences.
        tokens_U: Tokens of each sequence.
        domain_T: Domain of the tokens whose experts were kept.
        layers: One for each router, in the model's order.
    """

    domains: tuple[str, ...]
    domain_U: Counts
    tokens_U: Counts
    domain_T: Counts
    layers: tuple[LayerProbe, ...]

    @property
    def enough(self) -> bool:
        """Whether there are enough sequences, and tokens of each domain, to compare domains by."""
        tokens_D = np.bincount(self.domain_U, weights=self.tokens_U, minlength=len(self.domains))
        return len(self.domain_U) >= ENOUGH_SEQUENCES and bool(tokens_D.min() >= ENOUGH_TOKENS)

    def assignments(self) -> Assignments:
        """Return the counts as those of training are, with all that is derived from them."""
        count = len(self.domains)
        sizes = {layer.key: (layer.experts, layer.top_k) for layer in self.layers}
        empty = nothing(self.domains, sizes)
        # Alternate sequences of each domain, whatever order they came in.
        half_U = np.zeros(len(self.domain_U), np.int64)
        for domain in range(count):
            of_domain = self.domain_U == domain
            half_U[of_domain] = np.arange(of_domain.sum()) % 2
        tokens_D = np.bincount(self.domain_U, self.tokens_U, count).astype(np.int64)
        layers = []
        for layer, uncounted in zip(self.layers, empty.layers, strict=True):
            counts_HDE = np.zeros((2, count, layer.experts), np.int64)
            np.add.at(counts_HDE, (half_U, self.domain_U), layer.counts_UE)
            counts: dict[str, Any] = {"counts_HDE": counts_HDE}
            counts["dropped_D"] = tokens_D * layer.top_k - counts_HDE.sum((0, 2))
            for name in ("dropped", "unused"):
                of_sequence_U = getattr(layer, f"{name}_U")
                if of_sequence_U is not None:
                    whole_D = np.bincount(self.domain_U, of_sequence_U, count)
                    counts[f"{name}_D"] = whole_D.astype(np.int64)
            if layer.weight_UE is not None:
                counts["weight_HDE"] = np.zeros(counts_HDE.shape)
                np.add.at(counts["weight_HDE"], (half_U, self.domain_U), layer.weight_UE)
            layers.append(replace(uncounted, **counts))
        return Assignments(self.domains, tuple(layers))

    def specialisation(self, *, permutations: int = 200, seed: int = 0) -> pl.DataFrame:
        """Return the mutual information of expert and domain of each layer, against chance.

        Args:
            permutations: How often the sequences' domains are shuffled, >= 2.
            seed: Of the shuffles.

        Returns:
            `layer` and `router`; `information` in nats; `chance` and `chance_deviation`, mean and
            standard
            deviation over shuffles; `corrected`, information less chance; `specialisation`, that
            over the entropy of the domains; `p_value`, share of the shuffles that reach it.
        """
        import polars as pl

        rng = np.random.default_rng(seed)
        found_L = self._information(self.domain_U)
        null_PL = np.array(
            [self._information(rng.permutation(self.domain_U)) for _ in range(permutations)]
        )
        shares_D = measures.load_shares(
            np.bincount(self.domain_U, self.tokens_U, len(self.domains))
        )
        corrected_L = found_L - null_PL.mean(0)
        most = measures.domain_entropy(shares_D)
        return pl.DataFrame(
            {
                "layer": [layer.layer for layer in self.layers],
                "router": [layer.router for layer in self.layers],
                "information": found_L,
                "chance": null_PL.mean(0),
                "chance_deviation": null_PL.std(0),
                "corrected": corrected_L,
                "specialisation": corrected_L / most if most else np.full(len(found_L), np.nan),
                "p_value": (1 + (null_PL >= found_L).sum(0)) / (1 + permutations),
            }
        ).with_columns(pl.col("specialisation").fill_nan(None))

    def coactivation(self, layer: int | str, domain: str | None = None) -> Array:
        """Return how often an expert is chosen together with another, shape (E, E).

        Args:
            layer: As `Assignments.layer` takes it.
            domain: Only tokens of this one.

        Returns:
            In row i and column j: of the kept tokens that chose i, the share that chose j as well;
            (K - 1) / (E - 1) where they have nothing to do with each other, NaN where none chose i.

        Raises:
            RoutingError: There is no such layer or domain.
        """
        probe = next((one for one in self.layers if one.key == str(layer)), None)
        if probe is None or (domain is not None and domain not in self.domains):
            raise RoutingError(f"no layer {layer} with domain {domain!r} in this probe")
        ids_TK = probe.ids_TK
        if domain is not None:
            ids_TK = ids_TK[self.domain_T == self.domains.index(domain)]
        chosen_TE = np.zeros((len(ids_TK), probe.experts + 2))
        np.put_along_axis(chosen_TE, ids_TK, 1, axis=1)
        both_EE = (chosen_TE.T @ chosen_TE)[:-2, :-2]
        with np.errstate(invalid="ignore"):
            return np.asarray(both_EE / np.diag(both_EE)[:, None])

    def saturation(self, earlier: ProbeResult) -> pl.DataFrame:
        """Return how many experts of a token are those of an earlier checkpoint.

        Args:
            earlier: The probe of the earlier checkpoint, on the same batches.

        Returns:
            `layer`, `router`, `domain`, `tokens` and `saturation`: mean share of a token's experts
            that are the same, 1 where nothing changed and about K / E where all did.

        Raises:
            RoutingError: The other probe is of other experts, domains or tokens.
        """
        import polars as pl

        self.assignments().check_sizes(
            earlier.domains, earlier.assignments().sizes, "the earlier probe"
        )
        if not np.array_equal(self.domain_T, earlier.domain_T):
            raise RoutingError("the earlier probe is of other tokens; probe the same batches")
        rows = []
        for now, before in zip(self.layers, earlier.layers, strict=True):
            same_TKK = now.ids_TK[:, :, None] == before.ids_TK[:, None, :]
            same_TKK &= (now.ids_TK < now.experts)[:, :, None]
            same_T = same_TKK.sum((1, 2)) / np.maximum((now.ids_TK <= now.experts).sum(1), 1)
            for d, name in enumerate(self.domains):
                of_domain = same_T[self.domain_T == d]
                mean = float(of_domain.mean()) if len(of_domain) else None
                about = {
                    "layer": now.layer,
                    "router": now.router,
                    "domain": name,
                    "tokens": len(of_domain),
                }
                rows.append(about | {"saturation": mean})
        return pl.DataFrame(rows, schema_overrides={"saturation": pl.Float64})

    def manifold_alignment(
        self,
        embeddings: Any,
        *,
        neighbours: int | None = None,
        permutations: int = 200,
        seed: int = 0,
    ) -> pl.DataFrame:
        """Return whether sequences of near meaning are routed alike, against chance.

        The routing of a sequence is `LayerProbe.routing_UE`: the weights or probabilities of the
        experts where the probe has them, else counts. `mixopt.routing.manifold` says what near is.

        Args:
            embeddings: One row for each sequence of the probe, shape (U, X), or for each domain or
                task, shape (D, X), by any text encoder. Sequences of a domain are then together.
            neighbours: How many nearest ones are compared; a tenth of them, and one at least, as
                a rule.
            permutations: How often the embeddings are permuted, >= 2.
            seed: Of the permutations.

        Returns:
            `layer` and `router`, null for all routers together; `items` that are compared and
            their `neighbours`; `alignment`, the mean share of the nearest in one space that are
            among the nearest in the other; `chance` and `chance_deviation`, over permutations;
            `corrected`, alignment less chance; `p_value`, share of permutations that reach it.

        Raises:
            RoutingError: Embeddings of another number of rows, or too few for so many neighbours.
        """
        import polars as pl

        sizes = {
            "one for each sequence": len(self.domain_U),
            "one for each domain": len(self.domains),
        }
        unit_NX = manifold.checked_embeddings(embeddings, sizes)
        of_routers = [self._routing(layer, len(unit_NX)) for layer in self.layers]
        routed_N = np.all([np.isfinite(part).all(1) for part in of_routers], axis=0)
        items = int(routed_N.sum())
        near = max(1, items // 10) if neighbours is None else neighbours
        manifold.check_neighbours(near, items, permutations)
        # Hellinger distances of all routers together are those of their shares side by side.
        parts = [*of_routers, np.concatenate(of_routers, axis=1) / len(of_routers)]
        places = [*((layer.layer, layer.router) for layer in self.layers), (None, None)]
        rows = []
        for (layer, router), routing_NE in zip(places, parts, strict=True):
            found = manifold.alignment(
                routing_NE[routed_N], unit_NX[routed_N], near, permutations, seed
            )
            rows.append(
                {"layer": layer, "router": router, "items": items, "neighbours": near}
                | {"corrected": found.alignment - found.chance, **asdict(found)}
            )
        order = ("alignment", "chance", "chance_deviation", "corrected", "p_value")
        kinds = {"layer": pl.Int64, "router": pl.String}
        return pl.DataFrame(rows, schema_overrides=kinds).select(*list(rows[0])[:4], *order)

    def _routing(self, layer: LayerProbe, items: int) -> Array:
        """Return how each sequence, or each domain where there are so many, is routed."""
        if items == len(self.domain_U):
            return layer.routing_UE
        member_DU = np.asarray(self.domain_U == np.arange(len(self.domains))[:, None], float)
        return measures.expert_profiles(member_DU @ layer.routed_UE)

    def _information(self, domain_U: Counts) -> Array:
        """Return the mutual information of each layer, were these the sequences' domains."""
        member_DU = np.asarray(domain_U == np.arange(len(self.domains))[:, None], float)
        every = np.concatenate([layer.counts_UE for layer in self.layers], axis=1).astype(float)
        ends = np.cumsum([layer.experts for layer in self.layers])
        return np.array(
            [
                _information(counts_DE)
                for counts_DE in np.split(member_DU @ every, ends[:-1], axis=1)
            ]
        )


def join_probes(parts: Sequence[ProbeResult]) -> ProbeResult:
    """Return what all parts saw, in their order.

    Args:
        parts: Of the same model, at least one.

    Raises:
        RoutingError: They are of other domains or experts.
    """
    first = parts[0].assignments()
    for part in parts[1:]:
        first.check_sizes(part.domains, part.assignments().sizes, "a part of the probe")
    tokens_PD = np.array(
        [np.bincount(p.domain_U, p.tokens_U, len(first.domains)) for p in parts], float
    )
    return ProbeResult(
        first.domains,
        np.concatenate([part.domain_U for part in parts]),
        np.concatenate([part.tokens_U for part in parts]),
        np.concatenate([part.domain_T for part in parts]),
        tuple(
            _joined_layer([part.layers[place] for part in parts], tokens_PD)
            for place in range(len(parts[0].layers))
        ),
    )


def _information(counts_DE: Array) -> float:
    shares_D = counts_DE.sum(1) / counts_DE.sum()
    return float(measures.mutual_information(measures.expert_profiles(counts_DE), shares_D))


def _joined_layer(parts: Sequence[LayerProbe], tokens_PD: Array) -> LayerProbe:
    return LayerProbe(
        layer=parts[0].layer,
        router=parts[0].router,
        top_k=parts[0].top_k,
        counts_UE=np.concatenate([part.counts_UE for part in parts]),
        ids_TK=np.concatenate([part.ids_TK for part in parts]),
        shared_D=_mean_over_tokens(np.array([part.shared_D for part in parts]), tokens_PD),
        **{name: _joined([getattr(part, name) for part in parts]) for name in SUMS_OF_A_SEQUENCE},
    )


def _joined(parts: Sequence[NDArray[Any] | None]) -> Any:
    """Return sums of sequences one after the other; None where they are not known of all."""
    known = [part for part in parts if part is not None]
    return np.concatenate(known) if len(known) == len(parts) else None


def _mean_over_tokens(shared_PD: Array, tokens_PD: Array) -> Array:
    """Return the mean over tokens, NaN where it is not known of any."""
    weight_PD = np.where(np.isfinite(shared_PD), tokens_PD, 0)
    total_D = weight_PD.sum(0)
    sum_D = (weight_PD * np.nan_to_num(shared_PD)).sum(0)
    return np.asarray(np.divide(sum_D, total_D, out=np.full(len(sum_D), np.nan), where=total_D > 0))
