"""The demo: the whole of colorize on bundled data, and the page that shows what came of it."""
