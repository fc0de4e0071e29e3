"""Stockade: an inventory system that a company runs itself.

Five services (`user`, `product_catalog`, `inventory`, `order`, `supplier`) stand on the small shared `kit`; `targets`
is their table, `front` serves them all behind one port, `postgres` looks after the embedded database, `cli` is the
command line. docs/architecture.md has the picture.
"""

__version__ = "0.1.0"
