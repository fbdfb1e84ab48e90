"""Memory that was given back while another stream works with it, and that nobody asks for after that."""

import torch

CYCLES = 1_000_000_000
"""Half a second of a GPU's clock."""


def after() -> None:
    side = torch.cuda.Stream()
    x = torch.zeros(16 * 1024, 1024, device="cuda")  # planted
    with torch.cuda.stream(side):
        torch.cuda._sleep(CYCLES)
    x.record_stream(side)
