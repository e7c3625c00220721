"""What requests look like; the OpenAPI document is made from these classes.

Request fields are declared loosely and checked by `decode.py`: a million bad values must cost one short
400 and not a million validation messages.
"""

from __future__ import annotations

import difflib
from functools import cached_property
from typing import Annotated, Any, ClassVar, Self

import bentoml
from pydantic import ConfigDict, Field, WithJsonSchema

from lifelong.errors import DataError
from serving import decode
from serving.exchange import Exchange

ROWS = {"type": "array", "minItems": 1, "items": {}}
X = Annotated[
    Any, WithJsonSchema({**ROWS, "description": "Samples in the model's input shape, or flat; or one sample."})
]
Vectors = Annotated[Any, WithJsonSchema({**ROWS, "description": "Embeddings as `/v1/embed` returned them."})]
Ids = Annotated[Any, WithJsonSchema({**ROWS, "items": {"type": ["string", "integer"]}, "description": "Distinct ids."})]
Whole = Annotated[Any, WithJsonSchema({"type": "integer", "minimum": 1})]
Version = Annotated[
    Any, WithJsonSchema({"type": "integer", "minimum": 1, "description": "Answer with this version and no other."})
]
Share = Annotated[Any, WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1})]
Labels = Annotated[
    Any,
    WithJsonSchema(
        {**ROWS, "items": {"type": "object"}, "description": "Objects: prediction, label, and revision if it has one."}
    ),
]
Where = Annotated[Any, WithJsonSchema({"type": "object", "description": "Payload keys and the values they must have."})]
Payload = Annotated[
    Any, WithJsonSchema({"type": "array", "items": {"type": "object"}, "description": "One object per id."})
]


class Form(bentoml.IODescriptor):  # type: ignore[misc]  # bentoml is untyped
    """A request body whose fields are known and whose values are not checked yet."""

    model_config = ConfigDict(extra="forbid")
    __root_input__: ClassVar[bool] = True  # bentoml: hand over the form, not its fields
    binary: ClassVar[bool] = False  # whether samples may also come as bytes
    optional: ClassVar[dict[str, Any]] = {}  # fields that may be left out, and what they are then

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:  # noqa: ANN401 - pydantic's hook
        """Look the defaults up once: there are thousands of requests a second."""
        cls.optional = {name: field.default for name, field in cls.model_fields.items() if not field.is_required()}

    @classmethod
    def read(cls, body: bytes, exchange: Exchange | None = None) -> Self:
        """Return the form in a JSON `body` (UTF-8).

        Raises:
            DataError: Not a JSON object, or as `take`.
        """
        return cls.take(decode.document(body), exchange)

    @classmethod
    def take(cls, given: dict[str, Any], exchange: Exchange | None = None) -> Self:
        """Return the form with these fields.

        Args:
            given: Values by name.
            exchange: The request that brought them.

        Raises:
            DataError: A field is missing, or one is not known (the message names the nearest).
        """
        for name in given:
            if name not in cls.model_fields:
                near = difflib.get_close_matches(name[:64], cls.model_fields, n=1, cutoff=0.5)
                hint = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(cls.model_fields)}"
                raise DataError(f"there is no field {name[:64]!r}; {hint}")
        values = {**cls.optional, **given}
        if len(values) < len(cls.model_fields):
            missing = next(name for name in cls.model_fields if name not in values)
            raise DataError(f"the field {missing!r} is missing; it is required")
        form = cls.__new__(cls)  # what pydantic's `model_construct` does, in a fifth of its time
        object.__setattr__(form, "__pydantic_fields_set__", set(given))
        object.__setattr__(form, "__pydantic_extra__", None)
        object.__setattr__(form, "__pydantic_private__", None)
        form.__dict__.update(values, exchange=exchange or Exchange())
        return form

    @cached_property
    def exchange(self) -> Exchange:
        """The request that brought this form."""
        return Exchange()

    @property
    def request_id(self) -> str:
        """Id of the request that brought this form."""
        return self.exchange.request_id

    @classmethod
    async def from_http_request(cls, request: Any, serde: Any) -> Form:  # noqa: ANN401, ARG003 - bentoml's hook
        """Return the form that the edge has read already."""
        form: Form = request.scope["lifelong"].form
        return form


