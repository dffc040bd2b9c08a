"""The web page: HTML, style sheets and ES modules that a browser runs as they are, and the module that serves them."""
