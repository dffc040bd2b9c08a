"""Writes what docs/ says of the program from the program itself: `make docs`.

    docs/cli.md                every command with its options
    docs/models.md             the cards of the models that ship
    docs/scaling.md            what a run would take on more machines than there are
    docs/pictures/archive.jpg  three pictures of the sample archive, before and after, by the model that ships
    docs/pictures/scans.jpg    all nine of them, before and after
    docs/pictures/cifar10.png  12 test pictures of the sample: grey | predicted | true

Takes 20 s on one core and needs no Ray.
"""

from __future__ import annotations

from pathlib import Path

from colorize.imaging.files import write_whole
from jobs.pages import cards, commands, pictures, scaling

DOCS = Path(__file__).parent.parent / "docs"


def main() -> None:
    pages = {
        "cli.md": commands.page().encode(),
        "models.md": cards.page().encode(),
        "scaling.md": scaling.page().encode(),
        "pictures/archive.jpg": pictures.archive_jpeg(),
        "pictures/scans.jpg": pictures.scans_jpeg(),
        "pictures/cifar10.png": pictures.cifar10_png(),
    }
    for name, content in pages.items():
        write_whole(DOCS / name, content)
        print(f"docs/{name}  {len(content):,} bytes")


if __name__ == "__main__":
    main()
