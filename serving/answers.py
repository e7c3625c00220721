"""What answers look like; the OpenAPI document is made from these classes."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class Answer(BaseModel):
    """What every answer says."""

    version: int = Field(description="The version that produced all of this answer.")
    request_id: str = Field(description="Also in the header x-request-id, and in the server's log.")


class Guess(BaseModel):
    """A label and its probability."""

    label: str | int
    probability: float


class Prediction(Guess):
    """The likeliest label of one sample, and the runners-up."""

    top: list[Guess]


class Predictions(Answer):
    """One prediction per sample, in order."""

    predictions: list[Prediction]


class Embeddings(Answer):
    """One vector per sample, in order, in the named space."""

    space: str
    vectors: list[list[float]]


class Found(BaseModel):
    """A row of the gallery; `space` made its vector, `score` is the cosine with the query."""

    id: str
    score: float
    space: str
    payload: dict[str, Any]


class Hits(Answer):
    """Hits per query, best first; `unreadable` names the spaces in the gallery that the version does not read."""

    space: str
    hits: list[list[Found]]
    unreadable: list[str]


class Added(Answer):
    """What was stored, where, and the commit that holds it."""

    space: str
    added: int
    sequence: int


class Removed(Answer):
    """How many of the ids were there, and how many were not."""

    removed: int
    missing: int
    sequence: int


class GalleryState(Answer):
    """What the gallery holds; `unreadable` counts the rows in spaces that the version does not read."""

    version: int | None  # type: ignore[assignment]  # this page answers before anything is live
    rows: int
    by_space: dict[str, int]
    unreadable: int
    sequence: int
    bytes: int


class Refusal(BaseModel):
    """A candidate that was not let in, and why; version is null where the pointer itself could not be read."""

    version: int | None
    sha256: str | None
    reason: str


class Published(BaseModel):
    """One version of the registry, and what the gate said of it."""

    version: int
    report: dict[str, Any] | None


class Versions(Answer):
    """What is live, what can be returned to at once, what was refused, and what the registry holds (newest first)."""

    version: int | None  # type: ignore[assignment]  # this page answers before anything is live
    space: str | None
    labels: int
    retired: list[int]
    rejected: list[Refusal]
    pointer: int | None
    total: int
    versions: list[Published]
