"""A proposal with numbers that are made up."""

from dataclasses import replace

from mixopt.difference import Difference
from mixopt.mixture import Mixture
from mixopt.proposals import Interval, Proposal, Recommendation, Region
from mixopt.proposals.proposal import Stability

DOMAINS = ("code", "prose", "law", "mail")
GAIN = Difference(0.2, 0.1, 0.3, 0.9, "bits_per_byte")
PROPOSAL = Proposal(
    mixture=Mixture({"code": 0.2, "prose": 0.5, "law": 0.3, "mail": 0.0}),
    natural=Mixture({"code": 0.4, "prose": 0.3, "law": 0.2, "mail": 0.1}),
    objective="math",
    unit="bits_per_byte",
    predicted_objective=Interval(1.0, 0.9, 1.1),
    gains={"natural": GAIN, "uniform": GAIN, "best_trial": GAIN},
    best_trial="t007",
    best_observed=1.2,
    losses={"math": Interval(1.0, 0.9, 1.1)},
    epochs={"code": 0.5, "prose": 1.25, "law": 0.75, "mail": 0.0},
    binding=(),
    stability=Stability(5, 0.1, 0.2),
    region=Region(0.01, "seeds", dict.fromkeys(DOMAINS, (0.0, 0.5))),
    warnings=(),
    provenance={"seed": 0},
)


def made_proposal(**fields):
    return replace(PROPOSAL, **fields)


def made_recommendation(**fields):
    """Return the recommendation of a made proposal."""
    made = {"chosen": "proposal", "standing": "significantly better", "why": "why"}
    made |= {"objective": "help", "unit": "bits_per_byte", "tokens": 1000}
    made |= {"mixture": PROPOSAL.mixture, "natural": PROPOSAL.natural}
    made |= {"gains": {}, "predicted_gains": {}, "other_losses": {}, "epochs": None}
    return Recommendation(**made | fields)
