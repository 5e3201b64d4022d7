"""Conversions from shares of tokens to units of trainers' weights.

With share w, T tokens in the run, I tokens in the domain and s tokens in a sample:

    sequences   w                  draws sequences of equal length
    samples     w / s, normalised  draws documents or rows, which differ in length
    counts      w T / s            number of samples of each domain
    epochs      w T / I            number of passes over each domain
"""

from mixopt.integrations.export_interface import WeightUnit

SEQUENCES = WeightUnit(
    "share of sequences",
    "the share of the sequences, all of one length: the share of the tokens",
    lambda domain, share, facts: share,
)
SAMPLES = WeightUnit(
    "share of samples",
    "the probability of drawing a sample (the share of the tokens / tokens of a sample)",
    lambda domain, share, facts: share / facts.sample(domain),
    needs=("--sample-tokens",),
    normalised=True,
)
COUNTS = WeightUnit(
    "samples",
    "the number of samples (the share of the tokens x tokens / tokens of a sample)",
    lambda domain, share, facts: float(
        max(1, round(share * facts.length() / facts.sample(domain)))
    ),
    needs=("--tokens", "--sample-tokens"),
)
ROW_SLICES = WeightUnit(
    "passes and rows",
    "passes over all rows of the domain, and a slice of rows",
    lambda domain, share, facts: float(
        max(1, round(share * facts.length() / facts.sample(domain)))
    ),
    needs=("--tokens", "--inventory", "--sample-tokens"),
)
EPOCHS = WeightUnit(
    "epochs",
    "the passes over the domain (the share of the tokens x tokens / the domain's tokens)",
    lambda domain, share, facts: share * facts.length() / facts.size(domain),
    needs=("--tokens", "--inventory"),
    divides=False,
)
