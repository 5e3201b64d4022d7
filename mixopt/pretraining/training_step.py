"""The parallel model (DDP or FSDP2), AdamW, and a step on a global batch, the same on every rank.

Randomness of a pass (dropout) follows from the seed and the position of its sequences in the
stream, so no random state is saved. One small all-reduce tells all ranks whether the step is
skipped or any rank was asked to stop: the only time that the host waits.

Shapes: B sequences, T tokens, W = T + 1, P passes, V vocabulary.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn, optim
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from mixopt.errors import ConfigError
from mixopt.pretraining.config import PretrainConfig
from mixopt.pretraining.models import blocks_of, document_positions, has_bfloat16, logits_of
from mixopt.pretraining.parallel import Ranks
from mixopt.routing import auxiliary_coefficient
from mixopt.system import one_line

_CHUNK_LOGITS = 1 << 24

_MASKS = "training.mask_documents"
_SHORT = 12  # tokens of the two documents in the mask check
_LEAK = 1e-4  # allowed influence across documents, relative to that within one

Counting = Callable[[Tensor, int, Sequence[int]], AbstractContextManager[None]]


@dataclass(frozen=True)
class StepOutcome:
    """Result of a step."""

    learning_rate: float
    gradient_norm: float
    skipped: bool
    stopping: bool
    parts: list[tuple[Tensor, Tensor]]
    added_P: Tensor | None


class DocumentMasks:
    """Separates the documents of a row, by `position_ids` that restart at 0 for each document.

    Each document is followed by the end-of-document id. As a target that id ends a document; as an
    input it starts the next one, whose first token is predicted from it alone.
    """

    def __init__(self, model: nn.Module, ends: Sequence[int], length: int, vocab_size: int) -> None:
        """Check that a model keeps documents apart.

        Args:
            model: The model, on the CPU.
            ends: Ids that end a document.
            length: Tokens of a sequence.
            vocab_size: Number of ids.
        """
        arguments = inspect.signature(model.forward).parameters
        if "position_ids" not in arguments:
            raise ConfigError(
                f"{_MASKS}: {type(model).__name__} takes no position_ids, which would tell it where"
                " documents begin; leave it out"
            )
        # With a cache transformers builds no masks from positions.
        self._ends, self._fixed = ends, {"use_cache": False} if "use_cache" in arguments else {}
        half, name = min(length, _SHORT) // 2, type(model).__name__
        if half < 2 or vocab_size < 4:
            return
        kind = str(getattr(getattr(model, "config", None), "_attn_implementation", ""))
        if kind.startswith("flash"):
            raise ConfigError(
                f"{_MASKS}: model.options.attn_implementation: {kind} keeps documents apart in"
                " single rows only; give sdpa or flex_attention"
            )
        try:
            leak, within = self._influences(model.eval(), half, vocab_size)
        except Exception as error:  # a model without support may raise anything
            raise ConfigError(f"{_MASKS}: {name} cannot be called so: {one_line(error)}") from error
        if not leak <= _LEAK * within:
            raise ConfigError(
                f"{_MASKS}: {name} does not keep documents apart by position_ids: what it predicts"
                " in one depends on the one before it; leave it out, or take another model"
            )

    def inputs(self, tokens_BT: Tensor) -> dict[str, Any]:
        """Return the arguments of a call besides the tokens."""
        return {"position_ids": document_positions(tokens_BT, self._ends), **self._fixed}

    @torch.no_grad()
    def _influences(self, model: nn.Module, half: int, ids: int) -> tuple[float, float]:
        """Return how much outputs for a document depend on its surroundings, and on itself."""
        draw = torch.Generator().manual_seed(0)
        before, document = torch.randint(ids, (2, half), generator=draw)
        changed = document.clone()
        changed[0] = (document[0] + 1) % ids
        pairs = (before, document), ((before + 1) % ids, document), (before, changed)
        rows = torch.stack([torch.cat(pair) for pair in pairs])
        places = torch.arange(half).repeat(3, 2)
        output = model(rows, position_ids=places, **self._fixed)
        same, elsewhere, moved = logits_of(output)[:, half:]
        return (same - elsewhere).abs().max().item(), (same - moved)[1:].abs().max().item()


class Trainer:
    """A model on its device, wrapped for the ranks, and its optimizer."""

    def __init__(
        self, model: nn.Module, config: PretrainConfig, ranks: Ranks, masks: DocumentMasks | None
    ) -> None:
        """Move, compile and wrap a model on the CPU, the same on every rank."""
        self._ranks, self._masks = ranks, masks
        self._training, self._seed = config.training, config.seed
        precision = config.training.precision
        self._half = has_bfloat16(ranks.device) if precision == "auto" else precision == "bfloat16"
        for block in blocks_of(model):
            if config.training.activation_checkpointing:
                block.forward = partial(checkpoint, block.forward, use_reentrant=False)
            if config.training.compile:
                block.compile()
        self.model = self._shard(model) if config.parallel == "fsdp" else model.to(ranks.device)
        self._called = self.model
        if config.parallel == "ddp" and ranks.count > 1:
            self._called = self._replicated()
        self._weights = [w for w in self.model.parameters() if w.requires_grad]
        self.optimizer = make_optimizer(self.model, config.training)
        self._coefficient = ranks.each(lambda: auxiliary_coefficient(self.model))

    @property
    def balances_experts(self) -> bool:
        """Whether an auxiliary loss is added."""
        return self._coefficient > 0 or hasattr(self.model, "own_loss")

    def evaluate(self, tokens_BT: Tensor) -> Any:
        """Return the model's output without gradients; all ranks call it."""
        self.model.eval()
        with torch.no_grad():
            return self._output(self.model, tokens_BT)

    def _output(self, model: nn.Module, tokens_BT: Tensor) -> Any:
        inputs = {} if self._masks is None else self._masks.inputs(tokens_BT)
        with torch.autocast(self._ranks.device.type, dtype=torch.bfloat16, enabled=self._half):
            return model(tokens_BT, **inputs)

    def step(
        self, step: int, batch: dict[str, Any], counting: Counting | None, *, stop: bool
    ) -> StepOutcome:
        """Run a step on a batch of this rank; `counting` counts its experts."""
        parts, added_P = self._accumulate(batch, counting or (lambda *_: nullcontext()))
        gradients = [weight.grad for weight in self._weights if weight.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        skipped, stopping = self._agree(parts, norm, stop=stop)
        rate = self._training.rates.rate(step)
        if not skipped:
            if self._training.clip > 0:
                nn.utils.clip_grads_with_norm_(self._weights, self._training.clip, norm)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.step()
        self.optimizer.zero_grad()
        return StepOutcome(rate, float(norm), skipped, stopping, parts, added_P)

    def _accumulate(
        self, batch: dict[str, Any], counting: Counting
    ) -> tuple[list[tuple[Tensor, Tensor]], Tensor | None]:
        """Accumulate gradients over passes; return losses, domains and auxiliary losses."""
        parts, added = list[tuple[Tensor, Tensor]](), list[Tensor]()
        rows_BW = batch["input_ids"].to(self._ranks.device, torch.long, non_blocking=True)
        of_rows_B = batch["domain"].to(self._ranks.device, non_blocking=True)
        size = self._training.micro_batch or len(rows_BW)
        passes = list(zip(rows_BW.split(size), of_rows_B.split(size), strict=True))
        first = batch["position"]  # in the stream
        self.model.train()
        for tokens_BW, domain_B in passes:
            torch.manual_seed(_seed_at(self._seed, first))
            positions = range(first, first + len(domain_B))
            first = positions.stop
            with self._reducing(last=len(parts) == len(passes) - 1):
                with counting(domain_B, tokens_BW.shape[1] - 1, positions):
                    output = self._output(self._called, tokens_BW[:, :-1])
                losses_BT = token_losses(output, tokens_BW[:, 1:])
                loss = losses_BT.mean()
                auxiliary = added_loss(self.model, output, self._coefficient)
                if auxiliary is not None:
                    added.append(auxiliary.detach())
                    loss = loss + auxiliary
                (loss / len(passes)).backward()  # type: ignore[no-untyped-call]
            parts.append((losses_BT.detach(), domain_B))
        return parts, torch.stack(added) if added else None

    def _reducing(self, *, last: bool) -> AbstractContextManager[Any]:
        """Reduce gradients over ranks in the last pass of a step only."""
        if isinstance(self.model, FSDPModule):
            self.model.set_requires_gradient_sync(last)
        elif isinstance(self._called, DistributedDataParallel) and not last:
            return self._called.no_sync()
        return nullcontext()

    def _agree(
        self, parts: list[tuple[Tensor, Tensor]], norm: Tensor, *, stop: bool
    ) -> tuple[bool, bool]:
        """Return on every rank whether a value is not finite, and whether any rank must stop."""
        sums = torch.stack([norm, *(losses.sum() for losses, _ in parts)])
        broken = ~torch.isfinite(sums).all()
        counts = torch.stack([broken, torch.full_like(broken, stop)]).float()
        dist.all_reduce(counts)
        skipped, stopping = counts.bool().tolist()
        return skipped, stopping

    def _shard(self, model: nn.Module) -> nn.Module:
        mesh = init_device_mesh(self._ranks.device.type, (self._ranks.count,))
        half = torch.bfloat16 if self._half else None
        policy = MixedPrecisionPolicy(half, torch.float32, cast_forward_inputs=False)
        for block in (*blocks_of(model), model):
            fully_shard(block, mesh=mesh, mp_policy=policy)
        return model

    def _replicated(self) -> nn.Module:
        arguments = inspect.signature(DistributedDataParallel).parameters
        new = "forward_sync_buffers"  # its name in newer releases
        sync = new if new in arguments else "broadcast_buffers"
        options: dict[str, Any] = {sync: False, "gradient_as_bucket_view": True}
        return DistributedDataParallel(self.model, **options)


def _seed_at(seed: int, position: int) -> int:
    """Return the random seed of a pass at a position in the stream."""
    digest = hashlib.blake2b(f"{seed}/{position}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def token_losses(output: Any, targets_BT: Tensor) -> Tensor:
    """Return the cross-entropy of each token in nats, float32, shape (B, T).

    Logits are converted to float32 in chunks of rows, and again in the backward pass, so that they
    are never stored in float32 as a whole.
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


def make_optimizer(model: nn.Module, options: Any) -> optim.AdamW:
    """Return AdamW with initialised state; matrices decay, vectors such as norms do not.

    Args:
        model: The model, on its device.
        options: Has `lr`, `betas`, `eps` and `weight_decay`.
    """
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        {"params": [w for w in trained if w.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [w for w in trained if w.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    adam = optim.AdamW(groups, lr=options.lr, betas=options.betas, eps=options.eps, fused=True)
    get_optimizer_state_dict(model, adam)  # creates the state by a step without effect
    for state in adam.state.values():
        state["step"].zero_()
    return adam


def added_loss(model: nn.Module, output: Any, coefficient: float) -> Tensor | None:
    """Return the auxiliary loss of a pass: `own_loss`, or the model's auxiliary output."""
    loss = getattr(model, "own_loss", None)
    if isinstance(loss, Tensor):
        return loss
    auxiliary = getattr(output, "aux_loss", None)
    return coefficient * auxiliary if coefficient and isinstance(auxiliary, Tensor) else None
