from .adapters import FoundRouter as FoundRouter, RouterAdapter as RouterAdapter
from .counting import Counting as Counting
from .finding import find_routers as find_routers, suspected_experts as suspected_experts
from .open_batch import token_domains as token_domains
from .probe import Probe as Probe
from .reduction import Expected as Expected
