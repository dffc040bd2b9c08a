"""Ray's job server, asked with an end to the waiting, and a job handed to it, which it takes none of for some seconds after its start.

What the job is, is the caller's.
"""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import urlsplit

import requests
from ray.job_submission import JobSubmissionClient

CALL_SECONDS = 60.0
"""How long the job server may take for one answer, or to be ready; and may be gone while a log is followed."""

NOT_READY_SECONDS = 1.0
"""After which a job server that has just started is asked again."""

STOP_SECONDS = 60
"""How long a job that is stopped may take to keep what it has, before Ray kills it."""


def proxies_for(url: str) -> dict[str, str]:
    """What `requests` is to know of proxies: one that the environment names is for other machines, and not asked for this one."""
    host = urlsplit(url).hostname
    return {"no_proxy": host} if host in ("127.0.0.1", "::1", "localhost") else {}


class PatientClient(JobSubmissionClient):
    """Ray's client, which waits CALL_SECONDS for an answer in place of for ever, and asks no proxy for this machine."""

    def _do_request(self, method: str, endpoint: str, **keywords: Any) -> requests.Response:
        options: dict[str, Any] = {"timeout": CALL_SECONDS, "proxies": proxies_for(self._address)}
        response: requests.Response = super()._do_request(method, endpoint, **options | keywords)
        return response


def submit_job(server: JobSubmissionClient, *, runtime_env: dict[str, Any], **job: Any) -> str:
    """Submits a job as soon as the server takes one, and returns its id. Stopped, it has STOP_SECONDS.

    runtime_env and job: as `JobSubmissionClient.submit_job` has them. Raises what that raises.
    """
    variables = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS), **runtime_env.get("env_vars", {})}
    deadline = time.monotonic() + CALL_SECONDS
    while True:
        try:
            return str(server.submit_job(runtime_env=runtime_env | {"env_vars": variables}, **job))
        except RuntimeError as error:
            if "No available agent" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(NOT_READY_SECONDS)
