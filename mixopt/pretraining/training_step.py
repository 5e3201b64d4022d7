"""AdamW, an average of the weights, and one step on a global batch, the same on every rank.

Each rank takes its part of the batch in passes of `micro_batch` sequences and adds up gradients.
What a pass draws at random (dropout) follows from the seed and from where its sequences are in the
stream, so nothing of it has to be saved. One small sum over the ranks then tells all of them
whether the step is to be skipped, any was asked to stop, or a checkpoint failed; waiting for it is
the one time in a step that the host waits for the device.

Shapes: B sequences, T tokens, W = T + 1, P passes, V vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn, optim
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from mixopt.errors import ConfigError
from mixopt.pretraining.balance import ExpertBalance
from mixopt.pretraining.checkpoints import AVERAGE
from mixopt.pretraining.config import PretrainConfig
from mixopt.pretraining.expert_watch import ExpertWatch
from mixopt.pretraining.metrics import StepOutcome
from mixopt.pretraining.models import logits_of
from mixopt.pretraining.parallel import ParallelModel
from mixopt.pretraining.ranks import Ranks
from mixopt.pretraining.training_config import TrainingConfig

ADAM_EPS = 1e-8  # where eps is not given
_EMBEDDING = "embedding"
_CHUNK_LOGITS = 1 << 24


class _Accumulated(NamedTuple):
    """What the passes of a step came to: losses and domains, and what was added to them."""

    parts: list[tuple[Tensor, Tensor]]
    added_P: Tensor | None
    z_loss_P: Tensor | None


class TrainingStep:
    """Takes the steps of a run on one rank."""

    def __init__(
        self,
        model: ParallelModel,
        optimizer: optim.Optimizer,
        config: PretrainConfig,
        ranks: Ranks,
        experts: ExpertWatch | None,
        balance: ExpertBalance,
        averaged: AveragedWeights | None = None,
    ) -> None:
        """Join model, optimiser, what counts and balances experts, and averaged weights."""
        self._model, self._optimizer, self._ranks = model, optimizer, ranks
        self._experts, self._balance, self._averaged = experts, balance, averaged
        self._training, self._seed = config.training, config.seed
        self._weights = [w for w in model.plain.parameters() if w.requires_grad]

    def take(self, step: int, batch: dict[str, Any], *, stop: bool, failed: bool) -> StepOutcome:
        """Take a step."""
        self._balance.step_begins()
        parts, added_P, z_loss_P = self._accumulate(batch)
        norm = self._gradient_norm()
        finite, stopping, failed = self._agree(parts, norm, stop=stop, failed=failed)
        rate = self._training.rates.rate(step)
        if finite:
            self._move(norm, rate)
        self._balance.step_taken(moved=finite)
        self._optimizer.zero_grad()
        return StepOutcome(
            rate, float(norm), not finite, stopping, failed, parts, added_P, z_loss_P
        )

    def _accumulate(self, batch: dict[str, Any]) -> _Accumulated:
        """Add up the gradients of the passes."""
        passes = list(self._passes(batch))
        parts, added, z_losses = [], list[Tensor](), list[Tensor]()
        for k, (positions, tokens_BW, domain_B) in enumerate(passes):
            torch.manual_seed(_seed_at(self._seed, positions[0]))
            with self._model.backward(last=k == len(passes) - 1):
                output = self._forward(positions, tokens_BW[:, :-1], domain_B)
                losses_BT, z_loss = self._losses(output, tokens_BW[:, 1:])
                loss = losses_BT.mean()
                for kept, more in (
                    (added, self._balance.added_loss(output)),
                    (z_losses, z_loss),
                ):
                    if more is not None:
                        kept.append(more.detach())
                        loss = loss + more
                (loss / len(passes)).backward()  # type: ignore[no-untyped-call]
            parts.append((losses_BT.detach(), domain_B))
        return _Accumulated(parts, _stacked(added), _stacked(z_losses))

    def _losses(self, output: Any, targets_BT: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the cross-entropy of each token, and the z-loss where it is asked for."""
        coefficient = self._training.z_loss
        if coefficient is None:
            return token_losses(output, targets_BT), None
        losses_BT, totals_BT = losses_and_totals(output, targets_BT)
        return losses_BT, coefficient * totals_BT.square().mean()

    def _forward(self, positions: Sequence[int], tokens_BT: Tensor, domain_B: Tensor) -> Any:
        if self._experts is None:
            with self._balance.counting(tokens_BT):
                return self._model.train(tokens_BT)
        with self._experts.counting(domain_B, tokens_BT.shape[1], positions):
            return self._model.train(tokens_BT)

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
        said = torch.cat([broken.float().view(1), flags])
        dist.all_reduce(said)
        broken_ranks, stopping_ranks, failed_ranks = said.tolist()
        return not broken_ranks, bool(stopping_ranks), bool(failed_ranks)

    def _move(self, norm: Tensor, rate: float) -> None:
        if self._training.clip > 0:
            nn.utils.clip_grads_with_norm_(self._weights, self._training.clip, norm)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        if self._averaged is not None:
            self._averaged.update()


