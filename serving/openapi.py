"""The OpenAPI document: BentoML's own, with every route we serve, typed, with examples and the one error format."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, Field
from pydantic.json_schema import models_json_schema

from serving.auth import ADMIN
from serving.bodies import NPY, RAW
from serving.exchange import ONCE, SEQUENCE
from serving.forms import Form
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


POSTED = (400, 401, 403, 404, 408, 409, 412, 413, 415, 429, 503, 504)
FETCHED = (400, 401, 403, 412, 429, 503)
HEADS = {
    "x-request-id": "1..64 letters, digits, `.`, `_` or `-`: is in the answer and in the server's log.",
    "x-request-key": "Of a user or a session: decides between live version and canary.",
    "x-model-version": "Answer with this version and no other.",
    ONCE: "Of a step: sent again with the same one, it is not done again. 1..64 letters, digits, `.`, `_` or `-`.",
    SEQUENCE: "See at least this change of the gallery: the number that the answer to a write named.",
}
LARGEST = 1024  # numbers of a sample in an example
SEES = frozenset({"/v1/search", "/v1/gallery/get", "/v1/gallery"})  # who looks at that
KINDS = {"/ui": "text/html", "/ui/events": "text/event-stream"}  # of answers that are neither JSON nor plain text


def complete(
    document: Document,
    posts: Mapping[str, tuple[type[Form], type[BaseModel]]],
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
        kinds = {"application/json": {"schema": _reference(form)}}
        if form.binary:
            kinds |= {kind: {"schema": {"type": "string", "format": "binary"}} for kind in (NPY, RAW)}
        body = {"required": True, "content": kinds}
        paths[path] = {"post": _operation(path, form.__doc__ or "", _reference(answer), POSTED) | {"requestBody": body}}
    for path, (found, meaning) in gets.items():
        paths[path] = {"get": _operation(path, meaning, _reference(found) if found else None, FETCHED)}
    return {**document, "openapi": "3.1.0", "paths": paths, "components": {"schemas": schemas["$defs"]}}


def fitting(document: Document, shape: Sequence[int]) -> Document:
    """Return `document` with examples that can be sent as they are: their samples have the shape of the live version's.

    Large ones (over `LARGEST` numbers) would drown the document, and are left out.
    """
    if math.prod(shape) > LARGEST:
        return document
    schemas = dict(document["components"]["schemas"])
    for name, schema in schemas.items():
        if "x" in schema.get("example", {}):
            schemas[name] = {**schema, "example": {**schema["example"], "x": [_zeros(shape)]}}
    return {**document, "components": {"schemas": schemas}}


def _zeros(shape: Sequence[int]) -> Any:  # noqa: ANN401 - nested lists
    return [_zeros(shape[1:]) for _ in range(shape[0])] if shape else 0.0


def _reference(model: type[BaseModel]) -> Document:
    return {"$ref": REFERENCE.format(model=model.__name__)}


def _operation(path: str, meaning: str, answer: Document | None, errors: tuple[int, ...]) -> Document:
    content = (
        {"application/json": {"schema": answer}}
        if answer
        else {KINDS.get(path, "text/plain"): {"schema": {"type": "string"}}}
    )
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
        "parameters": [
            {"name": name, "in": "header", "required": False, "description": told, "schema": {"type": "string"}}
            for name, told in HEADS.items()
            if (name != SEQUENCE or path in SEES) and (name != ONCE or path.startswith(ADMIN))
        ],
        "responses": {"200": {"description": "Answered.", "headers": head, "content": content}, **refused},
    }
