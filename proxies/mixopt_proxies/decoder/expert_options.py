"""Options of a decoder's experts, which replace one feed-forward, and of their balancing."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal, TypedDict

from mixopt.errors import ConfigError
from mixopt_proxies.decoder.option_checks import check, of_kind

Balance = Literal["auxiliary", "bias", "none"]


@dataclass(frozen=True)
class Experts:
    """The experts of each block, by the names of the options.

    Attributes:
        experts: Routed experts, of which a token is given `top_k`.
        top_k: Experts of a token.
        expert_ff: Inner width of one expert's SwiGLU; a multiple of 8, as grouped products want.
        shared_experts: Experts that every token is given besides.
        balance: `auxiliary`: a loss that is 1 where the load is even; `bias`: what is added to the
            router's probabilities, for choosing only, so that the load becomes even; or `none`.
        balance_weight: Of the auxiliary loss.
        bias_rate: By how much a step moves the biases.
        z_loss: Weight of the mean square of the router's log-sum-exp.
    """

    experts: int
    top_k: int
    expert_ff: int
    shared_experts: int = 0
    balance: Balance = "auxiliary"
    balance_weight: float = 0.01
    bias_rate: float = 0.001
    z_loss: float = 0.001

    def __post_init__(self) -> None:
        """Refuse what cannot be built.

        Raises:
            ConfigError: A field that is out of range.
        """
        check("experts", self.experts, self.experts >= 2, "at least 2")
        fits = 1 <= self.top_k <= self.experts
        check("top_k", self.top_k, fits, f"from 1 to {self.experts}, the number of experts")
        whole = self.expert_ff >= 8 and self.expert_ff % 8 == 0
        check("expert_ff", self.expert_ff, whole, "a multiple of 8")
        check("shared_experts", self.shared_experts, self.shared_experts >= 0, "at least 0")
        known = self.balance in ("auxiliary", "bias", "none")
        check("balance", self.balance, known, "auxiliary, bias or none")
        for name in ("balance_weight", "bias_rate"):
            check(name, getattr(self, name), getattr(self, name) > 0, "above 0")
        check("z_loss", self.z_loss, self.z_loss >= 0, "at least 0")

    @property
    def shared_ff(self) -> int:
        """Inner width of all shared experts together."""
        return self.shared_experts * self.expert_ff

    def parameters(self, width: int) -> int:
        """Weights of a block's experts and router."""
        return self._weights(width, self.experts)

    def active_parameters(self, width: int) -> int:
        """Weights of them that a token meets."""
        return self._weights(width, self.top_k)

    def _weights(self, width: int, routed: int) -> int:
        return width * self.experts + 3 * width * self.expert_ff * (routed + self.shared_experts)


class ExpertOverrides(TypedDict, total=False):
    """Options that override fields of `Experts`, which says what they are; None does not."""

    experts: int | None
    top_k: int | None
    expert_ff: int | None
    shared_experts: int | None
    balance: Balance | None
    balance_weight: float | None
    bias_rate: float | None
    z_loss: float | None


_SMALLEST = Experts(experts=2, top_k=1, expert_ff=8)
KINDS = {field.name: type(getattr(_SMALLEST, field.name)) for field in fields(Experts)}
_ONLY_WITH = {"balance_weight": "auxiliary", "bias_rate": "bias"}


def make_experts(
    base: Experts | None, ff: int, width: int, overrides: dict[str, object]
) -> Experts | None:
    """Return the experts of a size, some fields overridden; None for a dense one.

    Args:
        base: Those of the named size, if it has any.
        ff: Inner width of the dense feed-forward: where there is no base, a token's experts have
            as many weights unless something else is asked.
        width: Residual stream.
        overrides: By the names of `KINDS`.

    Raises:
        ConfigError: A value that is out of range, or that means nothing beside the others.
    """
    given = {name: of_kind(name, value, KINDS[name]) for name, value in overrides.items()}
    if base is None and "experts" not in given:
        for name, value in given.items():
            raise ConfigError(
                f"proxy.options.{name}: {value!r} has no effect without experts: give experts, or "
                "size: moe-tiny"
            )
        return None
    made = replace(base, **given) if base else _as_many_products(ff, given)  # type: ignore[arg-type]
    for name, balance in _ONLY_WITH.items():
        if name in given and made.balance != balance:
            raise ConfigError(
                f"proxy.options.{name}: {given[name]!r} has no effect with balance: "
                f"{made.balance}; it is of balance: {balance}"
            )
    check("width", width, width % 8 == 0, "a multiple of 8 with experts")
    return made


def _as_many_products(ff: int, given: dict[str, object]) -> Experts:
    top_k = given.setdefault("top_k", 2)
    inner = ff // max(top_k, 1) if isinstance(top_k, int) else ff
    given.setdefault("expert_ff", max(8, inner // 8 * 8))
    return Experts(**given)  # type: ignore[arg-type]
