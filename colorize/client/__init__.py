"""The service from another program: `colorize.Client` and `colorize.AsyncClient`. Loads neither torch nor Ray."""
