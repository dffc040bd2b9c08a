"""Pictures and colour science: arrays and bytes in, arrays and bytes out. Knows nothing of networks and nothing of Ray.

    colorspace.py   sRGB, CIE LAB and JFIF YCbCr, and the composition that gives up chroma, never lightness
    picture.py      read and write picture files, with their limits and their metadata
    sheet.py        contact sheets to look at results

Import from the modules; this package exports nothing of its own.
"""
