"""Pictures and colour science: arrays and bytes in, arrays and bytes out. Knows nothing of networks and nothing of Ray.

A picture file is a `Scan` (`scan.py`), opened by `formats.open_scan` and written in colour by its own format; `convert.py` writes it in
another. Colour is in `colorspace.py`, and what a file's profile makes of it in `space.py`. README lists all modules.

Import from the modules; this package exports nothing of its own.
"""
