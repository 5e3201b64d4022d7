"""AdamW, what balances experts, and one step on a global batch, the same on every rank.

What a pass draws at random (dropout) follows from the seed and from where its sequences are in the
stream, so nothing of it has to be saved. One small sum over the ranks tells all of them whether the
step is skipped, any was asked to stop, or a checkpoint failed: the one time that the host waits.

Shapes: B sequences, T tokens, W = T + 1, P passes, V vocabulary, N experts of all routers.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn, optim
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict
from torch.distributed.tensor import DTensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from mixopt.errors import ConfigError, RoutingError
from mixopt.pretraining.config import ExpertsConfig, PretrainConfig, TrainingConfig
from mixopt.pretraining.models import TEXT, logits_of
from mixopt.pretraining.parallel import ParallelModel, Ranks
from mixopt.routing import (
    ExpertBiases,
    RouterFamily,
    RouterStats,
    coefficient_of,
    family_of,
    has_experts,
    named_adapters,
)

_EMBEDDING = "embedding"
_CHUNK_LOGITS = 1 << 24
# By how much a step moves a bias at most, where nothing else is asked for: as fast as routers move
# while they warm up, and in proportion to how uneven the load is, so that it is still where the
# load is even.
RATE = 2e-2
# What most families call the coefficient of their auxiliary loss, those that have none as well.
_COEFFICIENT = "router_aux_loss_coef"

Counting = Callable[[Tensor, int, Sequence[int]], AbstractContextManager[None]]


@dataclass(frozen=True)
class StepOutcome:
    """What a step came to."""

    learning_rate: float
    gradient_norm: float
    skipped: bool
    stopping: bool
    failed: bool
    parts: list[tuple[Tensor, Tensor]]
    added_P: Tensor | None


class TrainingStep:
    """Takes the steps of a run on one rank."""

    def __init__(
        self,
        model: ParallelModel,
        optimizer: optim.Optimizer,
        config: PretrainConfig,
        ranks: Ranks,
        balance: ExpertBalance,
        counting: Counting | None,
    ) -> None:
        """Join model, optimiser, what balances experts and what counts them."""
        self._model, self._optimizer, self._ranks = model, optimizer, ranks
        self._balance, self._counting = balance, counting
        self._training, self._seed = config.training, config.seed
        self._weights = [w for w in model.plain.parameters() if w.requires_grad]

    def take(self, step: int, batch: dict[str, Any], *, stop: bool, failed: bool) -> StepOutcome:
        """Take a step."""
        self._balance.step_begins()
        parts, added_P = self._accumulate(batch)
        norm = self._gradient_norm()
        finite, stopping, failed = self._agree(parts, norm, stop=stop, failed=failed)
        rate = self._training.rates.rate(step)
        if finite:
            self._move(norm, rate)
        self._balance.step_taken(moved=finite)
        self._optimizer.zero_grad()
        return StepOutcome(rate, float(norm), not finite, stopping, failed, parts, added_P)

    def _accumulate(
        self, batch: dict[str, Any]
    ) -> tuple[list[tuple[Tensor, Tensor]], Tensor | None]:
        """Add up the gradients of the passes; return losses and domains, and what was added."""
        passes, parts, added = list(self._passes(batch)), [], list[Tensor]()
        for k, (positions, tokens_BW, domain_B) in enumerate(passes):
            torch.manual_seed(_seed_at(self._seed, positions[0]))
            with self._model.backward(last=k == len(passes) - 1):
                with self._counted(positions, tokens_BW[:, :-1], domain_B):
                    output = self._model.train(tokens_BW[:, :-1])
                losses_BT = token_losses(output, tokens_BW[:, 1:])
                loss = losses_BT.mean()
                more = self._balance.added_loss(output)
                if more is not None:
                    added.append(more.detach())
                    loss = loss + more
                (loss / len(passes)).backward()  # type: ignore[no-untyped-call]
            parts.append((losses_BT.detach(), domain_B))
        return parts, torch.stack(added) if added else None

    def _counted(
        self, positions: Sequence[int], tokens_BT: Tensor, domain_B: Tensor
    ) -> AbstractContextManager[None]:
        if self._counting is None:
            return self._balance.counting(tokens_BT)
        return self._counting(domain_B, tokens_BT.shape[1], positions)

    def _passes(self, batch: dict[str, Any]) -> Iterator[tuple[Sequence[int], Tensor, Tensor]]:
        """Yield the positions in the stream, tokens and domains of each pass."""
        tokens_BW = batch["input_ids"].to(self._ranks.device, torch.long, non_blocking=True)
        domain_B = batch["domain"].to(self._ranks.device, non_blocking=True)
        size = self._training.micro_batch or len(tokens_BW)
        positions = range(batch["position"], batch["position"] + len(tokens_BW))
        for start in range(0, len(tokens_BW), size):
            part = slice(start, start + size)
            yield positions[part], tokens_BW[part], domain_B[part]

    def _gradient_norm(self) -> Tensor:
        gradients = [w.grad for w in self._weights if w.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    def _agree(
        self, parts: list[tuple[Tensor, Tensor]], norm: Tensor, *, stop: bool, failed: bool
    ) -> tuple[bool, bool, bool]:
        """Return on every rank whether all is finite, any is asked to stop, and any failed."""
        loss = torch.stack([losses.sum() for losses, _ in parts]).sum()
        broken = ~(torch.isfinite(loss) & torch.isfinite(norm))
        flags = torch.tensor([float(stop), float(failed)], device=broken.device)
        counts = torch.cat([broken.float().view(1), flags])
        dist.all_reduce(counts)
        broken_ranks, stopping_ranks, failed_ranks = counts.tolist()
        return not broken_ranks, bool(stopping_ranks), bool(failed_ranks)

    def _move(self, norm: Tensor, rate: float) -> None:
        if self._training.clip > 0:
            nn.utils.clip_grads_with_norm_(self._weights, self._training.clip, norm)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()


def _seed_at(seed: int, position: int) -> int:
    """Return what a pass at a position of the stream draws from."""
    digest = hashlib.blake2b(f"{seed}/{position}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def token_losses(output: Any, targets_BT: Tensor) -> Tensor:
    """Return the cross-entropy of each token in nats, float32, shape (B, T).

    Logits are made float32 some rows at a time, and again in the backward pass, so that they never
    exist in float32 as a whole.
    """
    logits_BTV = logits_of(output)
    rows = max(1, _CHUNK_LOGITS // logits_BTV[0].numel())
    parts = zip(torch.split(logits_BTV, rows), torch.split(targets_BT, rows), strict=True)
    if not logits_BTV.requires_grad or rows >= len(targets_BT):
        return torch.cat([_cross_entropy(*part) for part in parts])
    return torch.cat([checkpoint(_cross_entropy, *part, use_reentrant=False) for part in parts])


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    flat = functional.cross_entropy(
        logits.flatten(0, 1).float(), targets.flatten(), reduction="none"
    )
    return flat.view(targets.shape)


def make_optimizer(model: nn.Module, config: TrainingConfig) -> optim.AdamW:
    """Return AdamW with its state; matrices decay, vectors such as norms do not."""
    groups = decay_groups(model, config.weight_decay, embeddings=config.decay_embeddings)
    adam = optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)
    get_optimizer_state_dict(model, adam)  # makes the state, with a step that moves nothing
    for state in adam.state.values():
        state["step"].zero_()
    return adam


def decay_groups(
    model: nn.Module, weight_decay: float, *, embeddings: bool
) -> list[dict[str, Any]]:
    """Return a model's weights as groups: matrices that decay, and what does not."""
    spared = set() if embeddings else {id(weight) for weight in _embeddings(model)}
    if not embeddings and not spared:
        raise ConfigError(
            "training.decay_embeddings: false, and the model has neither a torch.nn.Embedding nor"
            f" a parameter called {_EMBEDDING!r}; leave it out"
        )
    decayed, others = list[Tensor](), list[Tensor]()
    for weight in model.parameters():
        if weight.requires_grad:
            (decayed if weight.ndim > 1 and id(weight) not in spared else others).append(weight)
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _embeddings(model: nn.Module) -> Iterator[Tensor]:
    """Yield the tables of embeddings; a head that is tied to one is the same weight."""
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            yield module.weight
    for name, weight in model.named_parameters():
        if name.rpartition(".")[2] == _EMBEDDING:
            yield weight


