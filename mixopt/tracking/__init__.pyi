from .outcomes import (
    NOTE as NOTE,
    code_tags as code_tags,
    open_tracker as open_tracker,
    sync as sync,
    sync_line as sync_line,
    tracked as tracked,
)
from .record import MetricLines as MetricLines
from .sender import IMAGES as IMAGES
from .tracker import RunLog as RunLog, Tracker as Tracker
