r"""Items of a task: one JSON object a line, plain, .gz or .zst, checked as they are read.

    {"id": "394", "context": "Question: ...\nAnswer:", "choices": [" a", " b"], "gold": 0}
    {"id": "0", "context": "def f...", "continuation": " return 1"}

`contexts` stands in place of `context` where it differs by choice; `weight` (1) is how much the
item counts; `unconditional` is a context without the question, for choices that are compared by
what the question adds to them. Text stands as it is: nothing is stripped or added.
"""

from __future__ import annotations

import gzip
import hashlib
import heapq
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mixopt.errors import ConfigError, did_you_mean
from mixopt.system import open_zst, shown_name

FIELDS = (
    "id", "context", "contexts", "choices", "gold", "continuation", "weight", "unconditional",
)  # fmt: skip
LONGEST_LINE = 1 << 26  # bytes
LARGEST_WEIGHT = 1e100


@dataclass(frozen=True)
class Item:
    """A question of a task, or a text to continue.

    Attributes:
        id: Its name in the task.
        contexts: What comes before each choice, one a choice.
        choices: The answers; one where only the gold answer is given.
        gold: Position of the right one.
        weight: How much the item counts, > 0.
        unconditional: A context without the question, where the file gives one.
    """

    id: str
    contexts: tuple[str, ...]
    choices: tuple[str, ...]
    gold: int
    weight: float = 1.0
    unconditional: str | None = None

    @property
    def answer(self) -> str:
        """The gold answer."""
        return self.choices[self.gold]

    def to_json(self) -> dict[str, Any]:
        """Return the item as a line of its file has it."""
        content: dict[str, Any] = {"id": self.id}
        same = len(set(self.contexts)) == 1
        content |= {"context": self.contexts[0]} if same else {"contexts": list(self.contexts)}
        if len(self.choices) == 1:
            content["continuation"] = self.choices[0]
        else:
            content |= {"choices": list(self.choices), "gold": self.gold}
        if self.weight != 1.0:
            content["weight"] = self.weight
        if self.unconditional is not None:
            content["unconditional"] = self.unconditional
        return content


def read_items(path: str | Path) -> Iterator[Item]:
    """Give the items of a file, in order.

    Args:
        path: JSON lines; .gz and .zst are unpacked.

    Raises:
        ConfigError: The file cannot be read, has no items, or a line is not an item: the gold
            answer is empty or out of range, or an id appears twice; with file and line.
    """
    path = Path(path).expanduser()
    seen: dict[str, int] = {}
    for number, line in _numbered(path):
        item = _item(line, f"{path}:{number}")
        if item.id in seen:
            raise ConfigError(
                f"{path}:{number}: id {shown_name(item.id)} is also that of line {seen[item.id]} "
                "too; give each item its own"
            )
        seen[item.id] = number
        yield item
    if not seen:
        raise ConfigError(f"{path}: has no items; one JSON object a line")


def chosen_items(items: Iterator[Item], most: int | None) -> list[Item]:
    """Return so many items, by a hash of their ids, in the order of the file.

    Args:
        items: The items of a task.
        most: How many; all when None.
    """
    if most is None:
        return list(items)
    numbered = enumerate(items)
    kept = heapq.nsmallest(most, numbered, key=lambda one: (_place(one[1].id), one[0]))
    return [item for _, item in sorted(kept, key=lambda one: one[0])]


def text_fingerprint(items: Iterable[Item]) -> str:
    """Return sixteen hexadecimal digits of what items ask, whatever they are called."""
    texts = sorted(repr((item.contexts, item.choices, item.gold)) for item in items)
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


def _place(name: str) -> bytes:
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _numbered(path: Path) -> Iterator[tuple[int, bytes]]:
    """Give the lines that are not empty, with their numbers."""
    try:
        with _opened(path) as stream:
            for number, line in enumerate(iter(lambda: stream.readline(LONGEST_LINE), b""), 1):
                if len(line) == LONGEST_LINE:
                    raise ConfigError(f"{path}:{number}: longer than {LONGEST_LINE >> 20} MiB")
                if line.strip():
                    yield number, line
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file (working directory {Path.cwd()})") from error
    except (OSError, EOFError, ValueError, zlib.error) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ConfigError(f"{path}: cannot be read: {reason}") from error


def _opened(path: Path) -> IO[bytes]:
    if path.suffix == ".zst":
        return open_zst(path)
    opener: Any = gzip.open if path.suffix == ".gz" else open
    stream: IO[bytes] = opener(path, "rb")
    return stream


def _item(line: bytes, where: str) -> Item:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where}: invalid UTF-8 at byte {error.start + 1}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: broken JSON: {str(error)[:100]}") from error
    if not isinstance(row, dict):
        raise ConfigError(f"{where}: a {type(row).__name__}; an item is an object")
    for name in row:
        if name not in FIELDS:
            raise ConfigError(f"{where}: unknown field {name!r}{did_you_mean(name, FIELDS)}")
    choices, gold = _choices(row, where)
    contexts = _contexts(row, len(choices), where)
    name = row.get("id")
    if isinstance(name, bool) or not isinstance(name, (str, int)):
        raise ConfigError(f"{where}: id: {name!r}; give each item text or a number of its own")
    name = _text(str(name), f"{where}: id")
    weight = row.get("weight", 1.0)
    number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
    if not number or not 0 < weight < LARGEST_WEIGHT:
        raise ConfigError(f"{where}: weight: {weight!r}; need a number above 0 and below 1e100")
    plain = row.get("unconditional")
    if plain is not None:
        plain = _text(plain, f"{where}: unconditional")
    return Item(name, contexts, choices, gold, float(weight), plain)


def _choices(row: dict[str, Any], where: str) -> tuple[tuple[str, ...], int]:
    if ("choices" in row) == ("continuation" in row):
        raise ConfigError(f"{where}: give choices and gold, or a continuation")
    if "continuation" in row:
        if "gold" in row:
            raise ConfigError(f"{where}: gold: goes with choices; a continuation is the gold one")
        return (_answer(row["continuation"], f"{where}: continuation"),), 0
    given = row["choices"]
    if not isinstance(given, list) or not given:
        raise ConfigError(f"{where}: choices: {str(given)[:40]!r}; need a list of text")
    choices = tuple(_answer(one, f"{where}: choices.{k}") for k, one in enumerate(given))
    gold = row.get("gold")
    if isinstance(gold, bool) or not isinstance(gold, int) or not 0 <= gold < len(choices):
        raise ConfigError(
            f"{where}: gold: {gold!r} is out of range; the choices are numbered from 0 to"
            f" {len(choices) - 1}"
        )
    return choices, gold


def _contexts(row: dict[str, Any], count: int, where: str) -> tuple[str, ...]:
    if ("context" in row) == ("contexts" in row):
        raise ConfigError(f"{where}: give context, or contexts with one for each choice")
    if "context" in row:
        return (_text(row["context"], f"{where}: context"),) * count
    given = row["contexts"]
    if not isinstance(given, list) or len(given) != count:
        raise ConfigError(f"{where}: contexts: need a list of {count}, one for each choice")
    return tuple(_text(one, f"{where}: contexts.{k}") for k, one in enumerate(given))


def _answer(value: object, where: str) -> str:
    text = _text(value, where)
    if not text:
        raise ConfigError(f"{where}: {text!r} is empty: there is nothing to score; leave it out")
    return text


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{where}: {type(value).__name__} {str(value)[:40]!r} is not text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"{where}: invalid UTF-8 at character {error.start + 1}") from error
    return value
