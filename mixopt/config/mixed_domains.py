"""What cannot be right of domains that are made of several: names of their parts, and where."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from mixopt.config.names_of_domains import folder_fault

if TYPE_CHECKING:
    from mixopt.config.experiment import Config
    from mixopt.config.yaml_sections import Location


def mixed_faults(config: Config) -> Iterable[tuple[Location, str]]:
    """Find parts whose name is taken or no folder's, and sizes of parts that nothing reads."""
    corpus = config.corpus
    if corpus.mixed and corpus.prepared is not None:
        yield (
            ("corpus", "prepared"),
            "a mixed domain is prepared here, from its parts; leave it out",
        )
    taken = {**dict.fromkeys(corpus.domains, "a training domain")}
    taken |= dict.fromkeys(config.evaluation, "a target")
    for name, mixed in corpus.mixed.items():
        place: Location = ("corpus", "domains", name, "mixed", "domains")
        for part in mixed.domains:
            if part in taken:
                message = f"is already the name of {taken[part]}: a part is a target by its name;"
                yield (*place, part), f"{message} rename it"
            fault = folder_fault(part)
            if fault is not None:
                yield (*place, part), fault
            taken[part] = f"a part of {name!r}"
