"""The section `corpus:`: domains, where their documents come from, the tokenizer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, model_validator

from mixopt.config.replayed_run import replayed_run, weights_in
from mixopt.config.section import FILES, Count, Positive, Section
from mixopt.errors import MixoptError, did_you_mean
from mixopt.system import under_folder

TokenFormat = Literal["megatron", "datatrove", "llmc", "npy", "raw"]
TokenType = Literal["uint8", "uint16", "uint32", "int32", "int64"]

_OF_TEXT = (
    "environment", "name", "data_files", "split", "revision", "streaming", "column", "max_bytes",
)  # fmt: skip
_OF_TOKENS = ("dtype", "document_end", "max_tokens")
_UNUSED: dict[TokenFormat, dict[str, str]] = {
    "megatron": dict.fromkeys(("document_end",), "its index says where documents end"),
    "datatrove": dict.fromkeys(("document_end",), "its .index says where documents end"),
    "npy": {"dtype": "a .npy says its type"},
    "llmc": {"dtype": "its header says the type"},
}


def token_field_fault(format: TokenFormat | None, stated: Sequence[str]) -> str | None:
    """Say which field of a source has no use; None where all have."""
    if format is None:
        wrong = next((name for name in _OF_TOKENS if name in stated), None)
        what = f"{wrong}: applies to tokens, but this is text; name a format, as format: megatron"
        return None if wrong is None else what
    wrong = next((name for name in _OF_TEXT if name in stated), None)
    if wrong is not None:
        return f"{wrong}: applies to text, but format: {format} is tokens; leave it out"
    if "path" not in stated:
        return f"path: is missing; name the files in format: {format}"
    if "bytes" in stated:
        return "bytes: is the size of text; give tokens of the whole domain"
    return _unused(format, stated)


def _unused(format: TokenFormat, stated: Sequence[str]) -> str | None:
    for name, reason in _UNUSED.get(format, {}).items():
        if name in stated:
            return f"{name}: format: {format} does not use it, because {reason}; leave it out"
    if format == "raw" and "dtype" not in stated:
        return f"dtype: format: {format} does not state the type of a token; give uint16 or uint32"
    return None


WHERE = "give either 'environment' or 'path' (or 'data_files')"


class SourceConfig(Section):
    """The source of one domain's documents: exactly one of `environment` and `path`."""

    environment: str | None = Field(None, description="a domain of the environment corpus")
    path: str | list[str] | None = Field(
        None,
        description="a folder, file or glob, or a list of them; a hub id, or a builder of"
        " `datasets` (json, parquet, arrow, text, csv); a text file is one document",
    )
    format: TokenFormat | None = Field(
        None,
        description="format of the tokens in `path`: megatron, datatrove, llmc, npy or raw; text "
        "if omitted",
    )
    dtype: TokenType | None = Field(
        None, description="type of a stored token, if the files do not state it"
    )
    document_end: Count | None = Field(
        None, description="id that ends a document, if the files do not mark where documents end"
    )
    max_tokens: Positive | None = Field(None, description="maximum number of tokens to read")
    name: str | None = Field(None, description="configuration of the data set")
    data_files: str | list[str] | None = Field(None, description="files of the builder; globs work")
    split: str = Field("train", description="split of the data set")
    revision: str | None = Field(None, description="revision on the hub")
    streaming: bool = Field(False, description="read a hub data set without a copy on disk")
    column: str = Field("text", description="column that holds the text")
    validation: str | list[str] | None = Field(
        None,
        description="files of held-out documents; if omitted, they are split from the training "
        "documents",
    )
    max_bytes: Positive | None = Field(
        None, description="maximum bytes of text to read; overrides corpus.max_bytes"
    )
    tokens: Positive | None = Field(
        None, description="tokens of the whole domain, if the prepared text is a sample of it"
    )
    bytes: Positive | None = Field(
        None, description="bytes of text of the whole domain, instead of tokens"
    )

    @property
    def is_sized(self) -> bool:
        """Whether the size of the whole domain is stated."""
        return self.tokens is not None or self.bytes is not None

    @property
    def is_tokens(self) -> bool:
        """Whether the source is tokens written by another tool rather than text."""
        return self.format is not None

    @property
    def paths(self) -> tuple[str, ...]:
        """The entries of `path`, one or many."""
        return (self.path,) if isinstance(self.path, str) else tuple(self.path or ())

    @property
    def validation_files(self) -> tuple[str, ...]:
        """The entries of `validation`, one or many."""
        given = self.validation
        return (given,) if isinstance(given, str) else tuple(given or ())

    @property
    def one_path(self) -> str | None:
        """The single entry of `path`, which may be a data set or a builder."""
        return self.path if isinstance(self.path, str) else None

    @property
    def has_text(self) -> bool:
        """Whether its documents are specified."""
        return any(given is not None for given in (self.environment, self.path, self.data_files))

    def under(self, root: str | None) -> SourceConfig:
        """Return the same source with relative files under the folder `root`."""
        if root is None:
            return self
        moved = {
            "data_files": _under(root, self.data_files),
            "validation": _under(root, self.validation),
        }
        return self.model_copy(update=moved)

    @model_validator(mode="after")
    def _one_source(self) -> SourceConfig:
        if self.environment is not None and not (self.path is None and self.data_files is None):
            raise ValueError(WHERE)
        if isinstance(self.path, list) and not self.path:
            raise ValueError("path: is an empty list; name a file, a glob or a folder")
        if isinstance(self.path, list) and self.data_files is not None:
            raise ValueError("path: is a list of files, so data_files is redundant; leave it out")
        return self

    @model_validator(mode="after")
    def _fields_of_tokens(self) -> SourceConfig:
        fields = type(self).model_fields.items()
        changed = [name for name, field in fields if getattr(self, name) != field.default]
        fault = token_field_fault(self.format, changed)
        if fault is not None:
            raise ValueError(fault)
        return self

    @model_validator(mode="after")
    def _one_size(self) -> SourceConfig:
        if self.tokens is not None and self.bytes is not None:
            raise ValueError("give tokens or bytes of the whole domain, not both")
        return self


