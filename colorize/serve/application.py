"""The Serve application: the ingress in front of the model, bound to a configuration.

`build` is what `serve deploy` and `serve run colorize.serve.application:build` call. It reads the model where it runs and hands its
bytes to the replicas, so no other machine of a cluster needs the file. They lie in Serve's controller, which starts lost replicas anew.
"""

from typing import Any

from ray import serve
from ray.serve.config import BackpressureConfig
from ray.serve.schema import LoggingConfig

from colorize.errors import ModelError
from colorize.model.card import ModelCard, resolve
from colorize.model.colormodel import ColorModel
from colorize.serve.config import ServeConfig
from colorize.serve.ingress import RETRY_SECONDS, Ingress
from colorize.serve.predictor import Predictor

SHUTDOWN_SECONDS = 3.0
"""How long a replica that is stopped may finish what it works on: the service ends within 5 s."""


def build(config: ServeConfig) -> serve.Application:
    """The application for a configuration. Raises ModelError where its model is no whole model of this program."""
    return assemble(config, *read_model(config.model))


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
    common: dict[str, Any] = {
        "graceful_shutdown_timeout_s": SHUTDOWN_SECONDS,
        "graceful_shutdown_wait_loop_s": 0.1,
        "max_queued_requests": config.max_requests,
        "logging_config": LoggingConfig(enable_access_log=False),
    }
    predictor = serve.deployment(
        num_replicas=config.model_replicas,
        ray_actor_options={"num_cpus": config.model_cpus, "num_gpus": config.model_gpus},
        max_ongoing_requests=config.model_requests,
        **common,
    )(Predictor)
    ingress = serve.deployment(
        num_replicas=config.ingress_replicas,
        ray_actor_options={"num_cpus": config.ingress_cpus},
        max_ongoing_requests=2 * config.max_requests,  # above what it admits: the refusal is its own, and `/healthz` gets through
        backpressure_config=BackpressureConfig(status_code=503, retry_after_s=RETRY_SECONDS),
        **common,
    )(Ingress)
    return ingress.bind(config, card, predictor.bind(model, config))
