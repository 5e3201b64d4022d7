"""The section `corpus:`: domains, the sources of their documents, and their sizes."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationInfo, model_validator

from mixopt.config.domain_tree import flat_domains
from mixopt.config.inventory import SizeConfig, read_sizes
from mixopt.config.sections import (
    FILES,
    Above,
    Count,
    Fault,
    Location,
    Positive,
    Section,
    Weight,
    from_file,
    optional,
    share_fault,
)
from mixopt.errors import MixoptError
from mixopt.system import is_url, path_fault, shown_value, under_folder, url_fault, without_secrets

TokenFormat = Literal["megatron", "datatrove", "npy", "raw"]
TokenType = Literal["uint8", "uint16", "uint32", "int32", "int64"]

_RESERVED = ("index.json", "tokenizer.json", "spools", "tasks")  # files of the corpus itself
WHERE = "give either 'environment' or 'path' (or 'data_files')"
_OF_TEXT = (
    "environment",
    "name",
    "data_files",
    "split",
    "streaming",
    "column",
    "by",
    "max_bytes",
)
_OF_TOKENS = ("dtype", "document_end", "max_tokens")
_UNUSED = {
    ("megatron", "document_end"): "its index contains document ends",
    ("datatrove", "document_end"): "its .index contains document ends",
    ("npy", "dtype"): "a .npy states its type",
}


class SourceConfig(Section):
    """The source of one domain's documents: exactly one of `environment` and `path`."""

    environment: str | None = optional("a domain of the environment corpus")
    path: str | list[str] | None = optional(
        "folder, file, glob or list of them; hub id, or builder of `datasets`; a text file is"
        " one document"
    )
    format: TokenFormat | None = optional("format of the tokens in `path`; text if omitted")
    dtype: TokenType | None = optional("type of a stored token, if the files do not state it")
    document_end: Count | None = optional(
        "id that ends a document, if the files do not mark where documents end"
    )
    max_tokens: Positive | None = optional("maximum number of tokens to read")
    name: str | None = optional("configuration of the data set")
    data_files: str | list[str] | None = optional("files of the builder; globs work")
    split: str = Field("train", description="split of the data set")
    streaming: bool = Field(False, description="read a hub data set without a copy on disk")
    column: str = Field("text", description="column that holds the text")
    by: dict[str, str] | list[str] | None = optional(
        "columns whose values name domains, as `[topic, quality]`; or required values of a row"
    )
    validation: str | list[str] | None = optional(
        "files of held-out documents; split from the training ones if omitted"
    )
    max_bytes: Positive | None = optional(
        "maximum bytes of text to read; overrides corpus.max_bytes"
    )
    tokens: Positive | None = optional(
        "tokens of the whole domain, if the prepared text is a sample of it"
    )
    bytes: Positive | None = optional("bytes of text of the whole domain, instead of tokens")

    @property
    def is_sized(self) -> bool:
        """Whether the size of the whole domain is stated."""
        return self.tokens is not None or self.bytes is not None

    @property
    def is_tokens(self) -> bool:
        """Whether the source is tokens written by another tool rather than text."""
        return self.format is not None

    @property
    def cell(self) -> dict[str, str]:
        """The required values of a row by column, if the source is a part of its files."""
        if not isinstance(self.by, dict):
            return {}
        return self.by

    @property
    def paths(self) -> tuple[str, ...]:
        """The entries of `path`, one or many."""
        return _listed(self.path)

    @property
    def files(self) -> tuple[str, ...]:
        """The entries of `data_files`, one or many."""
        return _listed(self.data_files)

    @property
    def validation_files(self) -> tuple[str, ...]:
        """The entries of `validation`, one or many."""
        return _listed(self.validation)

    @property
    def one_path(self) -> str | None:
        """The single entry of `path`, which may be a data set or a builder."""
        return self.path if isinstance(self.path, str) else None

    @property
    def has_text(self) -> bool:
        """Whether its documents are specified."""
        return any(place is not None for place in (self.environment, self.path, self.data_files))

    def under(self, root: str | None) -> Self:
        """Return the same source with relative files under the folder `root`."""
        if root is None:
            return self
        moved: dict[str, Any] = {}
        for name in ("data_files", "validation"):
            files = getattr(self, name)
            if isinstance(files, str):
                moved[name] = under_folder(root, files)
            elif files is not None:
                moved[name] = [under_folder(root, file) for file in files]
        return self.model_copy(update=moved)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.environment is not None and not (self.path is None and self.data_files is None):
            raise ValueError(WHERE)
        if isinstance(self.path, list) and not self.path:
            raise ValueError("path: is an empty list; name a file, a glob or a folder")
        if isinstance(self.path, list) and self.data_files is not None:
            raise ValueError("path: is a list of files, so data_files is redundant; leave it out")
        fault = token_field_fault(self.format, self.changed())
        if fault is not None:
            raise ValueError(fault)
        if self.tokens is not None and self.bytes is not None:
            raise ValueError("give tokens or bytes of the whole domain, not both")
        return self


