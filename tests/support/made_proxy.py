"""An object with the methods of a proxy, which is no class."""

from mixopt_proxies.ngram import NgramProxy

made = NgramProxy()
