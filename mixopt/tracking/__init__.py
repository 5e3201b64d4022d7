"""Keep a record in MLflow, without ever waiting for it or failing with it.

The training process appends to files of the run directory, and that is all that it does: wishes in
`tracking.jsonl` (mixopt.tracking.record), metrics in files of lines. MLflow runs in a process of
its own (mixopt.tracking.sender): its start takes seconds, its client retries a dead server for
minutes, and it changes settings of the process that it is in. That process sends what the run
directory wants and the server does not have, in order and once, now or at the next start, or when
`mixopt sync` asks for it.

A sweep is one parent run with a child for each trial; validation is a second one. Pretraining is a
run without children, whose metrics are the lines of `metrics.jsonl`. `RunLog` is the same for any
other training loop.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
