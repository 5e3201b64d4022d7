from .continued_proxy import ContinuedProxy as ContinuedProxy
