"""The section `model:` of a pretraining run: what is trained, and what it begins with."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from mixopt.config import Positive, Section


class OriginConfig(Section):
    """The weights that a run began with."""

    checkpoint: str = Field(description="folder, or name and revision on the hub")
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="over the hashes of its files")


class VocabularyConfig(Section):
    """What the ids of a run's text stand for."""

    tokenizer: str
    ids: Positive
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$", description="of ids and tokens")


class ModelConfig(Section):
    """What is trained, from random weights or from a checkpoint."""

    name: str = Field(
        "",
        description="decoder, a model type of Hugging Face (llama, olmoe, mixtral, qwen2_moe, "
        "qwen3_moe, ...), or package.module:Name; the checkpoint's with from",
    )
    start: str | None = Field(
        None,
        alias="from",
        description="weights to start from: a folder of transformers (safetensors), the directory "
        "of a mixopt pretrain or one of its checkpoints, or a name on the hub",
    )
    optimizer: bool | None = Field(
        None,
        description="with from: whether the optimiser's state is taken over; where there is one, "
        "if omitted",
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="fields of its configuration; vocabulary and positions are the corpus's and "
        "training.sequence_length if omitted; with from, over those of the checkpoint",
    )
    origin: OriginConfig | None = Field(
        None, description="what the run began with; written by mixopt"
    )
    vocabulary: VocabularyConfig | None = Field(
        None, description="what the ids of the text stand for; written by mixopt"
    )

    @model_validator(mode="after")
    def _named(self) -> ModelConfig:
        if not self.name and self.start is None:
            raise ValueError("give name, or from")
        if self.optimizer is not None and self.start is None:
            raise ValueError(f"optimizer {self.optimizer} has no effect without from")
        return self
