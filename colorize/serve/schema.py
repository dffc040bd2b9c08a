"""The parts of the OpenAPI document that several routes share: what a picture is, what an error is, and a picture's query."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.requests import HTTPConnection

from colorize.model.card import DEFAULT_VIVIDNESS
from colorize.model.settings import LOWEST_TEMPERATURE, DecodeSettings
from colorize.serve.codec import MEDIA_TYPES, Wish
from colorize.serve.upload import PARAMETER, Refusal

BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
PICTURES: dict[str, Any] = dict.fromkeys(MEDIA_TYPES.values(), BINARY)

_ABOUT = {
    400: "The request, the form or the zip is damaged, or its body ended too early.",
    401: "An API key is missing or wrong.",
    403: "The service has no API keys and was asked from another machine, or by a page of another site.",
    404: "There is no such model, or no such thing.",
    405: "The path has no such method.",
    408: "The body did not arrive in time.",
    413: "Too many bytes, pixels, pages or files.",
    415: "Not a picture of a format that is read.",
    422: "A damaged picture, or a parameter that is unknown, out of range or given twice.",
    429: "Too many requests with this key; Retry-After says when to come back.",
    503: "The service is full; Retry-After says when to come back.",
    504: "Ray's job server did not answer in time: a bulk run may have begun.",
}
_RETRY_AFTER: dict[str, Any] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}


class Error(BaseModel):
    """Every answer that is no success."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    error: str
    """The cause, in one line."""


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error answers of a route, for its `responses`; those of the gate, which every route has, are among them."""
    found: dict[int | str, dict[str, Any]] = {}
    for status in sorted({401, 403, 429, *statuses}):
        found[status] = {"description": _ABOUT[status], "model": Error}
        if status in (429, 503):
            found[status]["headers"] = _RETRY_AFTER
    return found


async def each_once(connection: HTTPConnection) -> None:
    """Raises Refusal 422 where a parameter of the query comes twice: only one of them would be obeyed."""
    query = connection.query_params
    if repeated := [name for name in query if len(query.getlist(name)) > 1]:
        raise Refusal(422, f"{repeated[0][:40]}: is in the query more than once; send it once", cause=PARAMETER)


class BatchQuery(BaseModel):
    """What is wished for of every picture. Other parameters are refused: a mistyped name would be ignored otherwise."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    model: str | None = Field(default=None, max_length=100)
    """The name of a model of `GET /v1/models`; left out: the service's own."""

    vividness: float = Field(default=DEFAULT_VIVIDNESS, ge=0, le=1, allow_inf_nan=False)
    """0 is the most accurate colour, 1 is as colourful as real pictures are."""

    temperature: float | None = Field(default=None, ge=LOWEST_TEMPERATURE, le=1, allow_inf_nan=False)
    """Overrides the model's own: the smaller, the nearer to the likeliest colour."""

    candidates: int = Field(default=1, ge=1, le=12)
    """How many colourings; more than one come as a zip."""

    candidate: int | None = Field(default=None, ge=1, le=12)
    """Only that one of the candidates, from 1."""

    format: Literal["jpeg", "png", "tiff", "webp"] | None = None
    """Of the answer; left out: the picture's own."""

    confidence: Literal["false", "true", "only"] = "false"
    """`true`: a zip with the confidence map beside the picture; `only`: the map itself, a PNG in which white is certain."""

    @model_validator(mode="after")
    def _has_candidate(self) -> Self:
        if self.candidate is not None and self.candidate > self.candidates:
            raise ValueError(f"candidate {self.candidate}: must be at most candidates, which is {self.candidates}")
        return self

    def wish(self, hints: str | bytes | None = None) -> Wish:
        """The same for the codec."""
        settings = DecodeSettings(vividness=self.vividness, temperature=self.temperature, candidates=self.candidates)
        return Wish(
            settings=settings, model=self.model, candidate=self.candidate, format=self.format,
            confidence="no" if self.confidence == "false" else self.confidence, hints=hints,
        )  # fmt: skip


class PictureQuery(BatchQuery):
    """The query of `POST /v1/colorize`."""

    hints: str | None = Field(default=None, max_length=4_000)
    """JSON: `[{"x": 12, "y": 34, "color": "#c04020"}, …]`, in pixels of the upright original. Longer ones go into the form."""
