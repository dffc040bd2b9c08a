"""The Serve application: the ingress in front of the model, bound to a configuration.

`build`, which is `colorize.serve.app`, is what `serve deploy` and `serve run` call. It reads the service's own model where it runs and
hands its bytes to the replicas, so no other machine of a cluster needs the file. They lie in Serve's controller, which starts lost
replicas anew.

Deployed again with another model, each deployment first starts a new replica and then ends an old one (`max_surge_percent`), which finishes
what it works on. Meanwhile either version may answer: an answer says which one it was.
"""

from pathlib import Path
from typing import Any

from ray import serve
from ray.serve.config import AutoscalingConfig, BackpressureConfig
from ray.serve.schema import LoggingConfig

from colorize import log
from colorize.errors import ModelError
from colorize.model.card import ModelCard, resolve, shipped_names
from colorize.model.colormodel import ColorModel
from colorize.model.device import KEEP_MEMORY
from colorize.serve.config import ServeConfig
from colorize.serve.ingress import INGRESS, Ingress
from colorize.serve.predictor import Predictor
from colorize.serve.upload import RETRY_SECONDS
from colorize.storage.place import is_url

DRAIN_SECONDS = 60.0
"""How long a replica that is replaced may finish what it works on."""


def build(config: ServeConfig) -> serve.Application:
    """The application for a configuration. Raises ModelError where its model is no whole model of this program.

    The keys in COLORIZE_API_KEYS, where this runs, count too. Raises ConfigError where they are none.
    """
    return assemble(config.with_keys_of_environment(), *read_model(config.model))


def read_model(name_or_path: str) -> tuple[bytes, ModelCard]:
    """The bytes of a model file that loads, and its card. Raises ModelError."""
    path = resolve(name_or_path)
    card = ColorModel.load(path).card
    try:
        return path.read_bytes(), card
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error


def assemble(config: ServeConfig, model: bytes, card: ModelCard) -> serve.Application:
    """The application that serves a model that has been read already."""
    if config.model not in shipped_names() and not is_url(config.model):
        # A bulk run, which reads the model's file itself, is at home in another folder.
        config = config.model_copy(update={"model": str(Path(config.model).absolute())})
    common: dict[str, Any] = {
        "graceful_shutdown_timeout_s": DRAIN_SECONDS,
        "graceful_shutdown_wait_loop_s": 0.1,
        "max_surge_percent": 100,
        "health_check_period_s": 2.0,
        "logging_config": LoggingConfig(enable_access_log=False, encoding="JSON" if log.is_json() else "TEXT"),
    }
    predictor = serve.deployment(
        **_replicas(config.model_replicas, config.max_model_replicas, 2.0 * config.batch_size),
        ray_actor_options={
            "num_cpus": config.model_cpus,
            "num_gpus": config.model_gpus,
            "runtime_env": {"env_vars": KEEP_MEMORY},
        },
        max_ongoing_requests=config.model_requests,
        max_queued_requests=config.max_requests,
        **common,
    )(Predictor)
    ingress = serve.deployment(
        **_replicas(config.ingress_replicas, config.max_ingress_replicas, config.max_requests / 2),
        name=INGRESS,
        ray_actor_options={"num_cpus": config.ingress_cpus},
        # Both above what it admits: the refusal is its own, with the reason as JSON, and `/healthz` gets through. Ray's proxy queues what
        # it has not yet handed on: of twelve uploads that begin at once all twelve.
        max_ongoing_requests=4 * config.max_requests,
        max_queued_requests=4 * config.max_requests,
        backpressure_config=BackpressureConfig(status_code=503, retry_after_s=RETRY_SECONDS),
        **common,
    )(Ingress)
    return ingress.bind(config, card, predictor.bind(model, card, config))


def _replicas(least: int, most: int, target: float) -> dict[str, Any]:
    """A fixed number of replicas, or as many as keep each at `target` requests: pictures that are decoded, or questions that wait."""
    if most <= least:
        return {"num_replicas": least}
    scaling = AutoscalingConfig(
        min_replicas=least, max_replicas=most, target_ongoing_requests=target, upscale_delay_s=5.0, downscale_delay_s=120.0
    )
    return {"autoscaling_config": scaling}
