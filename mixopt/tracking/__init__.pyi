from .datasets import corpus_datasets as corpus_datasets, streamed_datasets as streamed_datasets
from .lines import MetricLines as MetricLines
from .run_log import RunLog as RunLog
from .run_steps import (
    code_tags as code_tags,
    open_tracker as open_tracker,
    record_again as record_again,
    tracked as tracked,
)
from .sending import sync as sync, sync_line as sync_line
from .server_knock import check_reachable as check_reachable
from .step_images import IMAGES as IMAGES
from .tracker import Tracker as Tracker
from .trial_import import RunLayout as RunLayout, import_trials as import_trials
