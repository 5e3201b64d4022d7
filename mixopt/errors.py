"""The errors that mixopt raises on purpose.

    MixoptError
    ├── ConfigError      an invalid YAML file, override or argument
    ├── MixtureError     weights that are not a point on the simplex of their domains
    ├── CorpusError      documents, domains and tokenizers
    │   └── ShardError   token shards on disk that differ from their index
    ├── DesignError      mixtures that cannot be drawn
    │   └── InfeasibleError   constraints that no mixture meets
    ├── TrialsError      tables of mixtures and losses
    ├── SamplerError     a stream of samples that cannot be laid out, changed or resumed
    ├── EstimatorError   an estimator that cannot work in this run, or an invalid observation
    ├── RoutingError     routers that cannot be found, read or counted
    ├── RunError         a run directory that is stale, foreign or cannot be written
    │   └── OtherRankError    on the other ranks of a job, after an error on rank 0
    └── PluginError      a proxy, regressor or estimator that cannot be found or loaded

Every message is one line with the error, the value, its origin, and the fix.
The command line prints it after ``mixopt:`` and exits with 2.
"""

import difflib
import unicodedata
from collections.abc import Iterable, Sequence

# Control characters, surrogates, line and paragraph separators.
_CONTROLS = frozenset({"Cc", "Cs", "Zl", "Zp"})
# Marks that change the direction of the text around them, which can disguise it.
_DIRECTION_MARKS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

LONGEST_MESSAGE = 2000  # characters
MIN_SIMILARITY = 0.62  # of a name that is suggested, in difflib's ratio


def is_control(character: str) -> bool:
    """Return whether a character ends a line, controls a terminal, or reorders other text."""
    return unicodedata.category(character) in _CONTROLS or character in _DIRECTION_MARKS


def plain_line(text: str) -> str:
    """Return untrusted text as one line, with control characters escaped."""
    if text.isprintable():
        return text
    return "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    """Return a control character as an escape sequence, any other unchanged."""
    if is_control(character):
        return character.encode("unicode_escape").decode("ascii")
    return character


class MixoptError(Exception):
    """An error in the user's input, with a message of one line."""

    def __str__(self) -> str:
        """Return the message as one line of bounded length, whatever values it contains."""
        text = plain_line(super().__str__())
        if len(text) <= LONGEST_MESSAGE:
            return text
        return f"{text[: LONGEST_MESSAGE * 3 // 4]} ... {text[-LONGEST_MESSAGE // 4 :]}"


ErrorType = type[MixoptError]


class ConfigError(MixoptError):
    """An invalid YAML file, override or argument."""


class MixtureError(MixoptError):
    """Weights that are not a point on the simplex of their domains."""


class CorpusError(MixoptError):
    """Documents, domains or a tokenizer that cannot be used."""


class ShardError(CorpusError):
    """Token shards on disk that differ from their index."""


class DesignError(MixoptError):
    """Mixtures that cannot be drawn."""


class InfeasibleError(DesignError):
    """Constraints that no mixture meets."""


class TrialsError(MixoptError):
    """A table of mixtures and losses that cannot be used."""


class SamplerError(MixoptError):
    """A stream of samples that cannot be laid out, changed or resumed."""


class EstimatorError(MixoptError):
    """An estimator that cannot work in this run, or an invalid observation."""


class RoutingError(MixoptError):
    """Routers of a mixture of experts that cannot be found, read or counted."""


class RunError(MixoptError):
    """A run directory that is stale, foreign or cannot be written."""


class EditedWarning(UserWarning):
    """A file that mixopt wrote was edited; the edited version is used."""


class UnvalidatedWarning(UserWarning):
    """A mixture is written out that was not validated against baselines."""


class OtherRankError(RunError):
    """Rank 0 of a job failed and reports the error; the other ranks stop too."""


class PluginError(MixoptError):
    """A proxy, regressor or estimator that cannot be found or loaded."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` for the nearest known name, else the known names."""
    names = sorted(known)
    near = nearest(name, names)
    if near is not None:
        return f"; did you mean {near!r}?"
    if not names:
        return ""
    return f"; known: {', '.join(names)}"


def nearest(name: str, known: Sequence[str]) -> str | None:
    """Return the closest known name; None: none is close."""
    matches = difflib.get_close_matches(name, known, n=1, cutoff=MIN_SIMILARITY)
    return matches[0] if matches else None
