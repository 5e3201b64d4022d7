"""The errors that mixopt raises on purpose.

    MixoptError
    ├── ConfigError      a YAML file, an override or an argument that cannot be right
    ├── MixtureError     weights that are not a point on the simplex of their domains
    ├── CorpusError      documents, domains and tokenizers
    │   └── ShardError   token shards on disk that are not what their index says
    ├── DesignError      mixtures that cannot be drawn
    │   └── InfeasibleError   constraints that no mixture meets
    ├── TrialsError      tables of mixtures and losses
    ├── SamplerError     a stream of samples that cannot be laid out, changed or resumed
    ├── EstimatorError   an estimator that cannot work in this run, or what it is told
    ├── RoutingError     routers that cannot be found, read or counted
    ├── RunError         a run directory that is stale, foreign or cannot be written
    │   └── OtherRankError    on the other ranks of a job, what rank 0 raised and says
    └── PluginError      a proxy, regressor or estimator that cannot be found or loaded

Every message is one line that says what is wrong, the value, where it came from, and how to fix it.
The command line prints it after ``mixopt:`` and exits with 2.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Sequence

# Control characters, halves of surrogate pairs, separators of lines and paragraphs.
_CONTROLS = frozenset({"Cc", "Cs", "Zl", "Zp"})
# Marks that change the direction of the text around them: it would not be what it looks like.
_DIRECTION_MARKS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

LONGEST_MESSAGE = 2000  # characters


def is_control(character: str) -> bool:
    """Tell whether a character ends a line, steers a terminal, or changes how others read."""
    return unicodedata.category(character) in _CONTROLS or character in _DIRECTION_MARKS


def plain_line(text: str) -> str:
    """Return text of unknown origin as one line, its control characters as escapes."""
    if text.isprintable():
        return text
    return "".join(c.encode("unicode_escape").decode("ascii") if is_control(c) else c for c in text)


class MixoptError(Exception):
    """Anything that is wrong with what the user gave, said in one line."""

    def __str__(self) -> str:
        """Return the message on one line of bounded length, whatever names or values are in it."""
        text = plain_line(super().__str__())
        if len(text) <= LONGEST_MESSAGE:
            return text
        return f"{text[: LONGEST_MESSAGE * 3 // 4]} ... {text[-LONGEST_MESSAGE // 4 :]}"


class ConfigError(MixoptError):
    """A YAML file, an override or an argument that cannot be right."""


class MixtureError(MixoptError):
    """Weights that are not a point on the simplex of their domains."""


class CorpusError(MixoptError):
    """Documents, domains or a tokenizer that cannot be used."""


class ShardError(CorpusError):
    """Token shards on disk that are not what their index says."""


class DesignError(MixoptError):
    """Mixtures that cannot be drawn."""


class InfeasibleError(DesignError):
    """Constraints that no mixture meets."""


class TrialsError(MixoptError):
    """A table of mixtures and losses that cannot be used."""


class SamplerError(MixoptError):
    """A stream of samples that cannot be laid out, changed or resumed."""


class EstimatorError(MixoptError):
    """An estimator that cannot work in this run, or an observation that it cannot take."""


class RoutingError(MixoptError):
    """Routers of a mixture of experts that cannot be found, read or counted."""


class RunError(MixoptError):
    """A run directory that is stale, foreign or cannot be written."""


class EditedWarning(UserWarning):
    """A file that mixopt wrote was changed since, and is used as it is now."""


class UnvalidatedWarning(UserWarning):
    """A mixture that was not validated against baselines is written out."""


class OtherRankError(RunError):
    """Rank 0 of a job failed; it reports why, and the other ranks end too."""


class PluginError(MixoptError):
    """A proxy, regressor or estimator that cannot be found or loaded."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` for the nearest known name, else the known names."""
    names = sorted(known)
    near = nearest(name, names)
    if near is not None:
        return f"; did you mean {near!r}?"
    return f"; known: {', '.join(names)}" if names else ""


def nearest(name: str, known: Sequence[str]) -> str | None:
    """Return the known name that somebody may have meant; None where none is near."""
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.6)), None)
