"""Proxies that mixopt ships: a stacked Llama-style decoder, and n-grams."""
