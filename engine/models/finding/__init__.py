"""Looks for models on this host's disks: where other tools keep theirs, and where people put them.

In a process of its own, since a disk may hang. Reads names and headers, no weights; imports no torch.
"""
