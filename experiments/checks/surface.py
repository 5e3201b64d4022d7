"""What a user meets: commands, options, fields of the files; and the page that lists the fields.

    python experiments/checks/surface.py            # counts
    python experiments/checks/surface.py --write    # docs/fields.md

A field is a name with a value of its own: that of a section is none. Type, default, limits and the
line on each come from the models that check the files, so the page says what an error says.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema
from typer.main import get_command

from mixopt.cli.main import app
from mixopt.config import Config
from mixopt.pretraining import PretrainConfig

PAGE = Path(__file__).resolve().parents[2] / "docs" / "fields.md"
FILES: dict[str, type[BaseModel]] = {"An experiment": Config, "Pretraining": PretrainConfig}
WORDS = {
    "integer": "integer",
    "number": "number",
    "string": "text",
    "boolean": "boolean",
    "null": "null",
}
LIMITS = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
ABOUT = (
    "Made by `python experiments/checks/surface.py --write` from the models that check the files."
    " Integers may be written as `25e9`, `50B` or `1T`; a field without a default may be left"
    " out."
)
Schema = Mapping[str, Any]


class PlainSchema(GenerateJsonSchema):
    """A schema with text for types that pydantic cannot describe, such as a URL."""

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> dict[str, Any]:
        """Return text."""
        return {"type": "string"}


def sections(model: type[BaseModel]) -> Iterator[tuple[str, Schema, list[tuple[str, Schema]]]]:
    """Yield each section of a file once: its place, its schema, and its fields.

    Fields that a section has of another one, as a domain has those of a source, count there alone.
    """
    schema = model.model_json_schema(by_alias=True, schema_generator=PlainSchema)
    known, seen, done = schema.get("$defs", {}), set[str](), list[dict[str, Any]]()
    waiting = [("", schema)]
    while waiting:
        place, section = waiting.pop(0)
        fields = dict(section.get("properties", {}))
        others = {
            name
            for one in done
            if len(one) > 1 and all(fields.get(name) == value for name, value in one.items())
            for name in one
        }
        done.append(fields)
        leaves = [(name, one) for name, one in fields.items() if not list(_references(one))]
        yield place, section, [(name, one) for name, one in leaves if name not in others]
        for name, field in fields.items():
            for reference in _references(field):
                if reference not in seen:
                    seen.add(reference)
                    star = "" if "$ref" in field or _is_optional(field) else ".*"
                    waiting.append((f"{place}.{name}{star}".strip("."), known[reference]))


def _is_optional(field: Schema) -> bool:
    return any("$ref" in one for one in field.get("anyOf", ()))


def _references(field: Any) -> Iterator[str]:
    """Yield the sections that a field has, at any depth."""
    if isinstance(field, dict):
        if "$ref" in field:
            yield field["$ref"].rpartition("/")[2]
        for name, inner in field.items():
            if name != "default":
                yield from _references(inner)
    elif isinstance(field, list):
        for inner in field:
            yield from _references(inner)


def type_text(field: Schema) -> str:
    """Return a type in words."""
    if "anyOf" in field:
        kinds = [type_text(one) for one in field["anyOf"] if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in field or "const" in field:
        return ", ".join(f"`{one}`" for one in field.get("enum", [field.get("const")]))
    if field.get("type") == "array":
        inner = field.get("items") or {"anyOf": field.get("prefixItems", [])}
        return f"list of {type_text(inner)}"
    if field.get("type") == "object":
        inner = field.get("additionalProperties")
        return f"{type_text(inner)} by name" if isinstance(inner, dict) else "fields"
    limits = [f"{sign} {field[name]:g}" for name, sign in LIMITS.items() if name in field]
    return " ".join([WORDS.get(str(field.get("type")), "any"), ", ".join(limits)]).strip()


def default_text(section: Schema, name: str, field: Schema) -> str:
    """Return a default as in the file, or that there is none."""
    if name in section.get("required", ()):
        return "required"
    value = field.get("default")
    return "" if value in (None, [], {}) else f"default `{json.dumps(value)}`"


def page() -> str:
    """Return the page of all fields."""
    lines = ["# Fields of the files", "", ABOUT]
    for title, model in FILES.items():
        lines += ["", f"## {title}"]
        for place, section, fields in sections(model):
            about = " ".join(str(section.get("description", "")).split())
            lines += ["", f"### `{place}`" if place else "### Top level", "", about, ""]
            for name, field in fields:
                kind = ", ".join(
                    filter(None, (type_text(field), default_text(section, name, field)))
                )
                lines.append(f"- `{name}` ({kind}): {field.get('description', '')}")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print counts, or write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="write docs/fields.md")
    if parser.parse_args().write:
        PAGE.write_text(page(), encoding="utf-8")
        return
    commands = get_command(app).commands  # type: ignore[attr-defined]
    options = [
        option
        for command in commands.values()
        for parameter in command.params
        for option in parameter.opts
        if option.startswith("--")
    ]
    print(f"{len(commands)} commands with {len(options)} options")
    for title, model in FILES.items():
        counts = [len(fields) for *_, fields in sections(model)]
        print(f"{title}: {sum(counts)} fields in {len(counts)} sections")


if __name__ == "__main__":
    main()
