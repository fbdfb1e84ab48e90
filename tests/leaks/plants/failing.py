"""A stage that fails with a large local, and an error that is kept: the engine lets go of its frames."""

import torch

ERRORS: list[RuntimeError] = []


def decode(*_: object) -> None:
    scaled = torch.zeros(2 * 1024, 1024)
    error = RuntimeError(f"{scaled.numel()} numbers are not what was expected")
    ERRORS.append(error)
    raise error
