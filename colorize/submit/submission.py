"""A job handed to Ray's job server, which takes none for some seconds after its start. What the job is, is the caller's."""

from __future__ import annotations

import time
from typing import Any

from ray.job_submission import JobSubmissionClient

CALL_SECONDS = 60.0
"""How long the job server may take for one answer, or to be ready; and may be gone while a log is followed."""

NOT_READY_SECONDS = 1.0
"""After which a job server that has just started is asked again."""

STOP_SECONDS = 60
"""How long a job that is stopped may take to keep what it has, before Ray kills it."""


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
