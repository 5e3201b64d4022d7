from .main import run_command_line as run_command_line
from .options import app as app