class ExpertBalance:
    """What balances the experts of a run, on one rank; every rank calls the same methods."""

    def __init__(
        self,
        model: nn.Module,
        *,
        coefficient: float = 0.0,
        rate: float | None = None,
        stats: RouterStats | None = None,
        is_counted: bool = False,
        total: Callable[[Tensor], object] = dist.all_reduce,
    ) -> None:
        """Say how: by a loss, by biases where `stats` is given, or by what a plug-in has."""
        self._model, self._coefficient, self._rate = model, coefficient, rate
        self._stats, self._is_counted, self._total = stats, is_counted, total
        self._biases = None if stats is None else ExpertBiases.of(stats.routers)
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
        if self._stats is not None:
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
        rate = RATE if self._rate is None else self._rate
        self._biases.shift(loads_N, rate, in_proportion=self._rate is None)

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
    choice = _BalanceChoice(model, config.experts, config.model.name, config.model.options)
    return choice.balance(stats, dist.all_reduce, warns=ranks.is_first)


def balance_alone(model: nn.Module, run: PretrainConfig | None = None) -> ExpertBalance:
    """Find out what balances the experts of a model that one process trains."""
    given = ExpertsConfig() if run is None else run.experts
    experts = ExpertsConfig(balance=given.balance, bias_rate=given.bias_rate)
    kind = getattr(getattr(model, "config", None), "model_type", None)
    choice = _BalanceChoice(model, experts, kind or type(model).__name__, {})
    return choice.balance(None, lambda counted_N: None, warns=True)


