"""What scoring tasks costs beside training, from the files of items alone.

Reading a token forwards takes a third of the operations of training on it. Tokens are bytes over
`BYTES_PER_TOKEN`, but for the tokenizer `bytes`; `mixopt prepare` says exactly how many there are.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mixopt.system import share_text, short_count

if TYPE_CHECKING:
    from mixopt.config import Config

BYTES_PER_TOKEN = 4  # of English text and vocabularies of tens of thousands
FORWARD = 3  # times less than a step of training


@dataclass(frozen=True)
class ScoringCost:
    """What scoring reads in one trial of the sweep.

    Attributes:
        tasks: How many tasks.
        items: Items of all tasks.
        tokens: Tokens that are read each time, about.
        times: How often a trial is scored.
        share: Operations, of those of a trial's training.
    """

    tasks: int
    items: int
    tokens: int
    times: int
    share: float

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as plain values."""
        return asdict(self)

    def describe(self) -> str:
        """Say what it is in a line."""
        times = "once" if self.times == 1 else f"{self.times} times"
        tasks = "1 task" if self.tasks == 1 else f"{self.tasks} tasks"
        return (
            f"{tasks}, {self.items:,} items, about {short_count(self.tokens)} tokens {times} a"
            f" trial: {share_text(self.share)} of its training"
        )


def scoring_cost(config: Config) -> ScoringCost | None:
    """Read the items of all tasks, and return what scoring them costs; None without tasks.

    Raises:
        ConfigError: A file of items cannot be read, or is wrong.
    """
    from mixopt.config import OF_CHOICES
    from mixopt.corpus import BYTES, plain_name, scored_items

    if config.tasks is None:
        return None
    count = size = 0
    for name in config.tasks.sets:
        items = scored_items(config.tasks, name)
        all_choices = bool(OF_CHOICES & set(config.tasks.metrics(name)))
        for item in items:
            pairs = list(zip(item.contexts, item.choices, strict=True))
            read = pairs if all_choices else [pairs[item.gold]]
            size += sum(len((context + answer).encode()) for context, answer in read)
        count += len(items)
    tokens = (
        size if plain_name(config.corpus.tokenizer) == BYTES else math.ceil(size / BYTES_PER_TOKEN)
    )
    every, trained = config.proxy.eval_every, config.proxy.tokens
    times = math.ceil(trained / every) if every else 1
    share = tokens * times / FORWARD / trained
    return ScoringCost(len(config.tasks.sets), count, tokens, times, share)
