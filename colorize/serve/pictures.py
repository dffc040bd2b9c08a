"""`POST /v1/colorize`: one picture, answered with itself in colour."""

from io import BytesIO
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Query, Request, Response

from colorize.serve.bundle import ZipStream, safe_name
from colorize.serve.desk import Desk, OnDesk
from colorize.serve.form import KIND, FormReader, is_form
from colorize.serve.schema import BINARY, PICTURES, PictureQuery, each_once, errors
from colorize.serve.upload import PARAMETER, Refusal, receive
from colorize.serve.work import Done, colored

router = APIRouter(tags=["pictures"])

_FORM: dict[str, Any] = {
    "schema": {
        "type": "object",
        "required": ["file"],
        "properties": {
            "file": {"type": "string", "format": "binary", "description": "The picture."},
            "hints": {"type": "string", "description": "As in the query, of any length."},
        },
    }
}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The picture in colour: its format, its size, its lightness. A zip where more than one file is asked for.",
        "content": {**PICTURES, "application/zip": BINARY},
        "headers": {
            "X-Colorize-Model": {"description": "The model's name, percent-encoded.", "schema": {"type": "string"}},
            "X-Colorize-Model-SHA256": {"description": "The digest of its weights.", "schema": {"type": "string"}},
            "X-Colorize-Mean-Confidence": {"description": "0…1: how sure the network is.", "schema": {"type": "number"}},
            "X-Colorize-Batch-Size": {"description": "Pictures that the network was shown together.", "schema": {"type": "integer"}},
            "Server-Timing": {"description": "decode, predict and encode, in ms.", "schema": {"type": "string"}},
        },
    },
    **errors(400, 404, 408, 413, 415, 422, 503),
}


@router.post(
    "/v1/colorize",
    summary="A picture in colour",
    operation_id="colorize",
    response_class=Response,
    responses=_ANSWERS,
    dependencies=[Depends(each_once)],
    openapi_extra={"requestBody": {"required": True, "content": {**PICTURES, "application/octet-stream": BINARY, KIND: _FORM}}},
)
async def colorize(request: Request, query: Annotated[PictureQuery, Query()], desk: OnDesk) -> Response:
    """The body is a JPEG, PNG, TIFF, WebP, JPEG 2000, BMP or PNM file, or a form with such a file."""
    with desk.admitted(), desk.held.hold() as hold:
        body, name, hints = await _received(request, desk, hold)
        if hints is not None and query.hints is not None:
            raise Refusal(422, "hints: are in the form and in the query; send them once", cause=PARAMETER)
        done = await colored(desk, body, query.wish(hints if hints is not None else query.hints), name)
        return Response(headers=_headers(done), **_content(done))


async def _received(request: Request, desk: Desk, hold: Any) -> tuple[bytes, str, bytes | None]:
    """The picture, its name ("" where it has none), and the hints of the form."""
    config, sink = desk.config, BytesIO()
    kind = request.headers.get("content-type", "")
    form = FormReader(kind, sink, fields=("file", "hints"), most=2) if is_form(kind) else None
    take = sink.write if form is None else form.write

    def held(chunk: bytes) -> None:
        hold(len(chunk))
        take(chunk)

    await receive(request.stream(), request.headers.get("content-length"), config.max_body_bytes, config.upload_seconds, held)
    if form is None:
        return sink.getvalue(), "", None
    content, found = sink.getbuffer(), {part.name: part for part in form.parts()}
    if "file" not in found or len(form.parts()) > len(found):
        raise Refusal(400, "the form: must have one part called file, and may have one called hints")
    file, hints = found["file"], found.get("hints")
    body = bytes(content[file.start : file.start + file.size])
    name = safe_name(file.file_name, "").rpartition("/")[2]
    return body, name, None if hints is None else bytes(content[hints.start : hints.start + hints.size])


def _content(done: Done) -> dict[str, Any]:
    files = done.files
    if len(files) == 1:
        _, kind, data = files[0]
        return {"content": data, "media_type": kind}
    bundle = ZipStream()
    pieces: list[bytes] = []
    for name, _, data in files:
        pieces += bundle.add(name, data)
    return {"content": b"".join([*pieces, *bundle.end()]), "media_type": "application/zip"}


def _headers(done: Done) -> dict[str, str]:
    return {
        "X-Colorize-Model": quote(done.model),
        "X-Colorize-Model-SHA256": done.model_sha256,
        "X-Colorize-Mean-Confidence": f"{done.mean_confidence:.4f}",
        "X-Colorize-Batch-Size": str(done.batch_size),
        "Server-Timing": ", ".join(f"{step};dur={1000 * seconds:.1f}" for step, seconds in done.seconds.items()),
    }
