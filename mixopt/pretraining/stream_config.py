"""The section `stream` of a pretraining run: domains that are read while it trains."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from mixopt.config import CorpusConfig, DomainConfig, Positive, Section, SourceConfig


class StreamSourceConfig(SourceConfig):
    """Where the documents of a streamed domain come from."""

    tokens: Positive | None = Field(
        None,
        description="about how many tokens there are; known of all domains they give the natural"
        " mixture",
    )


class StreamConfig(Section):
    """Domains that are read, tokenised and packed while the run trains."""

    root: str | None = Field(
        None, description="folder of relative data_files and validation; the working directory"
    )
    domains: dict[str, StreamSourceConfig] = Field(
        description="training domains by name", min_length=1
    )
    tokenizer: str = Field("bytes", description="bytes, or a Hugging Face name or folder")
    max_validation_bytes: Positive = Field(
        1_000_000,
        description="the first documents of each domain, or its `validation` files, up to so much"
        " text are held out",
    )
    buffer: Positive = Field(
        1_000, description="documents of a domain that are packed and shuffled together"
    )
    on_bad_document: Literal["error", "skip"] = Field(
        "error", description="what to do with invalid UTF-8 or a broken line"
    )

    @field_validator("tokenizer")
    @classmethod
    def _needs_no_training(cls, name: str) -> str:
        if name.startswith("bpe:"):
            raise ValueError(
                f"{name} is learned from text that is read beforehand: give bytes, or a tokenizer"
                " by name or folder, such as the corpus folder of a run with this tokenizer"
            )
        return name

    @field_validator("domains")
    @classmethod
    def _is_text(cls, domains: dict[str, StreamSourceConfig]) -> dict[str, StreamSourceConfig]:
        for name, source in domains.items():
            if source.is_tokens:
                raise ValueError(
                    f"{name}: format: {source.format} is tokens, and a stream reads text; give it"
                    " under corpus.domains, or import it with mixopt tokens import"
                )
        return domains

    def sources(self) -> dict[str, SourceConfig]:
        """Return the sources by domain: files under `root`, and nothing copied to disk."""
        streamed = {"streaming": True}
        return {
            name: source.under(self.root).model_copy(update=streamed)
            for name, source in self.domains.items()
        }

    def tokens(self) -> dict[str, int] | None:
        """Return the tokens of each domain; None where one is not known."""
        known = {name: s.tokens for name, s in self.domains.items() if s.tokens is not None}
        return known if len(known) == len(self.domains) else None

    def as_corpus(self) -> CorpusConfig:
        """Return what reading held-out text needs to know."""
        return CorpusConfig(
            domains={name: _domain(source) for name, source in self.domains.items()},
            tokenizer=self.tokenizer,
            max_validation_bytes=self.max_validation_bytes,
            on_bad_document=self.on_bad_document,
        )


def _domain(source: StreamSourceConfig) -> DomainConfig:
    stated = {name: getattr(source, name) for name in source.model_fields_set}
    return DomainConfig(**stated)
