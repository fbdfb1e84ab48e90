"""Imports released checkpoints: what a file is, how its tensors are called here, and a model made of it.

Imports no torch: the daemon and a scan use `identify`.
"""
