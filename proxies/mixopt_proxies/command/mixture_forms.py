"""The mixture in the form that a trainer reads, where `proxy.mixture_format` names one.

The exporters of mixopt.exports write it: shares, numbers of samples or epochs, whatever is the
trainer's unit. `mixture.yaml` is there in any case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixopt.corpus import Corpus
from mixopt.errors import ConfigError, did_you_mean
from mixopt.exports import EXPORT_TOOLS, export_mixture
from mixopt.mixture import Mixture
from mixopt.system import write_text
from mixopt.trials import Training

MIXTURE = "mixture.yaml"


@dataclass(frozen=True)
class MixtureForm:
    """How a trial's mixture is written.

    Attributes:
        tool: One of the exporters; None for `mixture.yaml` alone.
        paths: The trainer's own data by domain; a domain's name where there is none.
    """

    tool: str | None = None
    paths: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        """Check that the exporter exists."""
        if self.tool is None and self.paths is not None:
            raise ConfigError("proxy.paths: are for proxy.mixture_format; give it too")
        if self.tool is not None and self.tool not in EXPORT_TOOLS:
            near = did_you_mean(self.tool, EXPORT_TOOLS)
            raise ConfigError(f"proxy.mixture_format: unknown tool {self.tool!r}{near}")

    def write(self, folder: Path, mixture: Mixture, corpus: Corpus, training: Training) -> Path:
        """Write a mixture to a trial's folder; return the file that its trainer reads."""
        mixture.to_file(folder / MIXTURE)
        if self.tool is None:
            return folder / MIXTURE
        path = folder / f"mixture_{self.tool}{EXPORT_TOOLS[self.tool].suffix}"
        write_text(path, self._text(mixture, corpus, training))
        return path

    def check(self, corpus: Corpus, training: Training) -> None:
        """Check that a mixture of the corpus's domains can be written."""
        if self.tool is not None:
            self._text(Mixture.uniform(corpus.domain_names), corpus, training)

    def _text(self, mixture: Mixture, corpus: Corpus, training: Training) -> str:
        assert self.tool is not None, "only a tool's form is text of an exporter"
        return export_mixture(
            mixture,
            self.tool,
            inventory=training.inventory or corpus.inventory,
            tokens=training.tokens,
            paths=self.paths,
            sample_tokens=_sample_tokens(corpus),
        )


def _sample_tokens(corpus: Corpus) -> dict[str, float] | None:
    """Return the mean tokens of a document of each domain; None where they are not known."""
    trained = {domain.name: domain.train for domain in corpus.domains}
    found = {n: t.tokens / t.documents for n, t in trained.items() if t is not None and t.documents}
    return found if len(found) == len(trained) else None
