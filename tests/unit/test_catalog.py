"""The models that a client may name: those that ship and those of a folder, never a path; versions, and the bounded number in memory."""

from pathlib import Path

import pytest

from colorize.errors import ModelError
from colorize.model.colorizer import Colorizer
from colorize.serve.catalog import Catalog, Entry
from colorize.serve.lru import Models
from tests.models import small_model


def test_names_are_found_and_paths_are_not(tmp_path: Path) -> None:
    outside = tmp_path / "outside.safetensors"
    small_model().save(outside)
    folder = tmp_path / "models"
    folder.mkdir()
    small_model(seed=1).save(folder / "house.safetensors")
    small_model(seed=2).save(folder / "photo.safetensors")
    (folder / "sub.safetensors").mkdir()
    catalog = Catalog(small_model().card, str(folder))
    assert catalog.names() == ["small", "cifar10", "house", "photo"]
    assert catalog.find(None) is catalog.own is catalog.find("small")
    assert catalog.find("house").card.name == "house"
    assert catalog.find("photo").path == folder / "photo.safetensors", "the operator's goes before the shipped one"
    for name in ("", ".", "..", "../outside", "outside", str(outside), "house.safetensors", "house\0", "sub", "a" * 200, "hoüse"):
        with pytest.raises(ModelError, match="no such model") as raised:
            catalog.find(name)
        assert str(tmp_path) not in str(raised.value)


def test_a_replaced_file_is_a_new_version_and_a_damaged_one_is_none(tmp_path: Path) -> None:
    path = tmp_path / "house.safetensors"
    small_model(seed=1).save(path)
    catalog = Catalog(small_model().card, str(tmp_path))
    first = catalog.find("house")
    assert catalog.find("house") is first
    small_model(seed=2).save(path)
    second = catalog.find("house")
    assert (second.version, second.card.weights_sha256) != (first.version, first.card.weights_sha256)
    path.write_bytes(b"no model")
    assert catalog.find("house") is second
    with pytest.raises(ModelError, match="damaged") as raised:
        Catalog(small_model().card, str(tmp_path)).find("house")
    assert str(tmp_path) not in str(raised.value)
    path.unlink()
    with pytest.raises(ModelError, match="no such model"):
        catalog.find("house")


def test_a_folder_that_is_gone_has_no_models(tmp_path: Path) -> None:
    assert Catalog(small_model().card, str(tmp_path / "none")).names() == ["small", "cifar10", "photo"]


def test_the_model_not_asked_for_the_longest_makes_room() -> None:
    def entry(name: str, version: int = 1) -> Entry:
        return Entry(name=name, path=Path(name), version=(version, 0, 0), card=small_model().card)

    models, colorizer = Models(3), Colorizer(small_model())
    models.put(entry("a"), colorizer)
    models.put(entry("b"), colorizer)
    assert models.get(entry("a")) is colorizer
    models.put(entry("c"), colorizer)
    assert models.names() == ["a", "c"], "two beside the service's own"
    assert models.get(entry("b")) is None
    assert models.get(entry("a", version=2)) is None
    assert models.any_version("a") is colorizer
    models.put(entry("a", version=2), colorizer)
    assert models.names() == ["c", "a"]
