"""The settings of the service: one typed, frozen model, which Ray Serve fills from the `args` of a deployment file.

It is a pydantic model and no dataclass because that is what Serve turns `args` into before it calls an application builder; unknown
keys and values out of range are refused there. Where the service listens is not here: a proxy of Serve's listens, before and
outside the application (`http_options` in a deployment file, `--host` and `--port` on the command line).
"""

import math
import os
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from colorize.imaging.guard import MAX_PIXELS
from colorize.model.card import DEFAULT_MODEL
from colorize.serve.keys import API_KEYS, hashed_keys, is_digest
from colorize.serve.roots import Roots


class ServeConfig(BaseModel):
    """What is served, to whom, within which limits, on how much of the cluster."""

    # Without the input, since a message with a key that is not hashed would end in a log.
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, hide_input_in_errors=True)

    model: str = DEFAULT_MODEL
    """The name of a shipped model, a model file, or a training run's directory, on the machine where the application is built."""

    models_dir: str | None = Field(default=None, min_length=1)
    """A folder of model files that clients may name besides those that ship: `NAME.safetensors` is `?model=NAME`. All nodes see it."""

    max_models: int = Field(default=3, gt=0)
    """How many models one replica holds in memory; the one that was not asked for the longest makes room."""

    api_keys: tuple[str, ...] = ()
    """SHA-256 digests of the keys of which a client must send one, as `sha256:HEX`; none: only this machine is answered."""

    requests_per_second: float = Field(default=20.0, gt=0, allow_inf_nan=False)
    """Pictures that a key may have coloured in the long run, at each ingress replica; above that, 429."""

    burst: int = Field(default=200, gt=0)
    """Pictures that a key may send at once after a pause."""

    archive_roots: tuple[str, ...] = ()
    """The folders and URLs below which bulk runs may read and write; none: bulk runs are refused."""

    archive_runs: int = Field(default=1, gt=0)
    """Bulk runs at a time; above that, 429."""

    archive_workers: int | None = Field(default=None, gt=0)
    """Workers of a bulk run, one CPU each; none: its share of the CPUs that the service leaves free."""

    max_body_bytes: int = Field(default=64 * 2**20, gt=0)
    """The largest picture file; a larger one is refused before it has been read."""

    max_batch_bytes: int = Field(default=512 * 2**20, gt=0)
    """The largest upload of many files; it waits on the disk, in a file without a name, and ends with its request. All of them together may
    have eight times as much; above that, 503."""

    max_batch_files: int = Field(default=1000, gt=0)
    """The most files of one batch."""

    max_held_bytes: int = Field(default=512 * 2**20, gt=0)
    """The bytes of pictures that one ingress replica holds in memory as they were sent; above that, 503. The pictures of batches have as
    much again, and wait for it."""

    max_pixels: int = Field(default=MAX_PIXELS, gt=0, le=MAX_PIXELS)
    """Of one file, all its pages together; and the most that one ingress replica works on at a time, of pictures above 20 MP. Those up to
    20 MP have pixels of their own: at most as many, and 40 MP for each of its codec threads."""

    max_pages: int = Field(default=200, gt=0)
    """Of one file; longer ones are work for a bulk run."""

    upload_seconds: float = Field(default=60.0, gt=0)
    """How long a picture may take to arrive; then 408. A batch has five times as long."""

    max_streams: int = Field(default=4, gt=0)
    """Live streams that one ingress replica serves at a time."""

    max_frame_bytes: int = Field(default=2 * 2**20, gt=0)
    """The largest frame of a stream."""

    max_frame_pixels: int = Field(default=4_000_000, gt=0)
    """Of one frame."""

    frames_per_second: float = Field(default=30.0, gt=0, allow_inf_nan=False)
    """Frames of one stream that are coloured; of those that come faster, the latest. Ten times as many close the stream."""

    stream_idle_seconds: float = Field(default=30.0, gt=0, allow_inf_nan=False)
    """How long a stream may be without a frame before it is closed."""

    max_requests: int = Field(default=64, gt=0)
    """Requests that one ingress replica works on at a time; it refuses those above at once, with 503 and Retry-After."""

    batch_size: int = Field(default=16, gt=0)
    """The most pictures that the model is shown at a time."""

    batch_wait_seconds: float = Field(default=0.0, ge=0)
    """How long a picture waits for others while the network is idle; while it is busy, the next batch fills by itself."""

    ingress_replicas: int = Field(default=1, gt=0)
    """Replicas that decode, graft and encode; the least of them, where `max_ingress_replicas` is larger."""

    max_ingress_replicas: int = Field(default=1, gt=0)
    """The most of them: more are started while each works on more than half of `max_requests`."""

    model_replicas: int = Field(default=1, gt=0)
    """Replicas that run the network; the least of them, where `max_model_replicas` is larger."""

    max_model_replicas: int = Field(default=1, gt=0)
    """The most of them: more are started while more than two batches wait for each."""

    ingress_cpus: float = Field(default=0.5, gt=0)
    """CPUs that Ray reserves for an ingress replica. With the model's half it makes one, so that a machine of two can run a job as well."""

    model_cpus: float = Field(default=0.5, gt=0)
    """CPUs that Ray reserves for a model replica."""

    model_threads: int | None = Field(default=None, gt=0)
    """Threads of a model replica; None: as many as it reserves CPUs, rounded up."""

    model_gpus: float = Field(default=0, ge=0)
    """GPUs of a model replica; `colorize serve` sets 1 where the cluster has any."""

    @field_validator("api_keys")
    @classmethod
    def _are_hashed(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        if not all(map(is_digest, keys)):
            raise ValueError("must be SHA-256 digests of keys, sha256:HEX: a key itself does not belong into a configuration")
        return keys

    @field_validator("archive_roots")
    @classmethod
    def _are_roots(cls, roots: tuple[str, ...]) -> tuple[str, ...]:
        Roots(roots)
        return roots

    @model_validator(mode="after")
    def _have_room(self) -> Self:
        for least, most in (
            ("ingress_replicas", "max_ingress_replicas"),
            ("model_replicas", "max_model_replicas"),
        ):
            if getattr(self, most) < getattr(self, least) and most in self.model_fields_set:
                raise ValueError(f"{most} {getattr(self, most)}: must not be below {least} {getattr(self, least)}")
        return self

    def with_keys_of_environment(self) -> Self:
        """The same with the keys that COLORIZE_API_KEYS holds, hashed, beside its own. Raises ConfigError."""
        keys = (*self.api_keys, *hashed_keys(os.environ.get(API_KEYS, "")))
        return self.model_copy(update={"api_keys": tuple(dict.fromkeys(keys))})

    @property
    def cpus(self) -> float:
        """The CPUs that all replicas reserve together, at the least."""
        return self.ingress_replicas * self.ingress_cpus + self.model_replicas * self.model_cpus

    @property
    def gpus(self) -> float:
        """The GPUs that all replicas reserve together, at the least."""
        return self.model_replicas * self.model_gpus

    @property
    def threads(self) -> int:
        """The threads of one model replica."""
        return self.model_threads or math.ceil(self.model_cpus)

    @property
    def codec_threads(self) -> int:
        """The threads of one ingress replica that decode and encode: at least two, since large scans have all of them but one."""
        return max(2, math.ceil(self.ingress_cpus))

    @property
    def model_requests(self) -> int:
        """What one model replica may hold at a time.

        All that the ingress asks, so that questions wait in the batch queue and not in Serve's router, which looks for a free replica
        in growing intervals; and never less than one batch that is computed and one that fills meanwhile.
        """
        return max(2 * self.batch_size, max(self.ingress_replicas, self.max_ingress_replicas) * self.max_requests)
