"""The ingress deployment: a replica that runs the application of `api` at a desk whose network is the model's replicas."""

from collections.abc import Mapping
from typing import Any

import torch
from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from colorize.errors import ModelError
from colorize.model.card import ModelCard
from colorize.serve.api import create_app
from colorize.serve.catalog import Catalog
from colorize.serve.codec import Answer, Question
from colorize.serve.config import ServeConfig
from colorize.serve.desk import Desk, UnavailableError
from colorize.serve.meter import Series

INGRESS = "Ingress"
"""The deployment's name."""


@serve.ingress()
class Ingress:
    """One replica of the HTTP side."""

    def __init__(self, config: ServeConfig, card: ModelCard, predictor: DeploymentHandle[Any]) -> None:
        """card: of the service's own model. predictor: the handle of the deployment of `Predictor`."""
        torch.set_num_threads(1)  # pictures run beside one another, each in one thread
        self._desk = Desk(config, Catalog(card, config.models_dir), Replicas(predictor))

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create_app(self._desk)

    async def series(self) -> tuple[str, list[Series]]:
        """This replica's name and its measurements."""
        return serve.get_replica_context().replica_id.unique_id, self._desk.meter.series()


class Replicas:
    """The `Network` that a desk asks: Serve picks the replica, or all are asked."""

    def __init__(self, predictor: DeploymentHandle[Any]) -> None:
        self._predictor = predictor
        self._ingress: DeploymentHandle[Any] | None = None

    async def predict(self, question: Question) -> Answer:
        """See `Network`."""
        try:
            answer: Answer = await self._predictor.predict.remote(question)
        except (BackPressureError, DeploymentUnavailableError, RayActorError) as error:
            raise UnavailableError from error
        except RayTaskError as error:
            if isinstance(error.cause, ModelError):
                raise error.cause from error
            raise
        return answer

    async def loaded(self) -> list[str]:
        """See `Network`."""
        return [name for names in await _all(self._predictor, "loaded") for name in names]

    async def measured(self) -> Mapping[str, list[Series]]:
        """See `Network`."""
        if self._ingress is None:  # not before the replica is up: Serve would wait for what it starts
            self._ingress = serve.get_deployment_handle(INGRESS, serve.get_replica_context().app_name)
        found: list[tuple[str, list[Series]]] = []
        for handle in (self._ingress, self._predictor):
            found += await _all(handle, "series")
        return dict(found)


async def _all(handle: DeploymentHandle[Any], method: str) -> list[Any]:
    """The answers of all replicas; one that ends meanwhile has none."""
    answers = await handle.broadcast(method).results_async(return_exceptions=True)
    return [answer for answer in answers if not isinstance(answer, BaseException)]
