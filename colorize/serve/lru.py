"""The models in a replica's memory, a bounded number, by name and version.

Knows nothing of Ray, and does not load: whoever asks for a model that is not here brings it.
"""

from collections import OrderedDict

from colorize.model.colorizer import Colorizer
from colorize.serve.catalog import Entry


class Models:
    """At most so many models in memory; the one that was not asked for the longest makes room."""

    def __init__(self, most: int) -> None:
        """most: beside the service's own, one fewer."""
        self._most = most - 1
        self._models: OrderedDict[str, tuple[Entry, Colorizer]] = OrderedDict()

    def names(self) -> list[str]:
        """Of the models in memory."""
        return list(self._models)

    def get(self, entry: Entry) -> Colorizer | None:
        """The model in the version of the entry."""
        held = self._models.get(entry.name)
        if held is None or held[0].version != entry.version:
            return None
        self._models.move_to_end(entry.name)
        return held[1]

    def any_version(self, name: str) -> Colorizer | None:
        """The model in whatever version there is."""
        held = self._models.get(name)
        if held is None:
            return None
        self._models.move_to_end(name)
        return held[1]

    def put(self, entry: Entry, colorizer: Colorizer) -> None:
        """Keeps a model, in place of its last version."""
        self._models[entry.name] = (entry, colorizer)
        self._models.move_to_end(entry.name)
        while len(self._models) > self._most:
            self._models.popitem(last=False)
