"""The two kinds of network that a model may have, and how a card says which.

A card's `network` holds the fields of the network's configuration, and for a PhotoNet `"kind": "photonet"`; one without a kind is a
U-Net's, as all were before there were two.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from colorize.errors import ConfigError
from colorize.model.photonet import PhotoNet, PhotoNetConfig
from colorize.model.unet import UNet, UNetConfig

Network = UNet | PhotoNet
NetworkConfig = UNetConfig | PhotoNetConfig


def config_of(fields: Mapping[str, Any]) -> NetworkConfig:
    """The configuration that a card's `network` describes. Raises ConfigError for an unknown kind or value, TypeError for other fields."""
    fields = dict(fields)
    kind = fields.pop("kind", "unet")
    if kind == "photonet":
        return PhotoNetConfig(**fields)
    if kind != "unet":
        raise ConfigError(f"network kind {kind!r}: must be unet or photonet")
    return UNetConfig(**fields)


def fields_of(config: NetworkConfig) -> dict[str, Any]:
    """What a card's `network` says of it: `config_of` reads it back."""
    kind = {"kind": "photonet"} if isinstance(config, PhotoNetConfig) else {}
    return kind | dataclasses.asdict(config)


def build(config: NetworkConfig) -> Network:
    """The network of that shape, with random weights."""
    return PhotoNet(config) if isinstance(config, PhotoNetConfig) else UNet(config)
