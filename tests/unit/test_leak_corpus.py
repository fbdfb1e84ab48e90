"""The corpus of planted leaks and those who look for them know nothing of each other.

The plants lie in tests/leaks/plants, each a file of its own that a real worker runs; tests/leaks/inside
brings it there, and the rest of tests/leaks asks the engine as any client does.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.unit.test_boundaries import below, imports, modules

CORPUS = Path(__file__).parents[1] / "leaks"
PLANTS = sorted((CORPUS / "plants").glob("*.py"))
ASKS_BY = {
    "engine.wire",
    "engine.leaks.facts",
    "engine.leaks.verdicts",
    "engine.jobs.liveness.read_start_time",
}
"""What the corpus takes of the engine: what its API sends, the facts of a report to judge them again, and a
process's start."""
TELLTALES = re.compile(r"\bplants?_\w|TURBOTUI_TEST|sitecustomize|\btests[./]leaks")


def sources() -> dict[str, str]:
    return {
        name: path.read_text("utf-8")
        for package in ("engine", "turbotui")
        for name, path in modules(package).items()
    }


def test_the_corpus_is_there() -> None:
    assert len(PLANTS) >= 18 and (CORPUS / "inside" / "sitecustomize.py").exists()


def test_no_code_of_ours_knows_of_what_is_planted_by_import_name_or_path() -> None:
    stems = {path.stem for path in PLANTS}
    wrong = []
    for name, source in sources().items():
        found = [target for target in imports(source, name) if below(target, "tests", *stems)]
        # A word in quotes or in a comment would do as well: a detector that looks for `plants_hook`.
        found += TELLTALES.findall(source)
        wrong += [f"{name}: {target}" for target in found]
    assert wrong == []
    assert TELLTALES.search('if "plants_hook" in path'), "which would be seen"


@pytest.mark.parametrize("path", PLANTS, ids=lambda path: path.stem)
def test_a_plant_knows_nothing_of_the_engine(path: Path) -> None:
    found = set(imports(path.read_text("utf-8"), f"plants.{path.stem}"))
    assert not [target for target in found if below(target, "engine", "turbotui", "tests")]


def test_the_corpus_asks_as_any_client_does() -> None:
    wrong = []
    for path in sorted(CORPUS.glob("*.py")):
        for target in imports(path.read_text("utf-8"), f"tests.leaks.{path.stem}"):
            if below(target, "engine") and target != "engine" and not below(target, *ASKS_BY):
                wrong.append(f"{path.name} imports {target}")
            if below(target, "torch", "tests.leaks.plants", "tests.leaks.inside"):
                wrong.append(f"{path.name} imports {target}")
    assert wrong == []
