"""Schedule: mixtures by stage, each constant or a linear ramp to another one; and its file.

Stages follow each other without a gap; a length is in tokens or in steps. A stage ends with the
batch whose end is nearest to the cumulative tokens, so that rounding to whole batches does not add
up over stages. A step is a global batch. Tokens are predicted tokens: sequences times sequence
length.

The file is YAML, which people may write by hand; messages give its line numbers:

    format: mixopt-schedule/1
    batch: 1024                 sequences of a step, over all ranks
    sequence_length: 4096       tokens predicted of a sequence
    max_epochs: 4               passes over a domain, over all stages
    inventory: {web: 80e9, ...} distinct tokens; or {file: inventory.yaml}
    stages:
    - name: main
      tokens: 900e9             or steps:
      mixture: {web: 0.6, ...}  or {file: recommendation.yaml}; default: the previous stage's
    - tokens: 100e9
      to: {file: anneal.yaml}   the mixture at the end of a linear ramp
    provenance: {...}           its inputs, where mixopt wrote it

File names are relative to the schedule. The bare install (numpy and a YAML reader) can read it.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import yaml

from mixopt.errors import MixtureError, SamplerError, did_you_mean
from mixopt.mixture import Mixture
from mixopt.sampling.sampler_input import MAX_BATCH
from mixopt.sampling.stage import (
    MAX_TOKENS,
    STAGE_FIELDS,
    ScheduleFieldError,
    Stage,
    check_stage,
    check_whole,
    drawn_tokens,
)
from mixopt.system import (
    FieldPlace,
    PlainDict,
    PlainMapping,
    parse_yaml,
    read_text,
    read_yaml,
    short_count,
    shown_value,
    write_text,
)

FORMAT = "mixopt-schedule/1"
_TOP = ("format", "batch", "sequence_length", "max_epochs", "inventory", "stages", "provenance")
_HEADER = "# Mixtures by stage; docs/schedules.md lists the fields.\n"
MAX_LENGTH = 1 << 31  # tokens of a sequence
_ROUNDING = 1e-6  # of weights in files

ScheduleEntry = tuple[int, Mixture] | tuple[int, Mixture, int, Mixture]


def is_schedule(path: Path) -> bool:
    """Return whether a YAML file is a schedule, valid or not, rather than a mixture."""
    content = read_yaml(path, error=SamplerError)
    if not isinstance(content, dict):
        return False
    has_format = str(content.get("format", "")).startswith("mixopt-schedule")
    return has_format or isinstance(content.get("stages"), list)


@dataclass(frozen=True)
class Schedule:
    """The stages of a run, checked when built.

    Attributes:
        stages: The stages, in order.
        batch: Sequences of a step, over all ranks.
        sequence_length: Predicted tokens of a sequence.
        max_epochs: Maximum passes over a domain, over all stages; None: no limit.
        inventory: Distinct tokens of each domain; None: unknown.
        provenance: The inputs that it was computed from.

    Examples:
        >>> even = mixopt.Mixture.uniform(("code", "prose"))
        >>> code = mixopt.Mixture({"code": 1.0, "prose": 0.0})
        >>> stages = Stage(even, steps=90), Stage(even, steps=10, to=code, name="anneal")
        >>> schedule = Schedule(stages, batch=8, sequence_length=1024)
        >>> schedule.steps, schedule.tokens
        (100, 819200)
    """

    stages: tuple[Stage, ...]
    batch: int
    sequence_length: int
    max_epochs: float | None = None
    inventory: Mapping[str, int] | None = None
    provenance: PlainMapping = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if not self.stages:
            raise ScheduleFieldError(("stages",), "empty; a run has at least one stage")
        check_whole(("batch",), self.batch, MAX_BATCH)
        check_whole(("sequence_length",), self.sequence_length, MAX_LENGTH)
        for k, stage in enumerate(self.stages):
            check_stage(("stages", k), stage, self.domains)
        for k, stage in enumerate(self.stages):
            if self.starts[k + 1] <= self.starts[k]:
                raise ScheduleFieldError(
                    ("stages", k, "tokens"),
                    f"{stage.tokens:,} tokens round to 0 batches of {self.step_tokens:,} tokens",
                )
        check_whole(("stages",), self.asked_tokens, MAX_TOKENS)
        limit = self.max_epochs
        is_number = isinstance(limit, (int, float)) and not isinstance(limit, bool)
        if limit is not None and not (is_number and 0 < limit < math.inf):
            fault = f"{shown_value(limit)} is not a number above 0"
            raise ScheduleFieldError(("max_epochs",), fault)
        if self.inventory is None:
            return
        for name, tokens in self.inventory.items():
            if name not in self.domains:
                fault = f"domain {name!r} is in no stage{did_you_mean(name, self.domains)}"
                raise ScheduleFieldError(("inventory", name), fault)
            check_whole(("inventory", name), tokens, MAX_TOKENS, minimum=0)
        self.check_epochs(self.inventory)

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """Read a schedule (`docs/schedules.md` lists the fields).

        Raises:
            SamplerError: An invalid field; one line with file, line and field.
        """
        path = Path(path)
        text = read_text(path, error=SamplerError)
        content, lines = parse_yaml(text, str(path), error=SamplerError)
        return cls.from_content(content, str(path), path.parent, lines)

    @classmethod
    def from_content(
        cls,
        content: object,
        where: str,
        folder: str | Path = ".",
        lines: Mapping[FieldPlace, int] | None = None,
    ) -> Self:
        """Return the schedule given by plain values, as in a file.

        Args:
            content: The values.
            where: Prefix of messages.
            folder: The folder that file names are relative to.
            lines: The line of each field, for messages.

        Raises:
            SamplerError: An invalid field.
        """
        try:
            return cls(**_values(content, Path(folder)))
        except ScheduleFieldError as fault:
            raise fault.of_file(where, lines or {}) from None

    def to_file(self, path: str | Path) -> None:
        """Write the schedule as YAML that `from_file` reads."""
        content = self.to_json()
        body = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
        write_text(Path(path), _HEADER + body)

    def to_json(self) -> PlainDict:
        """Return the schedule as plain values, in the order of the file."""
        content = {
            "format": FORMAT,
            "batch": self.batch,
            "sequence_length": self.sequence_length,
            "max_epochs": self.max_epochs,
            "inventory": None if self.inventory is None else dict(self.inventory),
            "stages": [stage.to_json() for stage in self.stages],
            "provenance": dict(self.provenance) or None,
        }
        return {name: value for name, value in content.items() if value is not None}

    def __repr__(self) -> str:
        length = f"{self.steps:,} steps, {short_count(self.tokens)} tokens"
        return f"Schedule({len(self.stages)} stages, {len(self.domains)} domains: {length})"

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the domains, in order."""
        return self.stages[0].mixture.domains

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """The first step of each stage, followed by the number of steps."""
        ends, tokens = [0], 0
        for stage in self.stages:
            tokens += self._requested(stage)
            if stage.steps is None:
                size = self.step_tokens
                ends.append((2 * tokens + size) // (2 * size))
            else:
                ends.append(ends[-1] + stage.steps)
        return tuple(ends)

    @property
    def steps(self) -> int:
        """Global batches of the whole run."""
        return self.starts[-1]

    @property
    def step_tokens(self) -> int:
        """Tokens of one step."""
        return self.batch * self.sequence_length

    @property
    def tokens(self) -> int:
        """Tokens of the whole run."""
        return self.steps * self.step_tokens

    @property
    def asked_tokens(self) -> int:
        """Tokens of the whole run before rounding to whole batches."""
        return sum(self._requested(stage) for stage in self.stages)

    def stage_tokens(self, k: int) -> int:
        """Return the tokens of a stage, in whole batches."""
        return (self.starts[k + 1] - self.starts[k]) * self.step_tokens

    @property
    def entries(self) -> list[ScheduleEntry]:
        """Entries for MixtureSampler: first step and mixture, and the ends of linear stages."""
        entries: list[ScheduleEntry] = []
        for k, stage in enumerate(self.stages):
            first = stage.mixture.over(self.domains)
            if stage.to is None or stage.to == stage.mixture:
                entries.append((self.starts[k], first))
            else:
                last = stage.to.over(self.domains)
                entries.append((self.starts[k], first, self.starts[k + 1], last))
        return entries

    def domain_tokens(self) -> dict[str, float]:
        """Return the tokens of each domain over all stages."""
        return self._tokens_by_domain([self.stage_tokens(k) for k in range(len(self.stages))])

    def _tokens_by_domain(self, lengths: Sequence[int]) -> dict[str, float]:
        pairs = list(zip(lengths, self.stages, strict=True))
        tokens: dict[str, float] = {}
        for name in self.domains:
            tokens[name] = math.fsum(drawn_tokens(stage, name, length) for length, stage in pairs)
        return tokens

    def check_epochs(self, inventory: Mapping[str, int]) -> None:
        """Check that no domain exceeds `max_epochs` over all stages.

        Args:
            inventory: Distinct tokens of each domain.

        Raises:
            SamplerError: Too many epochs, with the largest valid share; a domain without tokens.
        """
        requested = self._tokens_by_domain([self._requested(stage) for stage in self.stages])
        total = self.tokens
        max_epochs = self.max_epochs
        for name, tokens in self.domain_tokens().items():
            size = inventory.get(name)
            # Rounding up to whole batches is ours, not an error of the mixture.
            needed = min(tokens, requested[name])
            if size is None:
                near = did_you_mean(name, inventory)
                fault = f"the inventory does not have domain {name!r}{near}"
            elif not size and tokens:
                fault = f"domain {name!r} has a share and no tokens; set it to 0"
            elif max_epochs is None or needed <= max_epochs * size * (1 + _ROUNDING):
                continue
            else:
                epochs = math.ceil(1000 * tokens / size) / 1000
                share = math.floor(1000 * max_epochs * size / total) / 1000
                fault = (
                    f"domain {name!r}: {tokens / total:.4g} of {total:,} tokens over all stages are"
                    f" {epochs:g} epochs of its {size:,}, and max_epochs is {max_epochs:g}. Lower"
                    f" its share to {share:g} on average, or allow max_epochs: {epochs:g}"
                )
            raise ScheduleFieldError(("stages",), fault)

    def _requested(self, stage: Stage) -> int:
        if stage.tokens is not None:
            return stage.tokens
        return (stage.steps or 0) * self.step_tokens


def _values(content: object, folder: Path) -> PlainDict:
    """Return the arguments of a Schedule."""
    fields = _mapping(content, (), _TOP)
    if fields.get("format", FORMAT) != FORMAT:
        fault = f"{shown_value(fields['format'])} is not {FORMAT!r}"
        raise ScheduleFieldError(("format",), fault)
    listed = fields.get("stages")
    if not isinstance(listed, list) or not listed:
        raise ScheduleFieldError(("stages",), "expected a list of stages, each with '- '")
    stages: list[Stage] = []
    for k, entry in enumerate(listed):
        values = _mapping(entry, ("stages", k), STAGE_FIELDS)
        mixture = _mixture(values.get("mixture"), ("stages", k, "mixture"), folder)
        end = _mixture(values.get("to"), ("stages", k, "to"), folder)
        if mixture is None and stages:
            mixture = stages[-1].to or stages[-1].mixture
        if mixture is None:
            fault = "is missing; the first stage has one"
            raise ScheduleFieldError(("stages", k, "mixture"), fault)
        stages.append(
            Stage(
                mixture=mixture,
                tokens=_number(values.get("tokens")),
                steps=_number(values.get("steps")),
                to=end,
                name=values.get("name"),
            )
        )
    for name in ("batch", "sequence_length"):
        if name not in fields:
            raise ScheduleFieldError((name,), "is missing")
    return {
        "stages": tuple(stages),
        "batch": _number(fields["batch"]),
        "sequence_length": _number(fields["sequence_length"]),
        "max_epochs": _number(fields.get("max_epochs")),
        "inventory": _inventory(fields.get("inventory"), stages[0].mixture.domains, folder),
        "provenance": _mapping(fields.get("provenance", {}), ("provenance",), None),
    }


def _mixture(content: object, place: FieldPlace, folder: Path) -> Mixture | None:
    if content is None:
        return None
    fields = _mapping(content, place, None)
    file = _file(fields)
    try:
        if file is not None:
            place = (*place, "file")
            return Mixture.from_file(folder / file)
        return Mixture({name: _number(value) for name, value in fields.items()})
    except MixtureError as error:
        raise ScheduleFieldError(place, str(error).partition(", or pass")[0]) from None


def _inventory(content: object, domains: Collection[str], folder: Path) -> PlainDict | None:
    """Return the sizes of the domains; a file may list other domains too."""
    if content is None:
        return None
    place: FieldPlace = ("inventory",)
    fields = _mapping(content, place, None)
    file = _file(fields)
    if file is not None:
        place = (*place, "file")
        sizes = _mapping(read_yaml(folder / file, error=SamplerError), place, None)
        fields = {name: size for name, size in sizes.items() if name in domains}
    return {name: _number(size) for name, size in fields.items()}


def _file(fields: PlainMapping) -> str | None:
    file = fields.get("file")
    return file if len(fields) == 1 and isinstance(file, str) else None


def _mapping(content: object, place: FieldPlace, names: Collection[str] | None) -> PlainDict:
    if not isinstance(content, dict):
        raise ScheduleFieldError(place, f"expected fields, got {shown_value(content)}")
    for name in content:
        if not isinstance(name, str):
            message = f"{shown_value(name)} is not a name; put it in quotes"
            raise ScheduleFieldError(place, message)
        if names is not None and name not in names:
            raise ScheduleFieldError((*place, name), f"unknown field{did_you_mean(name, names)}")
    return content


def _number(value: Any) -> Any:
    """Parse numbers such as `1e12`, which YAML reads as text; return other values unchanged."""
    try:
        number = float(value) if isinstance(value, str) else value
    except ValueError:
        return value
    is_whole = isinstance(number, float) and number.is_integer()
    return int(number) if is_whole else number
