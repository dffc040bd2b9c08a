"""What is asked about the service itself: whether it is up, whether it is ready, which models it has, its measurements."""

import asyncio
import math
import time
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, ConfigDict
from starlette.requests import HTTPConnection

from colorize.errors import ModelError
from colorize.model.settings import DecodeSettings
from colorize.serve import meter
from colorize.serve.codec import Question
from colorize.serve.desk import Network, OnDesk
from colorize.serve.schema import errors
from colorize.serve.upload import Refusal, full

router = APIRouter(tags=["service"])

READY_SECONDS = 5.0
"""How long the model may take for an answer before the service counts as not ready."""


KEPT_SECONDS = 1.0
"""How long its answer is kept: nothing else bounds how often those without a key may ask."""


class Readiness:
    """Whether the network answers; all who want to know at a time share one question."""

    def __init__(self) -> None:
        self._asking: asyncio.Task[bool] | None = None
        self._answered = -math.inf

    async def holds(self, network: Network) -> bool:
        """Whether it has answered, now or less than KEPT_SECONDS ago."""
        if self._asking is None or (self._asking.done() and time.monotonic() - self._answered >= KEPT_SECONDS):
            self._asking = asyncio.create_task(self._ask(network))
        return await asyncio.shield(self._asking)  # who goes away takes nobody else's answer along

    async def _ask(self, network: Network) -> bool:
        question = Question(L16_hw=np.full((32, 32), 32768, np.uint16), settings=DecodeSettings())
        try:
            async with asyncio.timeout(READY_SECONDS):
                await network.predict(question)
        except Exception:  # noqa: BLE001 - whatever it is, the service is not ready
            return False
        finally:
            self._answered = time.monotonic()
        return True


async def readiness_of(connection: HTTPConnection) -> Readiness:
    """That of the application that a request came to."""
    state = connection.app.state
    if not hasattr(state, "readiness"):
        state.readiness = Readiness()
    readiness: Readiness = state.readiness
    return readiness


class Health(BaseModel):
    """The answer of `/healthz` and of `/readyz`."""

    status: str
    """`ok`."""


class ModelAnswer(BaseModel):
    """A model that may be asked."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    name: str
    """What `?model=` takes."""
    sha256: str
    """The digest of its weights."""
    parameters: int
    working_size: int
    """The short side of what the network sees, in pixels."""
    loaded: bool
    """Whether a replica has it in memory; the first question to another takes about a second longer."""


class Models(BaseModel):
    """The answer of `GET /v1/models`."""

    default: str
    """The name of the model that answers where none is named."""
    models: list[ModelAnswer]


@router.get("/healthz", summary="Whether the service is up", operation_id="health")
async def health() -> Health:
    """Answers while pictures are worked on, and when the service is full."""
    return Health(status="ok")


@router.get("/readyz", summary="Whether the model answers", operation_id="ready", responses=errors(503))
async def ready(desk: OnDesk, readiness: Annotated[Readiness, Depends(readiness_of)]) -> Health:
    """Asks the model about a small picture, once a second at the most, whoever wants to know: 503 while it does not answer."""
    if not await readiness.holds(desk.network):
        raise full("the model does not answer")
    return Health(status="ok")


@router.get("/v1/models", summary="The models", operation_id="models", responses=errors(503))
async def models(desk: OnDesk) -> Models:
    """The service's own, those that ship with it, and those that its operator added."""
    try:
        async with asyncio.timeout(READY_SECONDS):
            loaded = set(await desk.network.loaded())
    except TimeoutError as error:
        raise full("the model does not answer") from error
    found = []
    for name in await asyncio.to_thread(desk.catalog.names):
        try:
            card = (await asyncio.to_thread(desk.catalog.find, name)).card
        except ModelError:  # its file is damaged: it cannot be asked, and so it is not there
            continue
        found.append(
            ModelAnswer(
                name=name, sha256=card.weights_sha256, parameters=card.parameters, working_size=card.working_size, loaded=name in loaded
            )
        )
    return Models(default=desk.catalog.own.name, models=found)


@router.get(
    "/metrics",
    summary="Measurements for Prometheus",
    operation_id="metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **errors(503)},
)
async def metrics(desk: OnDesk) -> Response:
    """The series of all replicas, each with the replica that it is of."""
    try:
        async with asyncio.timeout(READY_SECONDS):
            measured = await desk.network.measured()
    except TimeoutError as error:
        raise Refusal(503, "the replicas do not answer", {"Retry-After": "5"}) from error
    return Response(meter.page(measured.items()), media_type=meter.MEDIA_TYPE)
