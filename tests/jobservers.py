"""A job server of this process that speaks the protocol of Ray's, web socket included, to test the client of jobs by real connections."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class JobServer:
    """What of Ray's job server is used, with its token, its packages and its jobs."""

    url: str = ""
    token: str = ""
    ray: str = "2.60.0"
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    logs: dict[str, list[str]] = field(default_factory=dict)
    """The pieces of a log; an empty one breaks the connection, once. A log of a job that goes on stays open with `is_open`."""
    is_open: bool = False
    wait_for_log: bool = False
    """A log that is asked for before there is one begins when there is."""
    packages: dict[str, bytes] = field(default_factory=dict)
    uploads: int = 0
    refusals: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)

    def add(self, id: str, status: str, message: str = "", **given: Any) -> None:
        self.jobs[id] = {
            "type": "SUBMISSION", "submission_id": id, "job_id": None, "status": status, "entrypoint": "python x.py", "metadata": {},
            "message": message, "start_time": 1000, "end_time": 3000 if status in ("SUCCEEDED", "FAILED", "STOPPED") else None,
        } | given  # fmt: skip

    @web.middleware
    async def guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        shown = request.headers.get("authorization", "")
        if self.token and not shown:
            return web.Response(status=401, text="Unauthorized: Missing authentication token")
        if self.token and shown != f"Bearer {self.token}":
            return web.Response(status=403, text="Forbidden: Invalid authentication token")
        answer: web.StreamResponse = await handler(request)
        return answer

    async def version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": "4", "ray_version": self.ray, "ray_commit": "x", "session_name": "y"})

    async def package(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if request.method == "PUT":
            self.packages[name] = await request.read()
            self.uploads += 1
        return web.Response(status=200 if name in self.packages else 404)

    async def submit(self, request: web.Request) -> web.Response:
        if self.refusals:
            return web.Response(status=500, text=self.refusals.pop(0))
        order = await request.json()
        self.add(order["submission_id"], "PENDING", **{key: order[key] for key in ("entrypoint", "metadata", "runtime_env")}, order=order)
        return web.json_response({"job_id": order["submission_id"], "submission_id": order["submission_id"]})

    async def list(self, _: web.Request) -> web.Response:
        return web.json_response(list(self.jobs.values()))

    async def one(self, request: web.Request) -> web.StreamResponse:
        id = request.match_info["id"]
        if id not in self.jobs:
            return web.Response(status=404, text=f"Job {id} does not exist")
        if request.method == "POST":
            self.stopped.append(id)
            return web.json_response({"stopped": True})
        return web.json_response(self.jobs[id])

    async def tail(self, request: web.Request) -> web.WebSocketResponse:
        id = request.match_info["id"]
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        while self.wait_for_log and id not in self.logs:
            await asyncio.sleep(0.05)
        for piece in list(self.logs.get(id, [])):
            if not piece:
                self.logs[id].remove(piece)
                assert request.transport
                request.transport.abort()
                return socket
            await socket.send_str(piece)
        while self.is_open and not socket.closed:
            await asyncio.sleep(0.05)
        await socket.close()
        return socket


@contextmanager
def serving(server: JobServer) -> Iterator[JobServer]:
    app = web.Application(middlewares=[server.guard], client_max_size=100 << 20)
    app.add_routes([
        web.get("/api/version", server.version), web.get("/api/packages/gcs/{name}", server.package),
        web.put("/api/packages/gcs/{name}", server.package), web.post("/api/jobs/", server.submit), web.get("/api/jobs/", server.list),
        web.get("/api/jobs/{id}", server.one), web.post("/api/jobs/{id}/stop", server.one),
        web.get("/api/jobs/{id}/logs/tail", server.tail),
    ])  # fmt: skip
    loop, ready = asyncio.new_event_loop(), threading.Event()
    runner = web.AppRunner(app, shutdown_timeout=0.1)

    async def start() -> None:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        ready.set()

    def run() -> None:
        loop.run_until_complete(start())
        loop.run_forever()
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(30)
        yield server
    finally:
        server.is_open = server.wait_for_log = False
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
