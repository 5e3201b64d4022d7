from .outcomes import code_tags as code_tags, sync as sync, tracked as tracked
from .record import Tracker as Tracker
