from .logged_values import LoggedPoint as LoggedPoint, LoggedValues as LoggedValues
from .result_files import find_result as find_result, read_result as read_result
