"""Text of some domains as tokens, from <domain>/train.parquet and <domain>/validation.parquet."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mixopt.config import CorpusConfig, DomainConfig
from mixopt.corpus import prepare_corpus


def prepared(data: Path, path: Path, domains: Sequence[str], most: int = 8_000_000) -> Path:
    """Prepare some text of each domain, once, and return the corpus's folder.

    Args:
        data: The folder of the domains' folders.
        path: Where the corpus goes.
        domains: Names of the domains.
        most: Bytes of a domain.
    """
    if not (path / "index.json").exists():
        sources = {
            name: DomainConfig(
                path="parquet",
                data_files=str(data / name / "train.parquet"),
                validation=str(data / name / "validation.parquet"),
            )
            for name in domains
        }
        config = CorpusConfig(domains=sources, max_bytes=most)
        prepare_corpus(config, {}, path, fingerprint=" ".join(domains), progress=say)
    return path


def asked_of(description: str, **numbers: int) -> argparse.Namespace:
    """Parse a script's command line: to train (`data`, `out`), or to print.

    Args:
        description: The script's docstring, whose first line is the help.
        **numbers: Further options and what they are when they are left out.
    """
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--print", action="store_true", dest="prints")
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    if options.data is None and not options.prints:
        parser.error("--data: the folder of the text")
    return options


def say(line: str) -> None:
    """Print a line to stderr, apart from the tables."""
    sys.stderr.write(f"{line}\n")
