"""A folder of images: each folder in it is a class, and the images are decoded when they are asked for.

Columns: ``image``, uint8[height, width, 3] (uint8[height, width] with ``mode=L``), and ``label``, int64[], the place of
the image's folder among all in alphabetical order. Images that lie in no folder have no label.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from telegrad.errors import DataCorrupt, ResourceError
from telegrad.ir import types as t
from telegrad.ir.types import Type

from telegrad_server.datasets.dataset import Array, Pass, Rows, any_rows, check_rows
from telegrad_server.datasets.libraries import library
from telegrad_server.datasets.roots import Root

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


class Images:
    """A dataset of the images in a folder. All have one size: that of ``size=HEIGHTxWIDTH``, else of the first."""

    def __init__(self, digest: str, root: Root) -> None:
        self.digest = digest
        self._root = root
        self._pillow = library("PIL.Image", package="Pillow", dataset=root.name)
        self._mode = _mode(root)
        self._size = _size(root)
        self._files, self._labels = _scan(root.path)
        if not self._files:
            raise DataCorrupt(f"dataset {root.name!r}: there is no image in {root.path.name}")
        self.rows = len(self._files)
        image = Type(tuple(self._decoded(self._files[0]).shape), t.uint8)
        self.columns = {"image": image} | ({"label": Type((), t.int64)} if self._labels is not None else {})

    def batch(self, rows: Rows) -> Mapping[str, Array]:
        """These images, decoded, and their labels. DataCorrupt names an image that cannot be decoded."""
        check_rows(rows, self.rows)
        image = self.columns["image"]
        images = np.empty((len(rows), *image.shape), np.uint8)
        for place, row in enumerate(rows):
            array = self._decoded(self._files[row])
            if array.shape != image.shape:
                raise DataCorrupt(
                    f"{self._files[row].name} is {list(array.shape)}, and the first image {list(image.shape)};"
                    " register the folder with ?size=HEIGHTxWIDTH"
                )
            images[place] = array
        return {"image": images} | ({"label": self._labels[rows]} if self._labels is not None else {})

    def rows_at(self, places: Rows, of: Pass) -> Rows:
        """Any image may come at any place."""
        return any_rows(places, of)

    def prepare(self, place: int, of: Pass) -> bool:
        """Nothing: the files are here."""
        return False

    def _decoded(self, path: Path) -> Array:
        try:
            with self._pillow.open(path) as image:
                image = image.convert(self._mode)
                if self._size is not None:
                    height, width = self._size
                    image = image.resize((width, height), self._pillow.Resampling.BILINEAR)
                return np.asarray(image, np.uint8)
        except FileNotFoundError:
            raise
        except (OSError, ValueError, SyntaxError) as error:  # what Pillow raises for broken files
            raise DataCorrupt(f"{path.name} cannot be decoded: {error}", file=path.name) from None


def check_pillow(root: Root) -> None:
    """ResourceError if images cannot be read here, or an option is wrong."""
    library("PIL.Image", package="Pillow", dataset=root.name)
    _mode(root)
    _size(root)


def _mode(root: Root) -> str:
    mode = root.option("mode", "RGB")
    if mode not in ("RGB", "L"):
        raise ResourceError(f"dataset {root.name!r}: mode is RGB or L, not {mode!r}")
    return mode


def _size(root: Root) -> tuple[int, int] | None:
    text = root.option("size", "")
    found = re.fullmatch(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", text)
    if text and found is None:
        raise ResourceError(f"dataset {root.name!r}: size is HEIGHTxWIDTH, as in 64x64, not {text!r}")
    return (int(found[1]), int(found[2])) if found else None


def _scan(folder: Path) -> tuple[list[Path], Array | None]:
    """All images in order, and their labels if they lie in folders."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    files: list[Path] = []
    labels: list[int] = []
    for number, place in enumerate(classes or [folder]):
        found = sorted(p for p in place.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        files += found
        labels += [number] * len(found)
    return files, np.array(labels, np.int64) if classes else None
