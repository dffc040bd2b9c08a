"""Entry points for `ray job submit`: each parses and calls."""
