"""What a coloured file says of its colours: written into its metadata (see `xmp`), and read back by whoever asks."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Note:
    """What a coloured file says of its colours."""

    model: str
    """The model's name."""
    model_sha256: str
    """The digest of its weights."""
    vividness: float