class MixedConfig(Section):
    """Several domains in fixed shares of the tokens, prepared as one domain: replay."""

    start: str | None = Field(
        None,
        alias="from",
        description="a run of mixopt pretrain, instead of domains: what it was prepared with, at "
        "the mixture that it trained on",
    )
    domains: dict[str, SourceConfig] = Field(
        default_factory=dict, description="the parts, as domains are given"
    )
    mixture: Literal["natural"] | dict[str, Any] = Field(
        "natural",
        description="share of the tokens by part; `file: recommendation.yaml`; or natural, by the "
        "tokens of each",
    )
    tokens: Positive | None = Field(
        None, description="tokens to prepare; as many as no part has to be repeated for if omitted"
    )
    max_epochs: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        1.0, description="how often a part may be repeated"
    )

    @property
    def file(self) -> str | None:
        """The file that has the mixture, if one has."""
        given = self.mixture.get("file") if isinstance(self.mixture, dict) else None
        return given if isinstance(given, str) else None

    @property
    def shares(self) -> dict[str, float] | None:
        """Share of each part; None where it is natural, or still in a file."""
        given = self.mixture
        if not isinstance(given, dict) or self.file is not None:
            return None
        return {name: float(given[name]) for name in self.domains}

    @model_validator(mode="before")
    @classmethod
    def _read(cls, values: Any, info: ValidationInfo) -> Any:
        """Take what other files say, so that the resolved configuration needs none of them."""
        if not isinstance(values, dict) or not (info.context or {}).get(FILES, True):
            return values
        given, run = values.get("mixture"), values.get("from")
        try:
            if isinstance(run, str) and not ({"domains", "mixture"} & values.keys()):
                rest = {name: value for name, value in values.items() if name != "from"}
                return rest | replayed_run(run)
            if isinstance(given, dict) and isinstance(given.get("file"), str):
                return {**values, "mixture": weights_in(given["file"])}
        except MixoptError as error:
            raise ValueError(str(error)) from error
        return values

    @model_validator(mode="after")
    def _parts(self) -> MixedConfig:
        if (self.start is None) == (not self.domains):
            raise ValueError("give the parts under 'domains', or a run as 'from'")
        if self.start is not None and self.mixture != "natural":
            raise ValueError(f"mixture: is that of {self.start}; leave it out, or give domains")
        if isinstance(self.mixture, dict) and self.file is None:
            fault = _share_fault(self.mixture, self.domains)
            if fault is not None:
                raise ValueError(f"mixture: {fault}")
        return self


