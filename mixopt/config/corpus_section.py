"""The section `corpus:`: domains, where their documents come from, the tokenizer."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mixopt.config.section import Count, Positive, Section
from mixopt.config.token_fields import TokenFormat, TokenType, token_field_fault
from mixopt.system import under_folder

WHERE = "give either 'environment' or 'path' (or 'data_files')"


class SourceConfig(Section):
    """The source of one domain's documents: exactly one of `environment` and `path`.

    A domain whose text only the user's own trainer reads has neither.
    """

    environment: str | None = Field(None, description="a domain of the environment corpus")
    path: str | list[str] | None = Field(
        None,
        description="a folder, file or glob, or a list of them; a hub id, or a builder of"
        " `datasets` (json, parquet, arrow, text, csv); a text file is one document",
    )
    format: TokenFormat | None = Field(
        None, description="the tool that wrote the tokens in `path`: megatron, nanogpt, raw, "
                          "llmc, npy, olmo, datatrove, mds, litdata, webdataset; text if omitted",
    )  # fmt: skip
    dtype: TokenType | None = Field(
        None, description="type of a stored token, if the files do not state it"
    )
    field: str | None = Field(None, description="field of a sample that holds its tokens")
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
    domains: dict[str, SourceConfig] = Field(description="training domains by name", min_length=1)
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
