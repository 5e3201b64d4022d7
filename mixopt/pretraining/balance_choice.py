"""Find out what balances a model's experts: its family's loss or bias, a plug-in's own, or nothing.

By what a family is balanced is known to mixopt.routing.finding. Runs of `mixopt pretrain` are told
by `balance_of`, trials that continue a checkpoint one at a time by `balance_alone`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn

from mixopt.errors import ConfigError, RoutingError
from mixopt.pretraining.config import PretrainConfig
from mixopt.pretraining.expert_balance import ExpertBalance
from mixopt.pretraining.expert_config import ExpertsConfig
from mixopt.pretraining.expert_watch import ExpertWatch
from mixopt.pretraining.models import TEXT
from mixopt.pretraining.ranks import Ranks
from mixopt.routing import (
    ExpertBiases,
    RouterAdapter,
    RouterFamily,
    RouterStats,
    coefficient_of,
    family_of,
    has_experts,
    named_adapters,
)

# What most families call the coefficient of their auxiliary loss, those that have none as well.
_COEFFICIENT = "router_aux_loss_coef"
_WITHOUT = "; experts.balance: 'off' trains without balancing"


def _of_one_process(counted_N: Tensor) -> None:
    """Sum over one process."""


@dataclass(frozen=True)
class _BalanceAsked:
    """What is asked for of a model's balance, and where.

    Attributes:
        name: What messages call the model.
        options: Of the model, as a user gave them.
        experts: How its experts are balanced and read.
        warns: Whether this process warns of a model that nothing balances.
        stats: What counts its experts already.
        total: Sums over ranks in place.
        remedy: What messages add where routers cannot be counted.
    """

    name: str
    options: dict[str, Any]
    experts: ExpertsConfig
    warns: bool
    stats: RouterStats | None
    total: Callable[[Tensor], object]
    remedy: str

    @property
    def balance(self) -> str:
        """By what."""
        return self.experts.balance or "auto"

    @property
    def adapters(self) -> tuple[RouterAdapter, ...]:
        """How routers are read that are not known."""
        return named_adapters(self.experts.adapters or ())


def balance_of(
    model: nn.Module, config: PretrainConfig, ranks: Ranks, watch: ExpertWatch | None
) -> ExpertBalance:
    """Find out what balances a model's experts; a model of which nothing does is warned of.

    Args:
        model: After it was wrapped.
        config: Of the run.
        ranks: Rank 0 warns.
        watch: What counts its experts.

    Raises:
        ConfigError: It is asked for what the model lacks.
        RoutingError: Its routers cannot be counted, and that is needed.
    """
    return _balance(
        model,
        _BalanceAsked(
            name=config.model.name,
            options=config.model.options,
            experts=config.experts,
            warns=ranks.is_first,
            stats=None if watch is None else watch.stats,
            total=dist.all_reduce,
            remedy=_WITHOUT,
        ),
    )


def balance_alone(model: nn.Module, run: PretrainConfig | None = None) -> ExpertBalance:
    """Find out what balances the experts of a model that one process trains.

    Args:
        model: On its device; where biases are moved, its experts are counted from now on.
        run: The run that the model is from, whose `experts.balance` and `experts.bias_rate` hold;
            code that it names to read routers is not imported.

    Raises:
        RoutingError: Its routers cannot be counted, and that is needed.
    """
    given = ExpertsConfig() if run is None else run.experts
    kind = getattr(getattr(model, "config", None), "model_type", None)
    return _balance(
        model,
        _BalanceAsked(
            name=kind or type(model).__name__,
            options={},
            experts=ExpertsConfig(balance=given.balance, bias_rate=given.bias_rate),
            warns=True,
            stats=None,
            total=_of_one_process,
            remedy="",
        ),
    )


def _balance(model: nn.Module, asked: _BalanceAsked) -> ExpertBalance:
    family = family_of(model) if has_experts(model, asked.adapters) else None
    if family is None:
        return _of_unknown(model, asked)
    _check(asked, family)
    coefficient = _coefficient(model, asked, family.coefficient)
    if asked.balance == "auxiliary" and not (coefficient and _has_logits(model)):
        why = _why_nothing(model, asked, family)
        raise ConfigError(f"experts.balance: auxiliary: {why}; give another, or leave balance out")
    stats, biases = None, None
    if _by_bias(asked, family):
        stats = asked.stats or _counted(model, asked)
        biases = ExpertBiases.of(stats.routers)
    if asked.balance == "off" or not _has_logits(model):
        coefficient = 0.0
    if biases is None and coefficient == 0 and asked.balance != "off":
        _warn(asked, _why_nothing(model, asked, family))
    return ExpertBalance(
        model,
        coefficient=coefficient,
        biases=biases,
        rate=asked.experts.bias_rate,
        stats=stats,
        is_counted=asked.stats is not None,
        total=asked.total,
    )


def _coefficient(model: nn.Module, asked: _BalanceAsked, name: str | None) -> float:
    """Return what the auxiliary loss of a known family is multiplied by; 0 where it has none.

    Raises:
        ConfigError: It cannot be.
    """
    given = coefficient_of(model)
    if given is None or name is None:
        return 0.0
    return _checked(given, _option(model, asked, name))


def _checked(coefficient: object, name: str) -> float:
    """Return a coefficient that is finite and at least 0: below it would drive experts apart.

    Raises:
        ConfigError: It is another.
    """
    if not isinstance(coefficient, int | float) or not 0 <= coefficient < math.inf:
        raise ConfigError(
            f"{name}: {coefficient!r} is not possible; it must be 0 or more; 0 adds no auxiliary"
            " loss"
        )
    return float(coefficient)


def _by_bias(asked: _BalanceAsked, family: RouterFamily) -> bool:
    return asked.balance == "bias" or (asked.balance == "auto" and family.balance == "bias")


def _counted(model: nn.Module, asked: _BalanceAsked) -> RouterStats:
    """Count a model's experts for its balance alone.

    Raises:
        RoutingError: Its routers cannot be counted.
    """
    try:
        return RouterStats.attach(model, ["all"], adapters=asked.adapters)
    except RoutingError as error:
        raise RoutingError(f"{error}{asked.remedy}") from error


def _check(asked: _BalanceAsked, family: RouterFamily) -> None:
    """Refuse what a family lacks.

    Raises:
        ConfigError: It is asked for.
    """
    name, options, rate = asked.name, asked.options, asked.experts.bias_rate
    what = None
    if asked.balance == "bias" and not family.bias:
        what = f"experts.balance: bias: {name!r} has no bias that its routers choose by"
    elif asked.balance == "auxiliary" and family.coefficient is None:
        what = f"experts.balance: auxiliary: {name!r} returns no auxiliary loss"
    elif rate is not None and not _by_bias(asked, family):
        what = f"experts.bias_rate: {rate:g} has no effect: no bias of {name!r} is moved"
    elif family.coefficient is None and options.get(_COEFFICIENT):
        what = (
            f"model.options.{_COEFFICIENT}: {options[_COEFFICIENT]} has no effect: {name!r} "
            "returns no auxiliary loss"
        )
    if what is not None:
        raise ConfigError(f"{what}; {_what_else(family)}")


def _of_unknown(model: nn.Module, asked: _BalanceAsked) -> ExpertBalance:
    """Return the balance of a plug-in, which is its own, or of a family that is not known."""
    own = hasattr(model, "own_loss") or hasattr(model, "step_taken")
    if asked.balance != "auto" or asked.experts.bias_rate is not None:
        given = "bias_rate" if asked.balance == "auto" else f"balance: {asked.balance}"
        what = (
            "balances its experts itself: see its options, model.options"
            if own
            else "has neither a bias nor an auxiliary loss that is known; leave it out"
        )
        raise ConfigError(f"experts.{given}: {asked.name!r} {what}")
    stated = getattr(getattr(model, "config", None), _COEFFICIENT, None)
    coefficient = 0.0 if stated is None else _checked(stated, _option(model, asked, _COEFFICIENT))
    if has_experts(model, asked.adapters) and not own and not coefficient:
        _warn(asked, "its family is not known, and it has no own_loss")
    return ExpertBalance(model, coefficient=coefficient, total=asked.total)


def _what_else(family: RouterFamily) -> str:
    if family.bias:
        return "it has a bias: experts.balance: bias"
    if family.coefficient is not None:
        return f"it returns a loss: model.options.{family.coefficient}"
    return "it has neither: leave it out"


def _why_nothing(model: nn.Module, asked: _BalanceAsked, family: RouterFamily) -> str:
    if family.coefficient is None:
        return "its family has no bias and returns no auxiliary loss"
    if not _has_logits(model):
        where = _option(model, asked, "output_router_logits")
        return f"there is no auxiliary loss with {where}: false"
    return f"{_option(model, asked, family.coefficient)} is 0"


def _option(model: nn.Module, asked: _BalanceAsked, field: str) -> str:
    """Return the field of the YAML that is one of the model's configuration, in another or not."""
    kind = getattr(getattr(model, "config", None), "model_type", asked.name)
    return f"model.options.{f'{TEXT}.' if kind == f'{asked.name}_text' else ''}{field}"


def _has_logits(model: nn.Module) -> bool:
    """Whether routers' logits are kept, of which the auxiliary loss is computed."""
    return getattr(getattr(model, "config", None), "output_router_logits", True) is not False


def _warn(asked: _BalanceAsked, why: str) -> None:
    if asked.warns:
        logging.getLogger("mixopt.pretraining").warning(
            "%s: nothing balances its experts: %s; a few of them may end up serving all tokens; "
            "check with `mixopt experts`",
            asked.name,
            why,
        )
