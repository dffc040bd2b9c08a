"""`/v1/archives`: bulk runs by HTTP. What a run is stands in `bulk`, where it may read and write in `roots`."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.requests import HTTPConnection

from colorize.serve.bulk import ArchiveList, ArchiveOrder, ArchiveRun, ArchiveRuns, Started
from colorize.serve.desk import OnDesk
from colorize.serve.roots import Roots
from colorize.serve.schema import errors
from colorize.serve.upload import receive

router = APIRouter(prefix="/v1/archives", tags=["archives"])

MAX_ORDER_BYTES = 64 * 1024
"""Of the body of a request that starts a run: two places of 4,096 characters, however they are escaped, and some words."""

_ORDER: dict[str, Any] = {"requestBody": {"required": True, "content": {"application/json": {"schema": ArchiveOrder.model_json_schema()}}}}


async def runs_of(connection: HTTPConnection, desk: OnDesk) -> ArchiveRuns:
    """The runs of the application that a request came to; nothing of Ray is asked for them before they are needed.

    Async, or two requests in threads could make two of them, whose limits would not know of each other.
    """
    state = connection.app.state
    if not hasattr(state, "archives"):

        def model_of(name: str | None) -> str:
            entry = desk.catalog.find(name)
            return desk.config.model if entry.path is None else str(entry.path)

        config = desk.config
        state.archives = ArchiveRuns(
            Roots(config.archive_roots), limit=config.archive_runs, workers=config.archive_workers, reserved_cpus=config.cpus,
            reserved_gpus=config.gpus, model_of=model_of,
        )  # fmt: skip
    runs: ArchiveRuns = state.archives
    return runs


async def order_of(request: Request, desk: OnDesk) -> ArchiveOrder:
    """The body, read within limits: FastAPI itself would read a body of any size."""
    body = bytearray()
    length = request.headers.get("content-length")
    await receive(request.stream(), length, MAX_ORDER_BYTES, desk.config.upload_seconds, body.extend)
    try:
        return ArchiveOrder.model_validate_json(bytes(body))
    except ValidationError as error:
        raise RequestValidationError([{**one, "loc": one["loc"] or ("body",)} for one in error.errors()]) from error


OnRuns = Annotated[ArchiveRuns, Depends(runs_of)]
OnOrder = Annotated[ArchiveOrder, Depends(order_of)]
RunId = Annotated[str, InPath(max_length=100, description="The run's id.")]


@router.post(
    "",
    summary="Start a bulk run",
    operation_id="startArchive",
    status_code=202,
    responses=errors(400, 404, 408, 413, 422, 503, 504),
    openapi_extra=_ORDER,
)
async def start(order: OnOrder, runs: OnRuns) -> Started:
    """Colours all pictures below a folder or bucket: a Ray job on the service's cluster, which goes on when the service ends.

    Both places must lie within the roots that the operator allows (403). Where as many runs are under way as may be, 429.
    """
    return await runs.start(order)


@router.get("", summary="The bulk runs", operation_id="archives", responses=errors(503))
async def listed(runs: OnRuns) -> ArchiveList:
    """The newest 50, without their failures."""
    return await runs.runs()


@router.get("/{id}", summary="How far a bulk run is", operation_id="archive", responses=errors(404, 422, 503))
async def found(id: RunId, runs: OnRuns) -> ArchiveRun:
    """Its status, its counts, and the first 100 files that failed."""
    return await runs.find(id)


@router.delete("/{id}", summary="End a bulk run", operation_id="cancelArchive", status_code=202, responses=errors(404, 422, 503))
async def cancel(id: RunId, runs: OnRuns) -> Started:
    """What it has done is kept, and the same run again does the rest. Of a run that is over, nothing changes."""
    return await runs.stop(id)
