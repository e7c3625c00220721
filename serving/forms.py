"""What requests and answers look like; the OpenAPI document is made from these classes.

Request fields are declared loosely and checked by `decode.py`: a million bad values must cost one short
400 and not a million validation messages.
"""

from __future__ import annotations

import difflib
from typing import Annotated, Any, ClassVar, Self

import bentoml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, WithJsonSchema

from lifelong.errors import DataError
from serving import decode

ROWS = {"type": "array", "minItems": 1, "items": {}}
X = Annotated[
    Any, WithJsonSchema({**ROWS, "description": "Samples in the model's input shape, or flat; or one sample."})
]
Vectors = Annotated[Any, WithJsonSchema({**ROWS, "description": "Embeddings as `/v1/embed` returned them."})]
Ids = Annotated[Any, WithJsonSchema({**ROWS, "items": {"type": ["string", "integer"]}, "description": "Distinct ids."})]
Whole = Annotated[Any, WithJsonSchema({"type": "integer", "minimum": 1})]
Where = Annotated[Any, WithJsonSchema({"type": "object", "description": "Payload keys and the values they must have."})]
Payload = Annotated[
    Any, WithJsonSchema({"type": "array", "items": {"type": "object"}, "description": "One object per id."})
]


class Form(bentoml.IODescriptor):  # type: ignore[misc]  # bentoml is untyped
    """A request body whose fields are known and whose values are not checked yet."""

    model_config = ConfigDict(extra="forbid")
    __root_input__: ClassVar[bool] = True  # bentoml: hand over the form, not its fields
    _request_id: str = PrivateAttr(default="")

    @classmethod
    def read(cls, body: bytes, request_id: str = "") -> Self:
        """Return the form in a JSON `body`.

        Args:
            body: UTF-8.
            request_id: Goes into the answer.

        Raises:
            DataError: Not a JSON object, a field is missing, or one is not known (the message names the nearest).
        """
        given = decode.document(body)
        for name in given:
            if name not in cls.model_fields:
                near = difflib.get_close_matches(name[:64], cls.model_fields, n=1, cutoff=0.5)
                hint = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(cls.model_fields)}"
                raise DataError(f"there is no field {name[:64]!r}; {hint}")
        missing = [name for name, field in cls.model_fields.items() if field.is_required() and name not in given]
        if missing:
            raise DataError(f"the field {missing[0]!r} is missing; it is required")
        form: Self = cls.model_construct(**given)
        form._request_id = request_id
        return form

    @property
    def request_id(self) -> str:
        """Id of the request that brought this form."""
        return self._request_id

    @classmethod
    async def from_http_request(cls, request: Any, serde: Any) -> Form:  # noqa: ANN401, ARG003 - bentoml's hook
        """Return the form that the edge has read already."""
        form: Form = request.scope["lifelong"].form
        return form


class PredictForm(Form):
    """Samples to classify."""

    x: X
    top_k: Whole = Field(default=1, description="How many labels to return per sample, likeliest first.")

    model_config = ConfigDict(json_schema_extra={"example": {"x": [[0.0, 0.5, 1.0]], "top_k": 3}})


class EmbedForm(Form):
    """Samples to embed."""

    x: X

    model_config = ConfigDict(json_schema_extra={"example": {"x": [[0.0, 0.5, 1.0]]}})


class SearchForm(Form):
    """Queries: either samples `x`, or `vectors` together with the `space` that made them."""

    x: X = None
    vectors: Vectors = None
    space: str | None = Field(default=None, description="The space that `/v1/embed` named; needed with `vectors`.")
    k: Whole = Field(default=10, description="How many hits to return per query, best first.")
    where: Where = None

    model_config = ConfigDict(json_schema_extra={"example": {"x": [[0.0, 0.5, 1.0]], "k": 5, "where": {"shop": "a"}}})


class AddForm(Form):
    """Samples to embed with the live model and to store; ids that exist are overwritten."""

    ids: Ids
    x: X
    payload: Payload = None

    model_config = ConfigDict(
        json_schema_extra={"example": {"ids": ["a-1"], "x": [[0.0, 0.5, 1.0]], "payload": [{"shop": "a"}]}}
    )


class RemoveForm(Form):
    """Ids to forget."""

    ids: Ids

    model_config = ConfigDict(json_schema_extra={"example": {"ids": ["a-1", "a-2"]}})


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
    unreadable_rows: int = Field(description="Rows in those spaces: nothing was found among them.")


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
    level: str | None = Field(description="patch, minor, major (old rows cannot be read), or null: nobody judged it.")
    report: dict[str, Any] | None


class Versions(Answer):
    """What is live, what can be returned to at once, what was refused, and what the registry holds (newest first)."""

    version: int | None  # type: ignore[assignment]  # this page answers before anything is live
    space: str | None
    level: str | None
    labels: int
    unreadable: int = Field(description="Rows of the gallery in spaces that the live version does not read.")
    health: dict[str, float] = Field(description="Figures of the live version's embedding, as the gate found them.")
    retired: list[int]
    rejected: list[Refusal]
    pointer: int | None
    total: int
    versions: list[Published]