class _BalanceChoice:
    """What a model is balanced by: its family's loss or bias, a plug-in's own, or nothing."""

    def __init__(
        self, model: nn.Module, experts: ExpertsConfig, name: str, options: Mapping[str, Any]
    ) -> None:
        self._model, self._experts, self._name, self._options = model, experts, name, options
        self._adapters = named_adapters(experts.adapters)
        self._config = getattr(model, "config", None)
        self._has_experts = has_experts(model, self._adapters)
        self._is_own = hasattr(model, "own_loss") or hasattr(model, "step_taken")

    def balance(
        self, stats: RouterStats | None, total: Callable[[Tensor], object], *, warns: bool
    ) -> ExpertBalance:
        """Return what balances it; one that nothing balances is warned of."""
        family, wanted = (
            family_of(self._model) if self._has_experts else None,
            self._experts.balance,
        )
        by_bias = family is not None and (
            wanted == "bias" or (wanted == "auto" and family.balance == "bias")
        )
        fault = self._fault(family, by_bias=by_bias)
        if fault is not None:
            raise ConfigError(fault)
        coefficient = self._coefficient(family)
        why = self._why_nothing(family, coefficient)
        if wanted == "auxiliary" and why is not None:
            raise ConfigError(
                f"experts.balance: auxiliary: {why}; give another, or leave balance out"
            )
        if warns and why is not None and not by_bias and wanted != "off":
            logging.getLogger("mixopt.pretraining").warning(
                "%s: nothing balances its experts: %s; a few of them may end up serving all tokens;"
                " check with `mixopt experts`",
                self._name,
                why,
            )
        is_off = family is not None and (wanted == "off" or why is not None)
        return ExpertBalance(
            self._model,
            coefficient=0.0 if is_off else coefficient,
            rate=self._experts.bias_rate,
            stats=(stats or self._counted()) if by_bias else None,
            is_counted=stats is not None,
            total=total,
        )

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

    def _fault(self, family: RouterFamily | None, *, by_bias: bool) -> str | None:
        """Return what is asked for that a family, or a plug-in, lacks."""
        wanted, name, rate = self._experts.balance, self._name, self._experts.bias_rate
        if family is None:
            if wanted == "auto" and rate is None:
                return None
            given = "bias_rate" if wanted == "auto" else f"balance: {wanted}"
            own = "balances its experts itself: see its options, model.options"
            none = "has neither a bias nor an auxiliary loss that is known; leave it out"
            return f"experts.{given}: {name!r} {own if self._is_own else none}"
        fault, stated = None, self._options.get(_COEFFICIENT)
        if wanted == "bias" and not family.bias:
            fault = f"experts.balance: bias: {name!r} has no bias that its routers choose by"
        elif wanted == "auxiliary" and family.coefficient is None:
            fault = f"experts.balance: auxiliary: {name!r} returns no auxiliary loss"
        elif rate is not None and not by_bias:
            fault = f"experts.bias_rate: {rate:g} has no effect: no bias of {name!r} is moved"
        elif family.coefficient is None and stated:
            where = f"model.options.{_COEFFICIENT}"
            fault = f"{where}: {stated} has no effect: {name!r} returns no auxiliary loss"
        hint = "it has neither: leave it out"
        if family.bias:
            hint = "it has a bias: experts.balance: bias"
        elif family.coefficient is not None:
            hint = f"it returns a loss: model.options.{family.coefficient}"
        return None if fault is None else f"{fault}; {hint}"

    def _why_nothing(self, family: RouterFamily | None, coefficient: float) -> str | None:
        """Return why no loss balances the model; None where one does, or it has no experts."""
        if family is None:
            unknown = self._has_experts and not self._is_own and not coefficient
            return "its family is not known, and it has no own_loss" if unknown else None
        if family.coefficient is None:
            return "its family has no bias and returns no auxiliary loss"
        if getattr(self._config, "output_router_logits", True) is False:
            where = self._option("output_router_logits")
            return f"there is no auxiliary loss with {where}: false"
        return None if coefficient else f"{self._option(family.coefficient)} is 0"

    def _option(self, field: str) -> str:
        """Return the field of the YAML that is one of the model's configuration, or in another."""
        kind = getattr(self._config, "model_type", self._name)
        return f"model.options.{f'{TEXT}.' if kind == f'{self._name}_text' else ''}{field}"
