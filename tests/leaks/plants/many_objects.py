"""A hundred thousand live objects, as a large program has them, none with a tensor."""

OBJECTS: list[list[object]] = []


def denoise(*_: object) -> None:
    if not OBJECTS:
        OBJECTS.extend([[], {}] for _ in range(50_000))