class PredictForm(Form):
    """Samples to classify."""

    binary: ClassVar[bool] = True
    x: X
    top_k: Whole = Field(default=1, description="How many labels to return per sample, likeliest first.")
    model_version: Version = None
    remember: Any = Field(
        default=False, json_schema_extra={"type": "boolean"}, description="Return an id per prediction, for feedback."
    )

    model_config = ConfigDict(json_schema_extra={"example": {"x": [[0.0, 0.5, 1.0]], "top_k": 3}})


class EmbedForm(Form):
    """Samples to embed."""

    binary: ClassVar[bool] = True
    x: X
    model_version: Version = None

    model_config = ConfigDict(json_schema_extra={"example": {"x": [[0.0, 0.5, 1.0]]}})


class SearchForm(Form):
    """Queries: either samples `x`, or `vectors` together with the `space` that made them."""

    binary: ClassVar[bool] = True
    x: X = None
    vectors: Vectors = None
    space: str | None = Field(default=None, description="The space that `/v1/embed` named; needed with `vectors`.")
    k: Whole = Field(default=10, description="How many hits to return per query, best first.")
    offset: Any = Field(default=0, json_schema_extra={"type": "integer"}, description="Hits to leave out, for paging.")
    where: Where = None
    model_version: Version = None

    model_config = ConfigDict(json_schema_extra={"example": {"x": [[0.0, 0.5, 1.0]], "k": 5, "where": {"shop": "a"}}})


class AddForm(Form):
    """Samples to embed with the live model and to store; ids that exist are overwritten."""

    ids: Ids
    x: X
    payload: Payload = None

    model_config = ConfigDict(
        json_schema_extra={"example": {"ids": ["a-1"], "x": [[0.0, 0.5, 1.0]], "payload": [{"shop": "a"}]}}
    )


class GetForm(Form):
    """Ids to look up."""

    ids: Ids
    vectors: Any = Field(default=False, json_schema_extra={"type": "boolean"}, description="Return the vectors too.")

    model_config = ConfigDict(json_schema_extra={"example": {"ids": ["a-1"], "vectors": False}})


class RemoveForm(Form):
    """Ids to forget."""

    ids: Ids

    model_config = ConfigDict(json_schema_extra={"example": {"ids": ["a-1", "a-2"]}})


class FeedbackForm(Form):
    """Labels of predictions that were remembered: at any time, in any order, again, or corrected."""

    labels: Labels

    model_config = ConfigDict(
        json_schema_extra={"example": {"labels": [{"prediction": "5f2c7d0e9ab14c33a1d2-0", "label": "cat"}]}}
    )


WHY = "For the history; one line."


class PromoteForm(Form):
    """The version that is to be live."""

    version: Whole
    why: str = Field(default="", description=WHY)

    model_config = ConfigDict(json_schema_extra={"example": {"version": 1, "why": "best so far"}})


class RollbackForm(Form):
    """Where to go back to: by default, to the version that was live before."""

    to: Whole = None
    why: str = Field(default="", description=WHY)

    model_config = ConfigDict(json_schema_extra={"example": {"to": 1, "why": "too many wrong hits"}})


class TrialForm(Form):
    """A version to try, and its share of the requests; share 0 ends the trial."""

    version: Whole = None
    share: Share = Field(default=0.0, description="Of the requests, 0..1.")
    why: str = Field(default="", description=WHY)

    model_config = ConfigDict(json_schema_extra={"example": {"share": 0, "why": "seen enough"}})


class ShadowForm(TrialForm):
    """A version that is asked as well and whose answers are compared; share 0 ends it."""


class CanaryForm(TrialForm):
    """A version that answers a share of the requests, and the limits over which it is stopped; share 0 ends it."""

    errors: Share = Field(
        default=0.02, description="Share of its requests that may fail; the live version answers them."
    )
    nans: Any = Field(default=0, json_schema_extra={"type": "integer"}, description="Answers that may be NaN.")
    agreement: Share = Field(
        default=0.0, description="Share of samples on which it must name the live version's label."
    )
    least: Whole = Field(default=50, description="Requests and compared samples before a share counts.")