def token_field_fault(format: TokenFormat | None, stated: Sequence[str]) -> str | None:
    """Return an error for a field of a source that has no effect or is missing; None: no fault."""
    return _text_fault(stated) if format is None else _tokens_fault(format, stated)


def _text_fault(stated: Sequence[str]) -> str | None:
    for name in _OF_TOKENS:
        if name in stated:
            hint = "name a format, as format: megatron"
            return f"{name}: applies to tokens, but this is text; {hint}"
    return None


def _tokens_fault(format: TokenFormat, stated: Sequence[str]) -> str | None:
    for name in _OF_TEXT:
        if name in stated:
            return f"{name}: applies to text, but format: {format} is tokens; leave it out"
    if "path" not in stated:
        return f"path: is missing; name the files in format: {format}"
    for name in _OF_TOKENS:
        reason = _UNUSED.get((format, name))
        if name in stated and reason is not None:
            why = f"format: {format} does not use it, because {reason}"
            return f"{name}: {why}; leave it out"
    if format == "raw" and "dtype" not in stated:
        return f"dtype: format: {format} does not state the token type; give uint16 or uint32"
    if "bytes" in stated:
        return "bytes: is a size of text; state tokens instead"
    return None


class MixedConfig(Section):
    """Several domains in fixed shares of the tokens, prepared as one domain: replay."""

    domains: dict[str, SourceConfig] = Field(
        min_length=1, description="the parts, in the form of domains"
    )
    mixture: Annotated[Literal["natural"] | dict[str, Weight], BeforeValidator(from_file)] = Field(
        "natural", description="share of the tokens by part; a file such as recommendation.yaml"
    )
    tokens: Positive | None = optional(
        "tokens to prepare; if omitted, the most that repeat no part"
    )
    max_epochs: Above = Field(1.0, description="maximum epochs of a part")

    @property
    def shares(self) -> dict[str, float] | None:
        """Share of each part; None: natural shares."""
        if isinstance(self.mixture, str):
            return None
        return {name: self.mixture[name] for name in self.domains}

    @model_validator(mode="after")
    def _parts(self) -> Self:
        if isinstance(self.mixture, dict):
            fault = share_fault(self.mixture, self.domains)
            if fault is not None:
                raise ValueError(f"mixture: {fault}")
        return self


class DomainConfig(SourceConfig):
    """A domain to train on: a source, or several sources in fixed shares."""

    mixed: MixedConfig | None = optional("domains in fixed shares, prepared as this domain: replay")

    @property
    def has_text(self) -> bool:
        """Whether its documents are specified."""
        return self.mixed is not None or super().has_text

    @model_validator(mode="after")
    def _only_mixed(self) -> Self:
        extra = self.changed(but=("mixed", "tokens", "bytes"))
        if self.mixed is not None and extra:
            raise ValueError(f"{extra[0]}: a mixed domain takes its text from its parts")
        return self


def _flat(value: Any, info: ValidationInfo) -> Any:
    return flat_domains(value, info, DomainConfig.model_fields)


class CorpusConfig(Section):
    """Domains, tokenizer and held-out text."""

    root: str | None = optional(
        "folder of relative data_files and validation; the working directory if omitted"
    )
    prepared: str | None = optional(
        "folder or URL of a corpus that another run prepared, instead of text"
    )
    domains: Annotated[dict[str, DomainConfig], BeforeValidator(_flat)] = Field(
        description="training domains by name; they may nest", min_length=1
    )
    inventory: str | None = optional(
        "YAML file of sizes, `web: 5B` (tokens) or `web: {bytes: 20B}` per line"
    )
    tokenizer: str = Field(
        "bytes", description="bytes, bpe:<vocab>, or a Hugging Face name or folder"
    )
    validation_fraction: float = Field(
        0.05, gt=0, lt=0.5, description="share of a domain's bytes that is held out, by document"
    )
    max_validation_bytes: Positive = Field(
        1_000_000, description="maximum bytes to hold out of each domain"
    )
    max_bytes: Positive | None = optional("maximum bytes of text of each domain")
    on_bad_document: Literal["error", "skip"] = Field(
        "error", description="what to do with invalid UTF-8 or a broken line"
    )

    @model_validator(mode="after")
    def _sizes_of_file(self, info: ValidationInfo) -> Self:
        """Copy sizes from the file, so that the resolved configuration does not need it."""
        if self.inventory is None:
            return self
        fault = None
        if not (info.context or {}).get(FILES, True):
            fault = "a recorded configuration contains the sizes; state them by domain"
        elif is_url(self.inventory):
            fault = url_fault(self.inventory)
        if fault is not None:
            raise ValueError(f"inventory: {without_secrets(self.inventory)}: {fault}")
        try:
            where, sizes = read_sizes(self.inventory, self.domains)
        except MixoptError as error:
            raise ValueError(str(error)) from error
        domains = {
            name: _with_size(name, domain, sizes.get(name), where)
            for name, domain in self.domains.items()
        }
        object.__setattr__(self, "domains", domains)
        object.__setattr__(self, "inventory", None)
        return self

    @property
    def mixed(self) -> dict[str, MixedConfig]:
        """The mixed domains."""
        return {
            name: domain.mixed for name, domain in self.domains.items() if domain.mixed is not None
        }

    @property
    def parts(self) -> dict[str, SourceConfig]:
        """The parts of mixed domains; each is also an evaluation target."""
        parts: dict[str, SourceConfig] = {}
        for mixed in self.mixed.values():
            parts |= mixed.domains
        return parts

    @property
    def sources(self) -> dict[str, SourceConfig]:
        """All sources to read: the domains, with mixed domains replaced by their parts."""
        sources: dict[str, SourceConfig] = {}
        for name, domain in self.domains.items():
            if domain.mixed is None:
                sources[name] = domain
            else:
                sources |= domain.mixed.domains
        return sources


