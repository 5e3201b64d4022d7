"""Built-in proxies: a stacked Llama-style decoder, continued checkpoints, commands and n-grams."""
