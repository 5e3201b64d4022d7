"""What an exporter is, and how shares of the tokens become the unit of a trainer's weights.

With share w, T tokens in the run, I tokens in the domain and s tokens in a sample:

    sequences   w                  sequences of one length are drawn
    samples     w / s, normalised  documents or rows are drawn, which differ in length
    counts      w T / s            so many samples of each domain
    epochs      w T / I            so many passes over each domain

A unit that needs an unknown value reports it in one line that names the domain and the option.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal, NamedTuple

from mixopt.errors import ConfigError, did_you_mean

Paths = Mapping[str, str | Sequence[str]]
# Builders of `datasets` by the suffix of their files.
BUILDERS = {
    **dict.fromkeys((".jsonl", ".json", ".ndjson"), "json"),
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".csv": "csv",
    ".txt": "text",
}
COMPRESSED = {".gz", ".zst", ".xz", ".bz2"}


class Facts:
    """What is known of the domains besides their shares.

    Attributes:
        tool: The tool that messages name.
        inventory: Distinct tokens of each domain.
        tokens: Length of the run in tokens; None where that is not known.
        sample_tokens: Mean tokens of a sample (a document, a row) of each domain.
        paths: Where each domain's data is; a domain that is not there is named by itself.
    """

    def __init__(
        self,
        tool: str,
        domains: Sequence[str],
        *,
        inventory: Mapping[str, int] | None,
        tokens: float | None,
        paths: Paths | None,
        sample_tokens: Mapping[str, float] | float | None,
    ) -> None:
        """Check what is known."""
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

    def lasting(self, tokens: float) -> Facts:
        """Return the same of a run of another length."""
        other = copy(self)
        other.tokens = tokens
        return other

    def size(self, domain: str) -> float:
        """Return the distinct tokens of a domain."""
        what = f"how many tokens domain {domain!r} has; give it in --inventory FILE"
        return self._known(self.inventory.get(domain), f"{what} (in Python inventory=)")

    def sample(self, domain: str) -> float:
        """Return the mean tokens of a sample of a domain."""
        return self._known(
            self.sample_tokens.get(domain),
            f"the mean tokens of a sample of domain {domain!r}; give it in --sample-tokens FILE,"
            " or one number for all (in Python sample_tokens=)",
        )

    def length(self) -> float:
        """Return the length of the run in tokens."""
        what = "the length of the run; give --tokens, such as 25e9 (in Python tokens=)"
        return self._known(self.tokens, what)

    def places(self, domain: str) -> tuple[str, ...]:
        """Return where a domain's data is; its name where no path is known."""
        return self.paths.get(domain, (domain,))

    def _known(self, value: float | None, what: str) -> float:
        if value is None:
            raise ConfigError(f"{self.tool}: needs {what}")
        return value


def _paths(domain: str, value: Any) -> tuple[str, ...]:
    paths = [value] if isinstance(value, str) else value
    is_list = isinstance(paths, Sequence) and all(isinstance(path, str) for path in paths)
    if not is_list or not paths or not all(path.strip() for path in paths):
        raise ConfigError(f"paths: {domain}: {value!r} is neither a path nor a list of paths")
    if len(set(paths)) < len(paths):
        raise ConfigError(f"paths: {domain}: a path is given twice; each counts once")
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
    """What the numbers of a fragment count.

    Attributes:
        name: In one or two words.
        meaning: What a number is, as the header of a fragment says it.
        amount: From a domain, its share (above 0) and what is known to its amount.
        needs: The options without which it cannot be written.
        normalised: Whether amounts add up to 1.
        divides: Whether a domain's amount is divided among its paths; passes are not.
    """

    name: str
    meaning: str
    amount: Callable[[str, float, Facts], float]
    needs: tuple[str, ...] = ()
    normalised: bool = False
    divides: bool = True


def _count(domain: str, share: float, facts: Facts) -> float:
    return float(max(1, round(share * facts.length() / facts.sample(domain))))


SEQUENCES = WeightUnit(
    "share of sequences",
    "the share of the sequences, all of one length: the share of the tokens",
    lambda domain, share, facts: share,
)
SAMPLES = WeightUnit(
    "share of samples",
    "the probability of drawing a sample (the share of the tokens / tokens of a sample)",
    lambda domain, share, facts: share / facts.sample(domain),
    needs=("--sample-tokens",),
    normalised=True,
)
COUNTS = WeightUnit(
    "samples",
    "how many samples are taken (the share of the tokens x tokens / tokens of a sample)",
    _count,
    needs=("--tokens", "--sample-tokens"),
)
ROW_SLICES = WeightUnit(
    "passes and rows",
    "passes over all rows of the domain, and a slice of so many rows",
    _count,
    needs=("--tokens", "--inventory", "--sample-tokens"),
)
EPOCHS = WeightUnit(
    "epochs",
    "the passes over the domain (the share of the tokens x tokens / the domain's tokens)",
    lambda domain, share, facts: share * facts.length() / facts.size(domain),
    needs=("--tokens", "--inventory"),
    divides=False,
)


@dataclass(frozen=True)
class Entry:
    """What a fragment has of one domain, or of one of its paths.

    Attributes:
        domain: Its name.
        label: The domain's name, or one for each path where a tool takes one path an entry.
        paths: Where the data is; the domain's name where no path is known.
        amount: In the tool's unit.
        named: Whether `paths` is the domain's name only.
    """

    domain: str
    label: str
    paths: tuple[str, ...]
    amount: float
    named: bool

    @property
    def path(self) -> str:
        """The first path, the only one where a tool takes one path an entry."""
        return self.paths[0]


def builder_of(path: str) -> str | None:
    """Return the builder of `datasets` for a file, by its suffix; None for a folder or a name."""
    suffixes = PurePosixPath(path).suffixes
    last = next((suffix for suffix in reversed(suffixes) if suffix not in COMPRESSED), "")
    return BUILDERS.get(last)


def loader_of(entry: Entry, facts: Facts) -> str | None:
    """Return the builder that loads all paths of an entry; None for a folder or a name alone."""
    builder = builder_of(entry.path)
    if builder is None and len(entry.paths) > 1:
        raise ConfigError(
            f"{facts.tool}: domain {entry.domain!r}: {entry.path!r} does not show its format; "
            f"give one folder, or files that end with {', '.join(BUILDERS)}"
        )
    return builder


class StageEntries(NamedTuple):
    """What a fragment has of one stage of a schedule.

    Attributes:
        name: Of the stage.
        start: Its first optimiser step, from 0.
        entries: As those of a mixture.
    """

    name: str
    start: int
    entries: Sequence[Entry]


class Noted(NamedTuple):
    """Content of a fragment with more lines for its header.

    Attributes:
        content: As `ExportTool.write` returns it without them.
        lines: What a user has to know, each a comment.
    """

    content: Any
    lines: Sequence[str]


@dataclass(frozen=True)
class ExportTool:
    """A trainer whose configuration can be written.

    Attributes:
        name: As `--to` has it.
        title: What people call it.
        version: The version that its parser was read in.
        unit: Of its weights.
        place: File and key.
        command: How the fragment is used.
        write: From entries and facts to the content: a mapping for YAML or JSON, text for Python,
            each perhaps `Noted`.
        suffix: Of its file.
        takes_zero: Whether it can have a weight of 0.
        single_path: Whether an entry has one path.
        strips: Whether its reader strips the spaces around a path, so that such a path is refused.
        interpolates: Whether it reads `${...}` as a variable, so that such a text is refused.
        notes: More lines of the header.
        write_stages: The same from stages, facts and the batch; None for a tool whose configuration
            has one mixture.
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