Sources = Mapping[str, SourceConfig]
Places = Mapping[Location, Sources]  # sources by the field of their section


def absent_texts(places: Places) -> Iterable[Location]:
    """Yield the fields of sources without text."""
    for place, sources in places.items():
        for name, source in sources.items():
            if not source.has_text:
                yield (*place, name)


def source_urls(places: Places) -> Iterable[tuple[Location, str]]:
    """Yield each store URL of the sources, with its field."""
    for place, sources in places.items():
        for name, source in sources.items():
            for field in ("path", "data_files", "validation"):
                for value in _listed(getattr(source, field)):
                    if is_url(value):
                        yield (*place, name, field), value


def url_faults(urls: Iterable[tuple[Location, str]]) -> Iterable[Fault]:
    """Yield faults of URLs that cannot be read, or contain a secret."""
    for location, url in urls:
        fault = url_fault(url)
        if fault is not None:
            yield location, f"{without_secrets(url)}: {fault}"


def unusable_names(corpus: CorpusConfig, targets: Iterable[str]) -> Iterable[Fault]:
    """Yield faults of names of domains, parts and targets: taken, or invalid as a folder."""
    if corpus.mixed and corpus.prepared is not None:
        message = "a mixed domain must be prepared from its parts; remove 'prepared'"
        yield ("corpus", "prepared"), message
    domains: Location = ("corpus", "domains")
    places: list[tuple[Location, str, Iterable[str]]] = [
        (domains, "a training domain", corpus.domains),
        (("evaluation",), "a target", targets),
    ]
    for name, mixed in corpus.mixed.items():
        places.append(((*domains, name, "mixed", "domains"), f"a part of {name!r}", mixed.domains))
    owners: dict[str, str] = {}
    for place, owner, names in places:
        for name in names:
            fault = path_fault(name)
            if _is_reserved(str(name)):
                fault = "the corpus uses a file of this name"
            if fault is not None:
                message = f"{shown_value(name)} cannot be the name of a folder: {fault}; rename it"
                yield (*place, name), message
            if name in owners:
                yield (*place, name), f"is already the name of {owners[name]}; rename it"
            owners[name] = owner


def _is_reserved(name: str) -> bool:
    first, *inner = name.split("/")
    return first in _RESERVED or "train" in inner or "validation" in inner


def _with_size(name: str, source: DomainConfig, size: SizeConfig | None, where: str) -> Any:
    """Return a source with its size from a file."""
    if size is None:
        if source.is_sized:
            return source
        raise ValueError(
            f"{where}: domain {name!r} is missing; add its tokens or bytes, as in `{name}: 5e9`"
            " (mixopt check CONFIG --write FILE finds them)"
        )
    if source.is_tokens and size.bytes is not None:
        raise ValueError(
            f"{where}: domain {name!r}: bytes are a size of text, but this domain is tokens; "
            f"state its tokens, as in `{name}: 5e9`"
        )
    if source.is_sized:
        raise ValueError(f"domains.{name}: states a size, and {where} too; keep one of them")
    return source.model_copy(update=dict(size))


def size_faults(corpus: CorpusConfig, evaluation: Sources) -> Iterable[Fault]:
    """Yield faults of sizes: stated for a target, or for only some of the domains."""
    for name, target in evaluation.items():
        if target.is_sized:
            message = "no trial trains on a target, so its size is not used; leave it out"
            yield ("evaluation", name), message
    sized = [name for name, source in corpus.domains.items() if source.is_sized]
    for name, source in corpus.domains.items():
        if sized and not source.is_sized:
            message = (
                f"its size is missing, but that of {sized[0]!r} is stated: state tokens or bytes of"
                " every domain or of none (mixopt check CONFIG --write FILE finds them)"
            )
            yield ("corpus", "domains", name), message


def _listed(value: str | list[str] | None) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    return tuple(value or ())
