"""Balance the load of a model's experts during pretraining, and the loss that this adds.

By what a family is balanced is known to mixopt.routing.families. A loss that the model returns is
added to the cross-entropy, times the coefficient that the family has in its configuration, pass by
pass on each rank. A bias is moved after each step by the load of that step over all ranks; a step
that was skipped moves none.

Plug-ins may do either themselves (mixopt.pretraining.models): `own_loss` and `step_taken`.

Shapes: B sequences, T tokens, N experts of all routers, one router after the other.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mixopt.errors import ConfigError, RoutingError
from mixopt.pretraining.config import PretrainConfig
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

# By how much a step moves a bias at most, where nothing else is asked for: as fast as routers move
# while they warm up, and in proportion to how uneven the load is, so that it is still where the
# load is even (experiments/checks/expert_balance.py).
RATE = 2e-2
# What most families call the coefficient of their auxiliary loss, those that have none as well.
_COEFFICIENT = "router_aux_loss_coef"


class ExpertBalance:
    """What balances the experts of a run, on one rank; every rank calls the same methods."""

    def __init__(
        self,
        model: nn.Module,
        *,
        coefficient: float = 0.0,
        biases: ExpertBiases | None = None,
        rate: float | None = None,
        stats: RouterStats | None = None,
        is_counted: bool = False,
    ) -> None:
        """Say how; `balance_of` finds it out.

        Args:
            model: After it was wrapped.
            coefficient: What an auxiliary loss is multiplied by.
            biases: Those to be moved.
            rate: By how much a step moves each; if omitted, in proportion, by `RATE` at most.
            stats: What counts the model's experts, where biases are moved.
            is_counted: Whether someone else opens its batches.
        """
        self._model, self._coefficient = model, coefficient
        self._biases, self._rate = biases, rate
        self._stats, self._is_counted = stats, is_counted
        self._before: Tensor | None = None

    def added_loss(self, output: Any) -> Tensor | None:
        """Return what a pass adds to the cross-entropy, with its gradients; None for nothing.

        Args:
            output: Of the forward pass.
        """
        whole = getattr(self._model, "own_loss", None)
        if isinstance(whole, Tensor):
            return whole
        auxiliary = getattr(output, "aux_loss", None)
        if not isinstance(auxiliary, Tensor) or self._coefficient == 0:
            return None
        return self._coefficient * auxiliary

    @contextmanager
    def counting(self, tokens_BT: Tensor) -> Iterator[None]:
        """Count the forward pass in the block, where nothing else counts it and biases need it."""
        if self._stats is None or self._is_counted:
            yield
            return
        with self._stats.domains(torch.zeros_like(tokens_BT)):
            yield

    def step_begins(self) -> None:
        """Take note of what was counted before a step."""
        if self._biases is not None and self._stats is not None:
            self._before = self._stats.loads()

    def step_taken(self, *, moved: bool) -> None:
        """Move the biases after a step.

        Args:
            moved: Whether it moved the weights: biases stay where a step was skipped.
        """
        own = getattr(self._model, "step_taken", None)
        if own is not None:
            own(dist.all_reduce, moved=moved)
        if self._biases is None or self._stats is None or self._before is None or not moved:
            return
        loads_N = self._stats.loads() - self._before
        dist.all_reduce(loads_N)
        if self._rate is None:
            self._biases.shift(loads_N, RATE, in_proportion=True)
        else:
            self._biases.shift(loads_N, self._rate)

    def biases(self) -> Tensor | None:
        """Return the biases that are moved, shape (N,); None where none are."""
        return None if self._biases is None else self._biases.values()


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
    asked, adapters = config.experts.balance or "auto", _adapters(config)
    family = family_of(model) if has_experts(model, adapters) else None
    if family is None:
        return _of_unknown(model, config, ranks, asked)
    _check(config, family, asked)
    coefficient = _coefficient(model, config.model.name, family)
    if asked == "auxiliary" and not (coefficient and _has_logits(model)):
        why = _why_nothing(model, config.model.name, family)
        raise ConfigError(f"experts.balance: auxiliary: {why}; give another, or leave balance out")
    stats, biases = None, None
    if asked == "bias" or (asked == "auto" and family.balance == "bias"):
        stats = watch.stats if watch is not None else _counted(model, adapters)
        biases = ExpertBiases.of(stats.routers)
    if asked == "off" or not _has_logits(model):
        coefficient = 0.0
    if biases is None and coefficient == 0 and asked != "off":
        _warn(ranks, config.model.name, _why_nothing(model, config.model.name, family))
    return ExpertBalance(
        model,
        coefficient=coefficient,
        biases=biases,
        rate=config.experts.bias_rate,
        stats=stats,
        is_counted=watch is not None,
    )


def _coefficient(model: nn.Module, name: str, family: RouterFamily) -> float:
    """Return what the auxiliary loss of a known family is multiplied by; 0 where it has none.

    Raises:
        ConfigError: It cannot be.
    """
    given = coefficient_of(model)
    field = _option(model, name, family.coefficient or _COEFFICIENT)
    return 0.0 if given is None else _checked(given, field)


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


def _adapters(config: PretrainConfig) -> tuple[RouterAdapter, ...]:
    return named_adapters(config.experts.adapters or ())


def _counted(model: nn.Module, adapters: tuple[RouterAdapter, ...]) -> RouterStats:
    """Count a model's experts for its balance alone.

    Raises:
        RoutingError: Its routers cannot be counted.
    """
    try:
        return RouterStats.attach(model, ["all"], adapters=adapters, probabilities=False)
    except RoutingError as error:
        why = f"{error}; experts.balance: 'off' trains without balancing"
        raise RoutingError(why) from error


def _check(config: PretrainConfig, family: RouterFamily, asked: str) -> None:
    """Refuse what a family lacks.

    Raises:
        ConfigError: It is asked for.
    """
    name, options, rate = config.model.name, config.model.options, config.experts.bias_rate
    by_bias = asked == "bias" or (asked == "auto" and family.balance == "bias")
    what = None
    if asked == "bias" and family.bias is None:
        what = f"experts.balance: bias: {name!r} has no bias that its routers choose by"
    elif asked == "auxiliary" and family.coefficient is None:
        what = f"experts.balance: auxiliary: {name!r} returns no auxiliary loss"
    elif rate is not None and not by_bias:
        what = f"experts.bias_rate: {rate:g} has no effect: no bias of {name!r} is moved"
    elif family.coefficient is None and options.get(_COEFFICIENT):
        what = (
            f"model.options.{_COEFFICIENT}: {options[_COEFFICIENT]} has no effect: {name!r} "
            "returns no auxiliary loss"
        )
    if what is not None:
        raise ConfigError(f"{what}; {_what_else(family)}")


def _of_unknown(
    model: nn.Module, config: PretrainConfig, ranks: Ranks, asked: str
) -> ExpertBalance:
    """Return the balance of a plug-in, which is its own, or of a family that is not known."""
    own = hasattr(model, "own_loss") or hasattr(model, "step_taken")
    if asked != "auto" or config.experts.bias_rate is not None:
        given = "bias_rate" if asked == "auto" else f"balance: {asked}"
        what = (
            "balances its experts itself: see its options, model.options"
            if own
            else "has neither a bias nor an auxiliary loss that is known; leave it out"
        )
        raise ConfigError(f"experts.{given}: {config.model.name!r} {what}")
    given = getattr(getattr(model, "config", None), _COEFFICIENT, None)
    coefficient = (
        0.0 if given is None else _checked(given, _option(model, config.model.name, _COEFFICIENT))
    )
    if has_experts(model, _adapters(config)) and not own and not coefficient:
        _warn(ranks, config.model.name, "its family is not known, and it has no own_loss")
    return ExpertBalance(model, coefficient=coefficient)


def _what_else(family: RouterFamily) -> str:
    if family.bias is not None:
        return "it has a bias: experts.balance: bias"
    if family.coefficient is not None:
        return f"it returns a loss: model.options.{family.coefficient}"
    return "it has neither: leave it out"


def _why_nothing(model: nn.Module, name: str, family: RouterFamily) -> str:
    if family.coefficient is None:
        return "its family has no bias and returns no auxiliary loss"
    if not _has_logits(model):
        where = _option(model, name, "output_router_logits")
        return f"there is no auxiliary loss with {where}: false"
    return f"{_option(model, name, family.coefficient)} is 0"


def _option(model: nn.Module, name: str, field: str) -> str:
    """Return the field of the YAML that is one of the model's configuration, within another or not.

    Args:
        model: Its configuration says what it is.
        name: `model.name`.
        field: Of that configuration.
    """
    kind = getattr(getattr(model, "config", None), "model_type", name)
    return f"model.options.{f'{TEXT}.' if kind == f'{name}_text' else ''}{field}"


def _has_logits(model: nn.Module) -> bool:
    """Whether routers' logits are kept, of which the auxiliary loss is computed."""
    return getattr(getattr(model, "config", None), "output_router_logits", True) is not False


def _warn(ranks: Ranks, name: str, why: str) -> None:
    if ranks.is_first:
        logging.getLogger("mixopt.pretraining").warning(
            "%s: nothing balances its experts: %s; a few of them may end up serving all tokens; "
            "check with `mixopt experts`",
            name,
            why,
        )
