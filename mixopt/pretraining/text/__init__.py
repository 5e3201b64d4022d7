"""Sources of a pretraining run's rows: a prepared corpus, or streams."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt.pretraining.text.corpus_input import (
        batches_of as batches_of,
        corpus_path as corpus_path,
        open_for as open_for,
        prepare_for as prepare_for,
        prepared_folder as prepared_folder,
    )
    from mixopt.pretraining.text.held_out_text import HeldOutText as HeldOutText
    from mixopt.pretraining.text.joined_batches import JoinedBatches as JoinedBatches
    from mixopt.pretraining.text.spanned_batches import SpannedBatches as SpannedBatches
    from mixopt.pretraining.text.stream_input import (
        HELD_OUT as HELD_OUT,
        StreamedText as StreamedText,
    )
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "corpus_input": [
                "batches_of",
                "corpus_path",
                "open_for",
                "prepare_for",
                "prepared_folder",
            ],
            "held_out_text": ["HeldOutText"],
            "joined_batches": ["JoinedBatches"],
            "spanned_batches": ["SpannedBatches"],
            "stream_input": ["HELD_OUT", "StreamedText"],
        },
    )
