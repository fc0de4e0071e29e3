"""product-catalog-service: what the company keeps: products with their units, categories and barcodes.

It promises that a SKU and a barcode each name one product, that unit and tracking of a product never change under the
stock that is counted in them, that every change is in a history which nobody can edit, and that each change has one
event (`product.created`, `product.changed`) committed together with it.
"""
