"""Fetches released models from the Hub into its own cache, in a process of its own.

Goes through huggingface_hub, which is imported late: nothing here is slow to load, and no torch is.
"""
