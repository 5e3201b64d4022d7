"""Keep a record in MLflow, without ever waiting for it or failing with it.

The training process appends to files of the run directory, and that is all that it does: wishes in
`tracking.jsonl` (mixopt.tracking.journal), metrics in files of lines. MLflow runs in a process of
its own (mixopt.tracking.process): its start takes seconds, its client retries a dead server for
minutes, and it changes settings of the process that it is in. That process sends what the run
directory wants and the record (`tracking_sent.jsonl`) does not have, in order and once, now or at
the next start, or when `mixopt sync` asks for it.

A sweep is one parent run with a child for each trial; validation is a second one. Pretraining is a
run without children, whose metrics are the lines of `metrics.jsonl`. `RunLog` is the same for any
other training loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt.tracking.datasets import (
        corpus_datasets as corpus_datasets,
        streamed_datasets as streamed_datasets,
    )
    from mixopt.tracking.decision_record import write_gains as write_gains
    from mixopt.tracking.lines import MetricLines as MetricLines
    from mixopt.tracking.run_log import RunLog as RunLog
    from mixopt.tracking.run_steps import (
        code_tags as code_tags,
        open_tracker as open_tracker,
        record_again as record_again,
        tracked as tracked,
    )
    from mixopt.tracking.sending import sync as sync, sync_line as sync_line
    from mixopt.tracking.server_knock import check_reachable as check_reachable
    from mixopt.tracking.step_images import IMAGES as IMAGES
    from mixopt.tracking.tracker import Tracker as Tracker
    from mixopt.tracking.trial_import import RunLayout as RunLayout, import_trials as import_trials
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "datasets": ["corpus_datasets", "streamed_datasets"],
            "decision_record": ["write_gains"],
            "lines": ["MetricLines"],
            "run_log": ["RunLog"],
            "run_steps": ["code_tags", "open_tracker", "record_again", "tracked"],
            "sending": ["sync", "sync_line"],
            "server_knock": ["check_reachable"],
            "step_images": ["IMAGES"],
            "tracker": ["Tracker"],
            "trial_import": ["RunLayout", "import_trials"],
        },
    )
