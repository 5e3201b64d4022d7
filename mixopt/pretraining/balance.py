"""Balance the load of a model's experts in training, by what its family is balanced by.

A loss that the model returns is added to the cross-entropy, times the coefficient that the family
has in its configuration, pass by pass on each rank. A bias is moved after each step by the load of
that step over all ranks; a step that was skipped moves none. Plug-ins may do either themselves
(mixopt.pretraining.models): `own_loss` and `step_taken`.

Shapes: B sequences, T tokens, N experts of all routers, one router after the other.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mixopt.errors import ConfigError, RoutingError
from mixopt.pretraining.config import PretrainConfig
from mixopt.pretraining.models import TEXT
from mixopt.pretraining.ranks import Ranks
from mixopt.pretraining.training_config import ExpertsConfig
from mixopt.routing import (
    ExpertBiases,
    RouterFamily,
    RouterStats,
    coefficient_of,
    family_of,
    has_experts,
    named_adapters,
)

# By how much a step moves a bias at most, where nothing else is asked for: as fast as routers move
# while they warm up, and in proportion to how uneven the load is, so that it is still where the
# load is even.
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
        total: Callable[[Tensor], object] = dist.all_reduce,
    ) -> None:
        """Say how."""
        self._model, self._coefficient = model, coefficient
        self._biases, self._rate = biases, rate
        self._stats, self._is_counted, self._total = stats, is_counted, total
        self._before: Tensor | None = None

    def added_loss(self, output: Any) -> Tensor | None:
        """Return what a pass adds to the cross-entropy, with its gradients; None for nothing."""
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
        """Move the biases after a step, unless it was skipped and moved no weights."""
        own = getattr(self._model, "step_taken", None)
        if own is not None:
            own(self._total, moved=moved)
        if self._biases is None or self._stats is None or self._before is None or not moved:
            return
        loads_N = self._stats.loads() - self._before
        self._total(loads_N)
        if self._rate is None:
            self._biases.shift(loads_N, RATE, in_proportion=True)
        else:
            self._biases.shift(loads_N, self._rate)

    def release(self) -> None:
        """Count the model's experts no longer, where nothing else counts them."""
        if self._stats is not None and not self._is_counted:
            self._stats.detach()

    def biases(self) -> Tensor | None:
        """Return the biases that are moved, shape (N,); None where none are."""
        return None if self._biases is None else self._biases.values()


def balance_of(
    model: nn.Module, config: PretrainConfig, ranks: Ranks, stats: RouterStats | None
) -> ExpertBalance:
    """Find out what balances a run's experts, which `stats` counts already where it is given."""
    chosen = _Choice(model, config.experts, config.model.name, config.model.options)
    return chosen.balance(stats, dist.all_reduce, warns=ranks.is_first)


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
    experts = ExpertsConfig(balance=given.balance, bias_rate=given.bias_rate)
    kind = getattr(getattr(model, "config", None), "model_type", None)
    chosen = _Choice(model, experts, kind or type(model).__name__, {})
    return chosen.balance(None, lambda counted_N: None, warns=True)