class DomainConfig(SourceConfig):
    """A domain to train on: a source, or several of them in fixed shares."""

    mixed: MixedConfig | None = Field(
        None, description="domains in fixed shares that are prepared as this one: replay"
    )

    @model_validator(mode="before")
    @classmethod
    def _of_source(cls, given: Any) -> Any:
        """Take a source in Python for the domain that has it."""
        own = isinstance(given, SourceConfig) and not isinstance(given, cls)
        return given.model_dump(exclude_unset=True) if own else given

    @property
    def has_text(self) -> bool:
        """Whether its documents are specified."""
        return self.mixed is not None or super().has_text

    @model_validator(mode="after")
    def _mixed_alone(self) -> DomainConfig:
        fields = type(self).model_fields.items()
        own = [name for name, field in fields if getattr(self, name) != field.default]
        own = [name for name in own if name not in ("mixed", "tokens", "bytes")]
        if self.mixed is not None and own:
            raise ValueError(f"{own[0]}: a mixed domain has its text from its parts")
        return self


def _share_fault(shares: dict[str, Any], parts: Iterable[str]) -> str | None:
    """Return what is wrong with the shares of parts."""
    names = list(parts)
    for name, value in shares.items():
        if name not in names:
            return f"unknown domain {name!r}{did_you_mean(str(name), names)}"
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            return f"{name}: {value!r} is not a share from 0 to 1"
    missing = [name for name in names if name not in shares]
    if missing:
        return f"no share of {', '.join(missing)}; 0 is allowed"
    total = math.fsum(shares.values())
    return None if abs(total - 1) < 1e-6 else f"shares add up to {total:.6g}, and should to 1"


def _under(root: str, files: str | list[str] | None) -> str | list[str] | None:
    if isinstance(files, list):
        return [under_folder(root, file) for file in files]
    return None if files is None else under_folder(root, files)


class CorpusConfig(Section):
    """Domains, tokenizer and held-out text."""

    root: str | None = Field(
        None, description="folder of relative data_files and validation; the working directory"
    )

    prepared: str | None = Field(
        None,
        description="a corpus prepared by another run (folder or URL), instead of the text of "
        "the domains; `mixopt tokens publish` uploads one to a store",
    )
    domains: dict[str, DomainConfig] = Field(description="training domains by name", min_length=1)
    inventory: str | None = Field(
        None,
        description="YAML file of the domains' sizes, `web: 5e9` (tokens) or `web: {bytes: "
        "2e10}` per line, instead of tokens and bytes; `mixopt count` writes one",
    )
    tokenizer: str = Field(
        "bytes", description="bytes, bpe:<vocab>, or a Hugging Face name or folder"
    )
    validation_fraction: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        0.05, description="share of each domain's bytes that is held out, by document"
    )
    max_validation_bytes: Positive = Field(
        1_000_000, description="maximum bytes to hold out of each domain"
    )
    max_bytes: Positive | None = Field(None, description="maximum bytes of text of each domain")
    on_bad_document: Literal["error", "skip"] = Field(
        "error", description="what to do with invalid UTF-8 or a broken line"
    )

    @property
    def mixed(self) -> dict[str, MixedConfig]:
        """The domains that are made of others."""
        return {name: one.mixed for name, one in self.domains.items() if one.mixed is not None}

    @property
    def parts(self) -> dict[str, SourceConfig]:
        """What mixed domains are made of; each is an evaluation target too."""
        return {name: part for one in self.mixed.values() for name, part in one.domains.items()}

    @property
    def sources(self) -> dict[str, SourceConfig]:
        """All that is read: the domains, with its parts in the place of a mixed one."""
        found: dict[str, SourceConfig] = {}
        for name, domain in self.domains.items():
            found |= {name: domain} if domain.mixed is None else domain.mixed.domains
        return found
