"""The interface of exporters: facts about a run, units, entries of a fragment, and tools.

If a unit needs an unknown value, a one-line error names the domain and the option.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal, NamedTuple

from mixopt.errors import ConfigError, did_you_mean

Paths = Mapping[str, str | Sequence[str]]
# Builders of `datasets` by the suffix of their files.
BUILDERS = {
    ".jsonl": "json",
    ".json": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".csv": "csv",
    ".txt": "text",
}
COMPRESSED = {".gz", ".zst", ".xz", ".bz2"}


class Facts:
    """Known facts about the domains, other than their shares.

    Attributes:
        tool: Name of the tool, for messages.
        inventory: Distinct tokens of each domain.
        tokens: Length of the run in tokens; None: unknown.
        sample_tokens: Mean tokens of a sample (a document, a row) of each domain.
        paths: Paths of each domain's data; domains without an entry use their names.
    """

    def __init__(
        self,
        tool: str,
        domains: Sequence[str],
        tokens: float | None,
        inventory: Mapping[str, int] | None,
        paths: Paths | None,
        sample_tokens: Mapping[str, float] | float | None,
    ) -> None:
        """Check the facts."""
        for name in paths or {}:
            if name not in domains:
                near = did_you_mean(str(name), domains)
                raise ConfigError(f"paths: unknown domain {name!r}{near}")
        if sample_tokens is not None and not isinstance(sample_tokens, Mapping):
            sample_tokens = dict.fromkeys(domains, _number("sample_tokens", sample_tokens))
        self.tool = tool
        self.inventory = _numbers("inventory", inventory)
        self.tokens = None if tokens is None else _number("tokens", tokens)
        self.sample_tokens = _numbers("sample_tokens", sample_tokens)
        self.paths = {name: _paths(name, value) for name, value in (paths or {}).items()}

    def size(self, domain: str) -> float:
        """Return the distinct tokens of a domain."""
        need = f"the tokens of domain {domain!r}; give them in --inventory FILE"
        return self._required(self.inventory.get(domain), f"{need} (in Python inventory=)")

    def sample(self, domain: str) -> float:
        """Return the mean tokens of a sample of a domain."""
        return self._required(
            self.sample_tokens.get(domain),
            f"the mean tokens of a sample of domain {domain!r}; give it in --sample-tokens FILE,"
            " or one number for all (in Python sample_tokens=)",
        )

    def samples(self, domain: str, share: float) -> float:
        """Return the whole number of a domain's samples in the run, at least 1."""
        return float(max(1, round(share * self.length() / self.sample(domain))))

    def length(self) -> float:
        """Return the length of the run in tokens."""
        need = "the length of the run; give --tokens, such as 25e9 (in Python tokens=)"
        return self._required(self.tokens, need)

    def places(self, domain: str) -> tuple[str, ...]:
        """Return the paths of a domain's data; its name if no path is known."""
        return self.paths.get(domain, (domain,))

    def _required(self, value: float | None, need: str) -> float:
        if value is None:
            raise ConfigError(f"{self.tool}: needs {need}")
        return value


def _paths(domain: str, value: Any) -> tuple[str, ...]:
    paths = [value] if isinstance(value, str) else value
    is_list = isinstance(paths, Sequence) and all(isinstance(path, str) for path in paths)
    if not is_list or not paths or not all(path.strip() for path in paths):
        raise ConfigError(f"paths: {domain}: {value!r} is neither a path nor a list of paths")
    if len(set(paths)) < len(paths):
        raise ConfigError(f"paths: {domain}: a path is given twice; list each once")
    return tuple(paths)


def _numbers(where: str, values: Mapping[str, float] | None) -> dict[str, float]:
    return {name: _number(f"{where}: {name}", value) for name, value in (values or {}).items()}


def _number(where: str, value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0 < number < math.inf:
        raise ConfigError(f"{where}: {value!r} is not a number above 0")
    return number


@dataclass(frozen=True)
class WeightUnit:
    """The unit of the numbers in a fragment.

    Attributes:
        name: Name in one or two words.
        meaning: Description of a number, for the header of a fragment.
        amount: Function from domain, share (> 0) and facts to the amount.
        needs: The required options.
        normalised: Whether amounts add up to 1.
        divides: Whether a domain's amount is divided among its paths (passes are not).
    """

    name: str
    meaning: str
    amount: Callable[[str, float, Facts], float]
    needs: tuple[str, ...] = ()
    normalised: bool = False
    divides: bool = True


@dataclass(frozen=True)
class Entry:
    """An entry of a fragment, for one domain or one of its paths.

    Attributes:
        domain: Name of the domain.
        label: The domain's name, or a name per path for tools with one path per entry.
        paths: Paths of the data; the domain's name if no path is known.
        amount: Amount in the tool's unit.
        named: Whether `paths` is only the domain's name.
    """

    domain: str
    label: str
    paths: tuple[str, ...]
    amount: float
    named: bool

    @property
    def path(self) -> str:
        """The first path; the only one for tools with one path per entry."""
        return self.paths[0]


def builder_of(path: str) -> str | None:
    """Return the builder of `datasets` for a file's suffix; None: a folder or a name."""
    for suffix in reversed(PurePosixPath(path).suffixes):
        if suffix not in COMPRESSED:
            return BUILDERS.get(suffix)
    return None


def loader_of(entry: Entry, facts: Facts) -> str | None:
    """Return the builder that loads all paths of an entry; None: a single folder or name."""
    builder = builder_of(entry.path)
    if builder is None and len(entry.paths) > 1:
        raise ConfigError(
            f"{facts.tool}: domain {entry.domain!r}: the format of {entry.path!r} is unknown; "
            f"give one folder, or files that end with {', '.join(BUILDERS)}"
        )
    return builder


class StageEntries(NamedTuple):
    """The entries of one stage of a schedule.

    Attributes:
        name: Name of the stage.
        start: First optimiser step, from 0.
        entries: Entries of its mixture.
    """

    name: str
    start: int
    entries: Sequence[Entry]


class Noted(NamedTuple):
    """Content of a fragment with more lines for its header.

    Attributes:
        content: Content, as `ExportTool.write` returns it.
        lines: Notes for the user, each a comment.
    """

    content: Any
    lines: Sequence[str]


@dataclass(frozen=True)
class ExportTool:
    """A trainer whose configuration can be written.

    Attributes:
        name: Value of `--to`.
        title: Display name.
        version: The version whose parser was checked.
        unit: Unit of its weights.
        place: File type and key of the fragment.
        command: Command that uses the fragment.
        write: Function from entries and facts to the content: a mapping for YAML or JSON, text for
            Python, optionally wrapped in `Noted`.
        suffix: Suffix of its file.
        takes_zero: Whether it accepts a weight of 0.
        single_path: Whether an entry has only one path.
        strips: Whether its parser strips spaces around a path, so that such paths are refused.
        interpolates: Whether it reads `${...}` as a variable, so that such texts are refused.
        notes: More lines of the header.
        write_stages: Function from stages, facts and batch to the content; None: its configuration
            has only one mixture.
    """

    name: str
    title: str
    version: str
    unit: WeightUnit
    place: str
    command: str
    write: Callable[[Sequence[Entry], Facts], Any]
    suffix: Literal[".yaml", ".json", ".py"] = ".yaml"
    takes_zero: bool = False
    single_path: bool = False
    strips: bool = False
    interpolates: bool = False
    notes: tuple[str, ...] = ()
    write_stages: Callable[[Sequence[StageEntries], Facts, int], Any] | None = None
