"""The ingress deployment: HTTP in and out, checks and limits; `codec` does the work on the picture, the model's replicas the rest.

Knows nothing of networks or pixels. Codecs run in threads, off the event loop, so that `/healthz` and uploads are answered while a
large scan is decoded. `serve.ingress` copies the class with the names that it uses at that moment: what it calls stands above it.
Every answer that is not a picture is JSON; an error is `{"error": reason}`. What a client gets wrong is a 4xx, never a 5xx.
"""

import asyncio
from importlib.metadata import version
from typing import Annotated, Any
from urllib.parse import quote

import torch
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from colorize.errors import PictureError
from colorize.imaging.guard import MAX_PIXELS
from colorize.model.card import DEFAULT_VIVIDNESS, ModelCard
from colorize.model.coloring import note_of
from colorize.model.palette import DecodeSettings
from colorize.serve.codec import Answer, decode, encode
from colorize.serve.config import ServeConfig
from colorize.serve.upload import PixelBudget, Refusal, claimed_pixels, is_supported, read_body

RETRY_SECONDS = 1
"""What Retry-After says when the service is full."""

_MEDIA_TYPES = {"JPEG": "image/jpeg", "PNG": "image/png"}
_PICTURE_SCHEMA: dict[str, Any] = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in _MEDIA_TYPES.values()}
_ERROR_SCHEMA: dict[str, Any] = {
    "application/json": {"schema": {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}}
}
_COLORIZE_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The picture in colour: same format, same size, every pixel's lightness kept.",
        "content": _PICTURE_SCHEMA,
        "headers": {
            "X-Colorize-Model": {"description": "The model's name, percent-encoded.", "schema": {"type": "string"}},
            "X-Colorize-Mean-Confidence": {"description": "0…1: how sure the network is.", "schema": {"type": "number"}},
            "X-Colorize-Batch-Size": {"description": "Pictures that the network was shown together.", "schema": {"type": "integer"}},
        },
    },
    413: {"description": "Too many bytes or too many pixels.", "content": _ERROR_SCHEMA},
    415: {"description": "Not a JPEG or PNG.", "content": _ERROR_SCHEMA},
    422: {"description": "A damaged picture, or a parameter out of range.", "content": _ERROR_SCHEMA},
    503: {"description": "The service is full; Retry-After says when to come back.", "content": _ERROR_SCHEMA},
}


class ColorizeQuery(BaseModel):
    """The query of `POST /v1/colorize`; what is not among these is refused, since a mistyped name would be ignored otherwise."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    vividness: float = Field(default=DEFAULT_VIVIDNESS, ge=0, le=1, allow_inf_nan=False)
    """0 is the most accurate colour, 1 is as colourful as real pictures are."""


app = FastAPI(title="colorize", version=version("colorize"), docs_url=None, redoc_url=None)


@app.exception_handler(Refusal)
async def answer_refusal(request: Request, refusal: Refusal) -> JSONResponse:
    """The service's own refusals."""
    return JSONResponse({"error": refusal.reason}, refusal.status, refusal.headers)


@app.exception_handler(HTTPException)
async def answer_routing_error(request: Request, error: HTTPException) -> JSONResponse:
    """A path that is not there, or a method that it does not have."""
    return JSONResponse({"error": f"{request.method} {request.url.path}: {error.detail.lower()}"}, error.status_code, error.headers)


@app.exception_handler(RequestValidationError)
async def answer_invalid_query(request: Request, error: RequestValidationError) -> JSONResponse:
    """A query parameter that is unknown, no number, or out of range."""
    first = error.errors()[0]
    reason = first["msg"][:1].lower() + first["msg"][1:]
    return JSONResponse({"error": f"{first['loc'][-1]} {str(first['input'])[:40]!r}: {reason}"}, 422)


@app.exception_handler(Exception)
async def answer_failure(request: Request, error: Exception) -> JSONResponse:
    """A fault of this program; Serve logs it."""
    return JSONResponse({"error": "the service failed on this request; its log says why"}, 500)


def _full() -> Refusal:
    return Refusal(503, "the service is full; try again", {"Retry-After": str(RETRY_SECONDS)})


@serve.ingress(app)
class Ingress:
    """One replica of the HTTP side."""

    def __init__(self, config: ServeConfig, card: ModelCard, predictor: DeploymentHandle[Any]) -> None:
        """card: the served model's. predictor: the handle of the deployment of `Predictor`."""
        torch.set_num_threads(1)  # pictures run beside one another, each in one thread
        self._config = config
        self._card = card
        self._predictor = predictor
        self._in_flight = 0
        self._budget = PixelBudget(MAX_PIXELS)

    @app.get("/healthz", summary="Whether the service is up, and with which model")
    async def health(self) -> dict[str, str]:
        """Answers while pictures are worked on, and when the service is full."""
        return {"status": "ok", "model": self._card.name}

    @app.post(
        "/v1/colorize",
        summary="A picture in colour",
        response_class=Response,
        responses=_COLORIZE_ANSWERS,
        openapi_extra={"requestBody": {"required": True, "content": _PICTURE_SCHEMA}},
    )
    async def colorize(self, request: Request, query: Annotated[ColorizeQuery, Query()]) -> Response:
        """The body is a JPEG or PNG file; the answer is the same picture in colour, in the same format."""
        if self._in_flight >= self._config.max_requests:
            raise _full()
        self._in_flight += 1
        try:
            return await self._colorize(request, DecodeSettings(vividness=query.vividness))
        except PictureError as error:
            raise Refusal(422, str(error)) from error
        except (BackPressureError, DeploymentUnavailableError, RayActorError) as error:
            raise _full() from error  # or its replica is being replaced: in either case the same request will do, later
        except ClientDisconnect as error:
            raise Refusal(400, "the picture: the connection ended before its end") from error
        finally:
            self._in_flight -= 1

    async def _colorize(self, request: Request, settings: DecodeSettings) -> Response:
        body = await read_body(request.stream(), request.headers.get("content-length"), self._config.max_body_bytes)
        pixels = claimed_pixels(body)
        if pixels > MAX_PIXELS:
            raise Refusal(413, f"the picture: has {pixels:,} pixels by its header; pictures of up to {MAX_PIXELS:,} are read")
        async with self._budget.hold(pixels):
            try:
                scan, question = await asyncio.to_thread(decode, body, settings, self._card)
            except PictureError as error:
                raise Refusal(422 if is_supported(body) or not body else 415, str(error)) from error
            answer: Answer = await self._predictor.predict.remote(question)
            colored, confidence = await asyncio.to_thread(encode, scan, answer, note_of(self._card, settings))
        headers = {
            "X-Colorize-Model": quote(self._card.name),
            "X-Colorize-Mean-Confidence": f"{confidence:.4f}",
            "X-Colorize-Batch-Size": str(answer.batch_size),
        }
        return Response(colored, media_type=_MEDIA_TYPES[scan.format], headers=headers)
