"""Do experts tell which domain to raise, and does the change that a diagnosis proposes help?

    python experiments/real_text/expert_advice.py --data ../shared/data/corpus --out runs/advice
    python experiments/real_text/expert_advice.py --out runs/advice --print \
        > experiments/real_text/results_expert_advice.md

Of a model whose experts do divide four domains (expert_sizes.py), seven mixtures are trained: the
uniform one, which is nearly that of all text there is; three that starve a domain or more; two that
one domain fills; and one that was drawn. From each, the share of each domain in turn is raised by a
tenth of all tokens, the others in proportion: so what any rule would have gained is known, where a
rule raises one domain by what the training before showed. Held-out loss is the mean of the domains.

Besides, routers are not balanced, so that they are diagnosed as collapsed, and what the diagnosis
proposes is trained: beside no change, and a domain raised by as much that is drawn, or whose loss
is furthest above that of the uniform mixture. Three seeds each; what is finished is a file and is
not trained again, and tables are of what is finished.

The folder holds <domain>/train.parquet and <domain>/validation.parquet with a column `text`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from expert_advice_runs import TOKENIZER, train_all
from expert_advice_tables import print_tables
from expert_sizes import FOUR
from research_text import prepared

from mixopt.corpus import Corpus

READING = """
- Experts tell which domain to raise no better than its share does. Raising the domain with the
  fewest tokens to experts of its own gains 0.018 ± 0.021 over any domain, but -0.002 ± 0.007 over
  the domain with the smallest share; what the share leaves goes with it by 0.11 (-0.48 to 0.51).
- Losses do: the domain furthest above its loss under the uniform mixture gains 0.027 ± 0.016 over
  any, and 0.007 ± 0.007 over the smallest share.
- The domain whose router is least certain is the wrong one to raise: -0.040 ± 0.033.
- Diagnosed underfitting (three of eight trainings) raises a rare domain, which its share says too.
- What a diagnosis of collapse proposes lowered the loss in both trainings that followed one (-0.019
  and -0.077). By loss was better in one (-0.066), worse in the other (-0.009). Two are no evidence;
  in six of nine trainings nothing is proposed for the mixture.
- One seed of each mixture, two of the uniform one; 0.39M weights, 100,000 tokens, loss 5.9 of 6.9
  nats: early training. Diagnoses are those of the thresholds at the time of the run.
"""


def main() -> None:
    """Train what is missing, or print what there is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--print", action="store_true", dest="prints")
    asked = parser.parse_args()
    if asked.prints:
        print_page(asked.out)
        return
    if asked.data is None:
        parser.error("--data: the folder of the text")
    corpus = Corpus.open(prepared(asked.data, asked.out / "corpus", FOUR, TOKENIZER))
    train_all(corpus, asked.out)


def print_page(out: Path) -> None:
    """Print the page."""
    print("# Do experts tell what to do about the mixture?\n")
    print("\n\n".join(part.replace("\n", " ") for part in __doc__.split("\n\n")[2:4]) + "\n")
    print(
        "Commands: `python experiments/real_text/expert_advice.py --data FOLDER --out"
        " runs/advice`, and the same"
    )
    print("with `--print`. Losses in nats per token; ± is half of a 95% interval.\n")
    print("## Reading\n" + READING)
    print_tables(out)


if __name__ == "__main__":
    main()
