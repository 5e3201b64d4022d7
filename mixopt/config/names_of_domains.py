"""Names that a domain cannot have: its folder would be another one, or none."""

from __future__ import annotations

from mixopt.system import name_fault, shown_name

RESERVED = ("index.json", "tokenizer.json", "spools", "tasks")  # the corpus's own


def folder_fault(name: str) -> str | None:
    """Return what is wrong with a name of a domain, as that of a folder of a corpus."""
    fault = "the corpus uses a file of this name" if name in RESERVED else name_fault(name)
    if fault is None:
        return None
    return f"{shown_name(name)} cannot be the name of a folder: {fault}; rename it"
