"""The application that a replica of the ingress runs: routers, errors, the gate in front.

Every answer that is not a picture, a zip, a page or measurements is JSON; an error is `{"error": reason}`. What a client gets wrong is a
4xx, never a 5xx. A further part of the service is a module with a `router`: an APIRouter whose routes take `desk: OnDesk`
(`colorize.serve.desk`), raise `Refusal` (`colorize.serve.upload`), and describe their errors with `errors(…)` (`colorize.serve.schema`).
"""

from importlib.metadata import version

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from colorize.errors import PictureError, printable
from colorize.serve import archives, batch, pictures, status, stream
from colorize.serve.desk import Desk
from colorize.serve.gate import HEADERS, Gate
from colorize.serve.page import site
from colorize.serve.upload import PARAMETER, Refusal

ROUTERS = (
    pictures.router,
    batch.router,
    archives.router,
    status.router,
    stream.router,
    site.router,
)


def create_app(desk: Desk) -> FastAPI:
    """The application at a desk."""
    app = FastAPI(
        title="colorize",
        version=version("colorize"),
        description='Colour for black-and-white pictures. Every error is `{"error": reason}`.',
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.desk = desk
    for router in ROUTERS:
        app.include_router(router)
    app.add_middleware(Gate, desk=desk)
    app.add_exception_handler(Refusal, _answer_refusal)
    app.add_exception_handler(PictureError, _answer_picture_error)
    app.add_exception_handler(ClientDisconnect, _answer_disconnect)
    app.add_exception_handler(HTTPException, _answer_routing_error)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(Exception, _answer_failure)
    return app


_CAUSES = {
    400: "request",
    403: "forbidden",
    404: "unknown",
    408: "slow",
    413: "too large",
    415: "format",
    422: "damaged",
    429: "rate",
    503: "full",
    504: "late",
}


async def _answer_refusal(request: Request, error: Exception) -> JSONResponse:
    """The service's own refusals."""
    assert isinstance(error, Refusal), "registered for those"
    request.app.state.desk.meter.failed(error.cause or _CAUSES.get(error.status, "request"))
    return JSONResponse({"error": printable(error.reason)}, error.status, error.headers)


async def _answer_picture_error(request: Request, error: Exception) -> JSONResponse:
    return await _answer_refusal(request, Refusal(422, str(error)))


async def _answer_disconnect(request: Request, error: Exception) -> JSONResponse:
    return await _answer_refusal(request, Refusal(400, "the body: the connection ended before its end"))


async def _answer_routing_error(request: Request, error: Exception) -> JSONResponse:
    """A path that is not there, or a method that it does not have."""
    assert isinstance(error, HTTPException), "registered for those"
    path = printable(request.url.path)[:80]
    return JSONResponse({"error": f"{request.method[:20]} {path}: {error.detail.lower()}"}, error.status_code, error.headers)


async def _answer_invalid(request: Request, error: Exception) -> JSONResponse:
    """A parameter that is unknown, no number, or out of range."""
    assert isinstance(error, RequestValidationError), "registered for those"
    first = error.errors()[0]
    if first["type"] == "value_error":  # of our own, which names everything
        return await _answer_refusal(request, Refusal(422, str(first["ctx"]["error"]), cause=PARAMETER))
    reason = first["msg"][:1].lower() + first["msg"][1:]
    given = f" {str(first['input'])[:40]!r}" if isinstance(first.get("input"), str | int | float) else ""
    return await _answer_refusal(request, Refusal(422, f"{str(first['loc'][-1])[:40]}{given}: {reason}", cause=PARAMETER))


async def _answer_failure(request: Request, error: Exception) -> JSONResponse:
    """A fault of this program; Serve logs it."""
    request.app.state.desk.meter.failed("fault")
    return JSONResponse({"error": "the service failed on this request; its log says why"}, 500, HEADERS)
