"""All checks, in the order in which they are read: what comes first explains what fails later."""

from __future__ import annotations

from collections.abc import Iterator

from colorize.doctor.finding import Finding
from colorize.doctor.listeners import check_exposure, check_ports, check_token_file, read_listeners
from colorize.doctor.packages import check_loading, check_packages


def examine(address: str | None = None, models: tuple[str, ...] = ()) -> Iterator[Finding]:
    """Each finding as soon as it is there; Ray is not started. With `address` or RAY_ADDRESS a cluster is joined for a moment."""
    yield from check_packages()
    loading = check_loading()
    yield loading
    listeners = read_listeners()
    yield check_ports(listeners)
    yield check_exposure(listeners)
    yield check_token_file()
    if loading.status == "wrong":  # what follows needs them
        return
    from colorize.doctor.gpus import check_gpus
    from colorize.doctor.machine import check_machine, read_machine
    from colorize.doctor.models import check_models
    from colorize.doctor.reach import check_cluster

    yield from check_machine(read_machine())
    yield check_gpus()
    yield from check_models(models)
    yield check_cluster(address)
