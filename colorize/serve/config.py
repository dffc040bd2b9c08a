"""The settings of the service: one typed, frozen model, which Ray Serve fills from the `args` of a deployment file.

It is a pydantic model and no dataclass because that is what Serve turns `args` into before it calls an application builder; unknown
keys and values out of range are refused there. Where the service listens is not here: a proxy of Serve's listens, before and
outside the application (`http_options` in a deployment file, `--port` on the command line).
"""

import math

from pydantic import BaseModel, ConfigDict, Field

from colorize.model.card import DEFAULT_MODEL


class ServeConfig(BaseModel):
    """What is served, within which limits, on how much of the cluster."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    model: str = DEFAULT_MODEL
    """The name of a shipped model, a model file, or a training run's directory, on the machine where the application is built."""

    max_body_bytes: int = Field(default=64 * 2**20, gt=0)
    """The largest upload; a larger one is refused before it has been read."""

    max_requests: int = Field(default=64, gt=0)
    """Requests that one ingress replica works on at a time; it refuses those above at once, with 503 and Retry-After."""

    batch_size: int = Field(default=16, gt=0)
    """The most pictures that the model is shown at a time."""

    batch_wait_seconds: float = Field(default=0.01, ge=0)
    """How long the first picture of a batch waits for others."""

    ingress_replicas: int = Field(default=1, gt=0)
    """Replicas that decode, graft and encode."""

    model_replicas: int = Field(default=1, gt=0)
    """Replicas that run the network."""

    ingress_cpus: float = Field(default=0.5, gt=0)
    """CPUs that Ray reserves for an ingress replica. With the model's half it makes one, so that a machine of two can run a job as well."""

    model_cpus: float = Field(default=0.5, gt=0)
    """CPUs that Ray reserves for a model replica; rounded up, they are its threads."""

    model_gpus: float = Field(default=0, ge=0)
    """GPUs of a model replica; `colorize serve` sets 1 where the cluster has any."""

    @property
    def cpus(self) -> float:
        """The CPUs that all replicas reserve together."""
        return self.ingress_replicas * self.ingress_cpus + self.model_replicas * self.model_cpus

    @property
    def gpus(self) -> float:
        """The GPUs that all replicas reserve together."""
        return self.model_replicas * self.model_gpus

    @property
    def model_threads(self) -> int:
        """The threads of one model replica."""
        return math.ceil(self.model_cpus)

    @property
    def model_requests(self) -> int:
        """What one model replica may hold at a time.

        All that the ingress admits, so that requests wait in the batch queue and not in Serve's router, which looks for a free replica
        in growing intervals; and never less than one batch that is computed and one that fills meanwhile.
        """
        return max(2 * self.batch_size, self.ingress_replicas * self.max_requests)
