"""The API's document: what FastAPI derives from the routes, with descriptions and refusals filled in.

Made when somebody asks for it. Having pydantic read the docstrings of fields and FastAPI a
refusal for each route cost 0.6 s at every start of the engine, for a page that few ever open.
"""

from __future__ import annotations

import ast
import inspect
import pkgutil
import textwrap
from importlib import import_module
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from engine import wire


def describe_api(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of `app`."""
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas["ErrorBody"] = TypeAdapter(wire.ErrorBody).json_schema()
    refusal = {
        "description": "Refused; one sentence names the value and the way out.",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}},
    }
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
            operation["responses"] |= {"4XX": refusal, "5XX": refusal}
    for name, fields in field_docs().items():
        properties = schemas.get(name, {}).get("properties", {})
        for field, text in fields.items():
            if field in properties:
                properties[field]["description"] = text
    return document


def field_docs() -> dict[str, dict[str, str]]:
    """Class to field to the docstring beneath it, for every wire model."""
    found: dict[str, dict[str, str]] = {}
    nouns = [import_module(f"{wire.__name__}.{noun.name}") for noun in pkgutil.iter_modules(wire.__path__)]
    for node in (node for noun in nouns for node in ast.parse(inspect.getsource(noun)).body):
        if not isinstance(node, ast.ClassDef):
            continue
        for field, below in zip(node.body, node.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
                and isinstance(below.value.value, str)
            ):
                text = " ".join(textwrap.dedent(below.value.value).split())
                found.setdefault(node.name, {})[field.target.id] = text
    return found
