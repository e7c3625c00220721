"""What answers look like; the OpenAPI document is made from these classes."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class Status(BaseModel):
    """What every answer says, also before anything is live."""

    version: int | None = Field(description="The live version of the worker that answered; null if there is none.")
    request_id: str = Field(description="Also in the header x-request-id, and in the server's log.")


class Answer(Status):
    """What every answer of a model says."""

    version: int = Field(description="The version that produced all of this answer.")


class Guess(BaseModel):
    """A label and its probability."""

    label: str | int
    probability: float


class Prediction(Guess):
    """The likeliest label of one sample, and the runners-up; `id` is for feedback, null unless it was asked for."""

    id: str | None = None
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
    unreadable_rows: int = Field(description="Rows in those spaces: nothing was found among them.")


class Written(Answer):
    """What every answer to a write says; the number is also in the header x-gallery-sequence."""

    sequence: int = Field(description="Of the gallery's newest change: who sends it along sees this one.")


class Added(Written):
    """What was stored, where, and the commit that holds it."""

    space: str
    added: int


class Removed(Written):
    """How many of the ids were there, and how many were not."""

    removed: int
    missing: int


class Stored(BaseModel):
    """A row of the gallery as it is stored; `vector` is null unless it was asked for."""

    id: str
    sequence: int
    space: str
    payload: dict[str, Any]
    vector: list[float] | None


class Rows(Answer):
    """The rows that are there, in the order of the ids, and how many are not."""

    rows: list[Stored]
    missing: int


class Moved(Status):
    """Which version the registry names now, and which before; `version` answered this."""

    live: int
    previous: int | None
    sequence: int


class Trial(BaseModel):
    """A version beside the live one, and what the worker that answers has seen of it."""

    version: int
    share: float
    seen: dict[str, float]


class Worker(BaseModel):
    """One process of this server: what is live in it, what it can switch to, and what it did not let in."""

    pid: int
    version: int | None
    rollout: int
    ready: list[int]
    refused: dict[str, str]


class RolloutState(Status):
    """What is tried beside the live version, the limits of the canary, and the workers of this server."""

    sequence: int
    live: Trial | None
    canary: Trial | None
    shadow: Trial | None
    limits: dict[str, float]
    workers: list[Worker]


class Labelled(Status):
    """What became of the labels; `unknown` are ids of predictions that are not (or no longer) remembered."""

    accepted: int
    corrected: int
    duplicate: int
    stale: int
    unknown: list[str]


class Accuracy(BaseModel):
    """Of the predictions of one version that were labelled: how many were right, in all and by true label."""

    version: int
    correct: int
    total: int
    by_label: dict[str, tuple[int, int]]


class Accuracies(Status):
    """What feedback says of each version, newest first, and how much of it no trainer has read yet."""

    versions: list[Accuracy]
    remembered: int
    backlog: int


class GalleryState(Status):
    """What the gallery holds; `unreadable` counts the rows in spaces that the version does not read."""

    rows: int
    by_space: dict[str, int]
    unreadable: int
    sequence: int
    bytes: int


class Refusal(BaseModel):
    """A version that was not let in, by which gate and why; version is null where the pointer could not be read."""

    version: int | None
    sha256: str | None
    gate: str = Field(description="pointer, fetch, build, warm, labels, input or compatibility.")
    reason: str


class Refused(BaseModel):
    """A candidate that the trainer's gate refused: it got no number; gates are the checks that it failed."""

    time: str
    who: str
    gates: list[str]
    reason: str


class Swapped(BaseModel):
    """A version that went live in the worker that answers: when (seconds since 1970), and the seconds of each phase."""

    version: int
    outcome: str
    time: float
    seconds: float
    phases: dict[str, float] = Field(description="fetch, build, warm and flip; only flip where it was held ready.")


class Published(BaseModel):
    """One version of the registry, what became of it, and what the gate said of it."""

    version: int
    state: str = Field(description="candidate, validated, warm, live, retired or rejected.")
    gate: str = Field(description="What rejected it; empty if nothing did.")
    reason: str = Field(description="Why it was rejected; empty if it was not.")
    level: str | None = Field(description="patch, minor, major (old rows cannot be read), or null: nobody judged it.")
    report: dict[str, Any] | None


class Labels(Answer):
    """All labels of the version, in its order: later versions append theirs."""

    labels: list[str | int]


class Versions(Status):
    """What is live, what can be returned to at once, what was refused, and what the registry holds (newest first)."""

    space: str | None
    level: str | None
    labels: int
    unreadable: int = Field(description="Rows of the gallery in spaces that the live version does not read.")
    health: dict[str, float] = Field(description="Figures of the live version's embedding, as the gate found them.")
    retired: list[int]
    rejected: list[Refusal]
    refused: list[Refused]
    swaps: list[Swapped]
    pointer: int | None
    total: int
    versions: list[Published]
