"""The OpenAPI document: BentoML's own, with every route we serve, typed, with examples and the one error format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field
from pydantic.json_schema import models_json_schema

from serving.problems import MEDIA_TYPE

REFERENCE = "#/components/schemas/{model}"
Document = dict[str, Any]


class ProblemBody(BaseModel):
    """Every refusal (RFC 9457); less than 1 KB."""

    type: str = Field(description="about:blank, or urn:lifelong:error: and the name of the error")
    title: str
    status: int
    detail: str = Field(description="What is wrong, what was got, what to do; one line.")
    version: int | None = Field(description="The live version, null if there is none.")
    request_id: str


POSTED = (400, 408, 409, 413, 415, 429, 503, 504)
FETCHED = (429, 503)


def complete(
    document: Document,
    posts: Mapping[str, tuple[type[BaseModel], type[BaseModel]]],
    gets: Mapping[str, tuple[type[BaseModel] | None, str]],
) -> Document:
    """Return `document` with our routes in full.

    Args:
        document: What BentoML generated.
        posts: Request and answer of each POST route.
        gets: Answer (None: not JSON) and description of each GET route.
    """
    answers = [answer for answer, _ in gets.values() if answer is not None]
    models = [model for pair in posts.values() for model in pair] + answers + [ProblemBody]
    _, schemas = models_json_schema([(model, "validation") for model in models], ref_template=REFERENCE)
    paths = {path: item for path, item in document["paths"].items() if path not in posts and path != "/healthz"}
    for path, (form, answer) in posts.items():
        body = {"required": True, "content": {"application/json": {"schema": _reference(form)}}}
        paths[path] = {"post": _operation(path, form.__doc__ or "", _reference(answer), POSTED) | {"requestBody": body}}
    for path, (found, meaning) in gets.items():
        paths[path] = {"get": _operation(path, meaning, _reference(found) if found else None, FETCHED)}
    return {**document, "openapi": "3.1.0", "paths": paths, "components": {"schemas": schemas["$defs"]}}


def _reference(model: type[BaseModel]) -> Document:
    return {"$ref": REFERENCE.format(model=model.__name__)}


def _operation(path: str, meaning: str, answer: Document | None, errors: tuple[int, ...]) -> Document:
    content = {"application/json": {"schema": answer}} if answer else {"text/plain": {"schema": {"type": "string"}}}
    head = {
        "x-model-version": {"description": "The version that answered, or 'none'.", "schema": {"type": "string"}},
        "x-request-id": {"description": "The client's own, or a new one.", "schema": {"type": "string"}},
    }
    refused = {
        str(status): {"description": "Refused.", "content": {MEDIA_TYPE: {"schema": _reference(ProblemBody)}}}
        for status in errors
    }
    return {
        "operationId": path.strip("/").replace("/", "_"),
        "summary": meaning.strip().splitlines()[0],
        "description": meaning.strip(),
        "responses": {"200": {"description": "Answered.", "headers": head, "content": content}, **refused},
    }
