"""Changes to the content of a file: of its bytes, or of the values that it holds.

Values are changed inside of JSON and YAML, and in cells of tables. What carries a seal is sealed
anew as often as not, since a seal would hide all that lies behind it.
"""

from __future__ import annotations

import copy
import io
import json
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import polars as pl
import yaml

from mixopt.system import file_record, sealed, write_table

ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 2**63, -(2**63), 10**39, 0.5, -0.0, 1e308, 5e-324),
    *("", "a", "../../a", "/etc/hostname", "a\nb", "\x1b[2J", "\u202e", "x" * 5000, "NaN", "1e999"),
    *([], {}, [None], {"": None}, [[[]]], {"a": {"a": {"a": 1}}}, ["a"] * 100),
)
NOT_JSON = (float("nan"), float("inf"), -float("inf"))


def changed(path: Path, random: Random) -> bytes:
    """Return another content of a file."""
    content = path.read_bytes()
    if random.random() < 0.3:
        return _bytes(content, random)
    change = _OF_SUFFIX.get(path.suffix)
    return _bytes(content, random) if change is None else change(path, random)


def _bytes(content: bytes, random: Random) -> bytes:
    found = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 8))):
        place = random.randrange(len(found) + 1)
        size = random.choice((1, 4, 64, 1024))
        kind = random.randrange(5)
        if kind == 0 and place < len(found):
            found[place] ^= 1 << random.randrange(8)
        elif kind == 1:
            del found[place:]
        elif kind == 2:
            del found[place : place + size]
        elif kind == 3:
            found[place:place] = found[place : place + size]
        else:
            found[place : place + size] = random.randbytes(size)
    return bytes(found)


def _yaml(path: Path, random: Random) -> bytes:
    found = _value(yaml.safe_load(path.read_bytes()), random, NOT_JSON)
    return yaml.safe_dump(found).encode()


def _lines(path: Path, random: Random) -> bytes:
    lines = path.read_bytes().splitlines()
    place = random.randrange(len(lines))
    lines[place] = json.dumps(_value(json.loads(lines[place]), random, NOT_JSON)).encode()
    return b"\n".join(lines)


def _json(path: Path, random: Random) -> bytes:
    content = json.loads(path.read_bytes())
    was_sealed = isinstance(content, dict) and "sha256" in content
    found = _value(content, random, NOT_JSON if random.random() < 0.1 else ())
    if was_sealed and isinstance(found, dict) and random.random() < 0.8:
        with suppress(ValueError):
            found = sealed(found)
    return json.dumps(found).encode()


def _value(content: Any, random: Random, more: tuple[Any, ...]) -> Any:
    """Return plain values of which one is odd, gone, there twice, or one more."""
    found = copy.deepcopy(content)
    holder, key = {"root": found}, "root"
    while isinstance(holder[key], (dict, list)) and holder[key] and random.random() < 0.85:
        holder = holder[key]
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        key = random.choice(list(keys))
    kind = random.randrange(6)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[str(random.choice(ODD))] = random.choice(ODD)
    elif kind == 1:
        holder.append(copy.deepcopy(holder[key]))
    elif kind == 2 and isinstance(holder[key], (int, float)):
        holder[key] = holder[key] * random.choice((-1, 0, 2, 1e9)) + random.choice((0, 1))
    else:
        holder[key] = random.choice((*ODD, *more))
    return holder.get("root") if isinstance(holder, dict) and "root" in holder else found


def _csv(path: Path, random: Random) -> bytes:
    rows = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines()]
    row = random.choice(rows[:3] + rows)
    place = random.randrange(len(row))
    kind = random.randrange(4)
    if kind == 0:
        del row[place]
    elif kind == 1:
        rows.append(row)
    else:
        odd = ("", "nan", "inf", "-1", "1e999", "9" * 400, '"', "a\x00b", "\ud800", "\n", "\u202e")
        row[place] = random.choice(odd)
    return "\n".join(",".join(one) for one in rows).encode("utf-8", "surrogatepass")


def _table(path: Path, random: Random) -> bytes:
    table = pl.read_parquet(path)
    name = random.choice(table.columns)
    odd = random.choice(
        (None, -1, 2**62, float("nan"), float("inf"), "a\nb", "../a", ["a"], b"\xff")
    )
    kind = random.randrange(5)
    if kind == 0:
        table = table.drop(name)
    elif kind == 1:
        table = pl.concat([table, table[:1]])
    elif kind == 2:
        table = table[:0] if random.random() < 0.3 else table[1:]
    elif kind == 3:
        table = table.rename(
            {name: random.choice(("a", "weight/../a", "loss/\n", "weight/", "x" * 300))}
        )
    else:
        table = table.with_columns(pl.lit(odd, allow_object=False).alias(name))
    if random.random() < 0.5:
        stream = io.BytesIO()
        table.write_parquet(stream)
        return stream.getvalue()
    temporary = path.with_suffix(".again")
    write_table(temporary, table)
    content = temporary.read_bytes()
    temporary.unlink()
    return content


def record_again(manifest: Path, changed_file: Path, name: str) -> None:
    """Make a manifest say of a file what that is now, and seal it again."""
    content = json.loads(manifest.read_bytes())
    _replace(content, name, file_record(changed_file).to_json())
    manifest.write_text(json.dumps(sealed(content) if "sha256" in content else content))


def _replace(content: Any, name: str, record: dict[str, Any]) -> None:
    if isinstance(content, dict):
        for key, value in content.items():
            if key == name and isinstance(value, dict) and "sha256" in value:
                content[key] = record
            else:
                _replace(value, name, record)


_OF_SUFFIX = {
    ".json": _json,
    ".yaml": _yaml,
    ".jsonl": _lines,
    ".csv": _csv,
    ".parquet": _table,
}
