"""Datasets on the server: a catalog on the disk, rows by number without loading the rest, and an order for each epoch.

::

    catalog = Catalog(folder)
    catalog.put("tenant", "digits", {"x": images, "y": labels})
    digits = catalog.open("tenant", "digits")
    batch = digits.batch(permuted(range(64), rows=digits.rows, seed=0, epoch=3))
"""

from telegrad_server.datasets.catalog import Catalog
from telegrad_server.datasets.dataset import Dataset, Pass
from telegrad_server.datasets.permutation import permuted
from telegrad_server.datasets.roots import parse_roots

__all__ = ["Catalog", "Dataset", "Pass", "parse_roots", "permuted"]
