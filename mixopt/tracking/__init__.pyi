from .outcomes import (
    code_tags as code_tags,
    open_tracker as open_tracker,
    tracked as tracked,
)
from .record import MetricLines as MetricLines
from .sender import IMAGES as IMAGES
from .tracker import RunLog as RunLog, Tracker as Tracker, sync as sync, sync_line as sync_line
