"""TurboDiffusion's mathematics in plain PyTorch, written from its description and before the engine's nets.

Nothing here imports `engine` and nothing of `engine` imports this: the two agree or a test is red. It is
written to be read, one line for one statement, and is slow. Names are the released checkpoints'.
"""