class _Choice:
    """What a model is balanced by: its family's loss or bias, a plug-in's own, or nothing."""

    def __init__(
        self, model: nn.Module, experts: ExpertsConfig, name: str, options: Mapping[str, Any]
    ) -> None:
        self._model, self._experts, self._name, self._options = model, experts, name, options
        self._wanted = experts.balance or "auto"
        self._adapters = named_adapters(experts.adapters or ())
        self._config = getattr(model, "config", None)
        self._has_experts = has_experts(model, self._adapters)

    def balance(
        self, stats: RouterStats | None, total: Callable[[Tensor], object], *, warns: bool
    ) -> ExpertBalance:
        """Return what balances it; one that nothing balances is warned of."""
        family = family_of(self._model) if self._has_experts else None
        by_bias = family is not None and (
            self._wanted == "bias" or (self._wanted == "auto" and family.balance == "bias")
        )
        self._check(family, by_bias=by_bias)
        coefficient = self._coefficient(family)
        why = self._why_nothing(family, coefficient)
        if self._wanted == "auxiliary" and why is not None:
            raise ConfigError(
                f"experts.balance: auxiliary: {why}; give another, or leave balance out"
            )
        if family is not None and (self._wanted == "off" or why is not None):
            coefficient = 0.0
        counted, biases = stats, None
        if by_bias:
            counted = stats or self._counted()
            biases = ExpertBiases.of(counted.routers)
        if warns and why is not None and not by_bias and self._wanted != "off":
            logging.getLogger("mixopt.pretraining").warning(
                "%s: nothing balances its experts: %s; a few of them may end up serving all tokens;"
                " check with `mixopt experts`",
                self._name,
                why,
            )
        return ExpertBalance(
            self._model,
            coefficient=coefficient,
            biases=biases,
            rate=self._experts.bias_rate,
            stats=counted if by_bias else None,
            is_counted=stats is not None,
            total=total,
        )

    @property
    def _is_own(self) -> bool:
        return hasattr(self._model, "own_loss") or hasattr(self._model, "step_taken")

    @property
    def _has_logits(self) -> bool:
        """Whether routers' logits are kept, of which the auxiliary loss is computed."""
        return getattr(self._config, "output_router_logits", True) is not False

    def _counted(self) -> RouterStats:
        try:
            return RouterStats.attach(self._model, ["all"], adapters=self._adapters)
        except RoutingError as error:
            hint = "experts.balance: 'off' trains without balancing"
            raise RoutingError(f"{error}; {hint}") from error

    def _coefficient(self, family: RouterFamily | None) -> float:
        """Return what an auxiliary loss is multiplied by: below 0 would drive experts apart."""
        if family is None:
            given, name = getattr(self._config, _COEFFICIENT, None), _COEFFICIENT
        else:
            given, name = coefficient_of(self._model), family.coefficient or ""
        if given is None or not name:
            return 0.0
        if not isinstance(given, int | float) or not 0 <= given < math.inf:
            raise ConfigError(
                f"{self._option(name)}: {given!r} is not possible; it must be 0 or more; 0 adds no"
                " auxiliary loss"
            )
        return float(given)

    def _check(self, family: RouterFamily | None, *, by_bias: bool) -> None:
        """Refuse what a family, or a plug-in, lacks."""
        wanted, name, rate = self._wanted, self._name, self._experts.bias_rate
        stated = self._options.get(_COEFFICIENT)
        fault = None
        if family is None:
            if wanted != "auto" or rate is not None:
                given = "bias_rate" if wanted == "auto" else f"balance: {wanted}"
                what = (
                    "balances its experts itself: see its options, model.options"
                    if self._is_own
                    else "has neither a bias nor an auxiliary loss that is known; leave it out"
                )
                raise ConfigError(f"experts.{given}: {name!r} {what}")
            return
        if wanted == "bias" and not family.bias:
            fault = f"experts.balance: bias: {name!r} has no bias that its routers choose by"
        elif wanted == "auxiliary" and family.coefficient is None:
            fault = f"experts.balance: auxiliary: {name!r} returns no auxiliary loss"
        elif rate is not None and not by_bias:
            fault = f"experts.bias_rate: {rate:g} has no effect: no bias of {name!r} is moved"
        elif family.coefficient is None and stated:
            fault = (
                f"model.options.{_COEFFICIENT}: {stated} has no effect: {name!r} returns no"
                " auxiliary loss"
            )
        if fault is None:
            return
        hint = "it has neither: leave it out"
        if family.bias:
            hint = "it has a bias: experts.balance: bias"
        elif family.coefficient is not None:
            hint = f"it returns a loss: model.options.{family.coefficient}"
        raise ConfigError(f"{fault}; {hint}")

    def _why_nothing(self, family: RouterFamily | None, coefficient: float) -> str | None:
        """Return why no loss balances the model; None where one does, or it has no experts."""
        if family is None:
            unknown = self._has_experts and not self._is_own and not coefficient
            return "its family is not known, and it has no own_loss" if unknown else None
        if family.coefficient is None:
            return "its family has no bias and returns no auxiliary loss"
        if not self._has_logits:
            where = self._option("output_router_logits")
            return f"there is no auxiliary loss with {where}: false"
        return None if coefficient else f"{self._option(family.coefficient)} is 0"

    def _option(self, field: str) -> str:
        """Return the field of the YAML that is one of the model's configuration, or in another."""
        kind = getattr(self._config, "model_type", self._name)
        return f"model.options.{f'{TEXT}.' if kind == f'{self._name}_text' else ''}{field}"
