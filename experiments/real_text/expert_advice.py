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

from pathlib import Path

from expert_advice_runs import TOKENIZER, train_all
from expert_advice_tables import print_tables
from expert_sizes import FOUR
from research_text import asked_of, prepared

from mixopt.corpus import Corpus

READING = """
- Experts tell which domain to raise no better than its share does, rather worse. Raising the domain
  with the fewest tokens to experts of its own gains 0.006 ± 0.017 over any domain, and -0.011 ±
  0.015 over the domain with the smallest share; what the share leaves goes with it by -0.28 (-0.78
  to 0.10).
- Losses do: the domain furthest above its loss under the uniform mixture gains 0.023 ± 0.013 over
  any; over the smallest share 0.007 ± 0.009 is not shown.
- The domain whose router is least certain is the wrong one to raise: -0.039 ± 0.028 against the
  smallest share.
- Underfitting is diagnosed in eight of 21 trainings, always of the domain that has the smallest
  share or one of two that have: it says no more than the share. Raising it by a tenth of the tokens
  gained 0.05 to 0.06 (French), 0.03 (code at 5%) and -0.005 (code at 10%).
- What a diagnosis of collapse proposes lowered the loss in the three trainings that followed one,
  by 0.050 ± 0.072; a domain drawn at random by -0.105 ± 0.426, the one told by losses by 0.021 ±
  0.099. Nothing of that is shown; in six of nine trainings nothing is proposed for the mixture.
- Three seeds of each mixture; 0.39M weights, 100,000 tokens, loss 5.9 of 6.9 nats: early training.
"""


def main() -> None:
    """Train what is missing, or print what there is."""
    asked = asked_of(__doc__)
    if asked.prints:
        print_page(asked.out)
        return
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
