"""Colour for whole archives: a folder of pictures in, the same tree in colour out, and a row for every file (Ray Data)."""
