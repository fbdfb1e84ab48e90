"""The HTTP routes by noun: thin, typed, each asking the part of `Engine` that knows."""
