"""One engine for everything that is planted here; each test leaves it with a fresh worker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.leaks.field import Field
from tests.leaks.harvest import Harvests


@pytest.fixture(scope="session")
def field(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    """A running engine with the demo models made, in whose worker plants can be grown."""
    field = Field(tmp_path_factory.mktemp("field"))
    try:
        field.start()
        yield field
    finally:
        field.live.close()


@pytest.fixture(scope="session")
def harvests(field: Field) -> Harvests:
    return Harvests(field)