def _stacked(numbers: list[Tensor]) -> Tensor | None:
    return torch.stack(numbers) if numbers else None


def _seed_at(seed: int, position: int) -> int:
    """Return what a pass at a position of the stream draws from."""
    digest = hashlib.blake2b(f"{seed}/{position}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def token_losses(output: Any, targets_BT: Tensor) -> Tensor:
    """Return the cross-entropy of each token in nats, float32, shape (B, T).

    Logits are made float32 some rows at a time, and again in the backward pass, so that they never
    exist in float32 as a whole.
    """
    return _by_rows(_cross_entropy, output, targets_BT)


def losses_and_totals(output: Any, targets_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Return each token's cross-entropy as `token_losses` does, and the logarithm of its total."""
    both_BT2 = _by_rows(_with_total, output, targets_BT)
    return both_BT2[..., 0], both_BT2[..., 1]


def _by_rows(
    compute: Callable[[Tensor, Tensor], Tensor], output: Any, targets_BT: Tensor
) -> Tensor:
    logits_BTV = logits_of(output)
    rows = max(1, _CHUNK_LOGITS // logits_BTV[0].numel())
    parts = zip(torch.split(logits_BTV, rows), torch.split(targets_BT, rows), strict=True)
    if not logits_BTV.requires_grad or rows >= len(targets_BT):
        return torch.cat([compute(*part) for part in parts])
    return torch.cat([checkpoint(compute, *part, use_reentrant=False) for part in parts])


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    flat = functional.cross_entropy(
        logits.flatten(0, 1).float(), targets.flatten(), reduction="none"
    )
    return flat.view(targets.shape)


def _with_total(logits: Tensor, targets: Tensor) -> Tensor:
    losses = _cross_entropy(logits, targets)
    chosen = logits.gather(-1, targets[..., None]).squeeze(-1).float()
    return torch.stack([losses, losses + chosen], -1)


def make_optimizer(model: nn.Module, config: TrainingConfig) -> optim.AdamW:
    """Return AdamW with its state; matrices decay, vectors such as norms do not."""
    embeddings = config.decay_embeddings is not False
    groups = decay_groups(model, config.weight_decay, embeddings=embeddings)
    eps = ADAM_EPS if config.eps is None else config.eps
    adam = optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=eps, fused=True)
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


class AveragedWeights:
    """An exponential moving average of the trained weights on one rank, to evaluate with.

    It lies in the optimizer's state, beside Adam's moments: so it is sharded as the weights are,
    and saved and resumed with them. It begins as the weights that the run begins with.
    """

    def __init__(self, model: nn.Module, optimizer: optim.Optimizer, decay: float) -> None:
        """Put the average into the optimizer's state."""
        self._model, self._decay = model, decay
        weights = [w for w in model.parameters() if w.requires_grad]
        for weight in weights:
            optimizer.state[weight][AVERAGE] = weight.detach().clone()
        self._pairs = [(weight, optimizer.state[weight]) for weight in weights]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step that moved them."""
        weights, averages = zip(*self._local(), strict=True)
        torch._foreach_lerp_(averages, weights, 1 - self._decay)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Have the model compute with the average in the block, and with its weights after it."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for weight, average in self._local():
            kept = weight.clone()
            weight.copy_(average)
            average.copy_(kept)
        # Where FSDP keeps what it gathered, that is from before the exchange.
        for module in self._model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def _local(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield this rank's part of each weight and of its average."""
        for weight, state in self._pairs:
            yield _part(weight.detach()), _part(state[AVERAGE])


def _part(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
