"""The service from another program: `colorize.Client` and `colorize.AsyncClient`. Loads neither torch nor Ray."""

SERVER = "http://127.0.0.1:8000"
"""Where `colorize serve` listens when it is told nothing else."""

KEY_VARIABLE = "COLORIZE_API_KEY"
"""The environment variable with the key that a client sends."""
