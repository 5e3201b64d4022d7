"""Units of a trainer's weights, from shares of the tokens and back.

With share w, T tokens in the run, I tokens in the domain and s tokens in a sample:

    sequences   w                  sequences of one length are drawn
    samples     w / s, normalised  documents or rows are drawn, which differ in length
    counts      w T / s            so many samples of each domain
    rows        w T / s            the same, as passes over its I / s rows and a slice of them
    epochs      w T / I            so many passes over each domain
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping

from mixopt.integrations.exports.facts import Facts


class WeightUnit(ABC):
    """What the numbers of a fragment count.

    Attributes:
        name: In one or two words.
        meaning: What a number is, as the header of a fragment says it.
        needs: The options without which it cannot be written.
        divides: Whether a domain's amount is divided among its paths; passes are not.
    """

    name: str
    meaning: str
    needs: tuple[str, ...] = ()
    divides: bool = True

    @abstractmethod
    def amount(self, domain: str, share: float, facts: Facts) -> float:
        """Return the amount of one domain, whose share is above 0; not yet normalised."""

    @abstractmethod
    def tokens(self, domain: str, amount: float, facts: Facts) -> float:
        """Return what is in proportion to the tokens of one domain, from its amount."""

    def whole(self, domain: str, facts: Facts, pieces: int = 1) -> float:
        """Return the amount of one pass over a domain, or over one of its equal pieces."""
        return 1.0

    def amounts(self, shares: Mapping[str, float], facts: Facts) -> dict[str, float]:
        """Return the amount of each domain.

        Raises:
            ConfigError: The unit needs what is not known.
        """
        return {
            name: self.amount(name, share, facts) if share > 0 else 0.0
            for name, share in shares.items()
        }


class Sequences(WeightUnit):
    """Probabilities of sequences of one length: shares of the tokens as they are."""

    name = "share of sequences"
    meaning = "the share of the sequences, all of one length: the share of the tokens"

    def amount(self, domain: str, share: float, facts: Facts) -> float:
        """Return the share."""
        return share

    def tokens(self, domain: str, amount: float, facts: Facts) -> float:
        """Return the amount."""
        return amount


class Samples(WeightUnit):
    """Probabilities of samples that differ in length by domain."""

    name = "share of samples"
    meaning = "the probability of drawing a sample (the share of the tokens / tokens of a sample)"
    needs: tuple[str, ...] = ("--sample-tokens",)

    def amount(self, domain: str, share: float, facts: Facts) -> float:
        """Return what is in proportion to the probability of a sample."""
        return share / facts.sample(domain)

    def tokens(self, domain: str, amount: float, facts: Facts) -> float:
        """Return what is in proportion to the tokens."""
        return amount * facts.sample(domain)

    def amounts(self, shares: Mapping[str, float], facts: Facts) -> dict[str, float]:
        """Return the probability of a sample of each domain, adding up to 1."""
        found = super().amounts(shares, facts)
        total = math.fsum(found.values())
        return {name: amount / total for name, amount in found.items()}


class Counts(WeightUnit):
    """Whole samples of each domain; a domain with a share has at least one."""

    name = "samples"
    meaning = "how many samples are taken (the share of the tokens x tokens / tokens of a sample)"
    needs: tuple[str, ...] = ("--tokens", "--sample-tokens")

    def amount(self, domain: str, share: float, facts: Facts) -> float:
        """Return the number of samples."""
        return float(max(1, round(share * facts.length() / facts.sample(domain))))

    def tokens(self, domain: str, amount: float, facts: Facts) -> float:
        """Return the tokens of so many samples."""
        return amount * facts.sample(domain)

    def whole(self, domain: str, facts: Facts, pieces: int = 1) -> float:
        """Return how many samples a domain, or a piece of it, has; a whole number."""
        return float(max(1, round(facts.size(domain) / facts.sample(domain) / pieces)))


class RowSlices(Counts):
    """Whole samples, written as passes over all of a domain and a slice of it."""

    name = "passes and rows"
    meaning = "passes over all rows of the domain, and a slice of so many rows"
    needs: tuple[str, ...] = ("--tokens", "--inventory", "--sample-tokens")


class Epochs(WeightUnit):
    """Passes over each domain."""

    name = "epochs"
    meaning = "the passes over the domain (the share of the tokens x tokens / the domain's tokens)"
    needs: tuple[str, ...] = ("--tokens", "--inventory")
    divides = False

    def amount(self, domain: str, share: float, facts: Facts) -> float:
        """Return the passes."""
        return share * facts.length() / facts.size(domain)

    def tokens(self, domain: str, amount: float, facts: Facts) -> float:
        """Return the tokens of so many passes."""
        return amount * facts.size(domain)
