"""What a command is about: `MODEL`, `MODEL/COMPONENT`, or nothing for all."""

from __future__ import annotations


def split_target(target: str) -> tuple[str | None, str | None]:
    """Model and component of `target`; both None only where it is empty.

    A slash without a model before it is a mistake that the engine names: it must not mean all.
    """
    model, _, component = target.partition("/")
    if not model and not component:
        return (None if not target else ""), None
    return model or None, component or None
