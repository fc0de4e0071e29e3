"""inventory-service: warehouses, the stock ledger, and every decision about stock.

Words (docs/stock-ledger.md defines each once): a *movement* has two or more *entries* that sum to zero per item; the
outside world is virtual locations of each warehouse (supplier, customer, adjustment, …); *balances* are a projection by
item, location, lot and status; a *stock level* is their sum by item and warehouse, beside what is *reserved* (held, with
an expiry) and *allocated* (confirmed). *Available* is sellable minus reserved minus allocated.

Promises: the ledger is append-only and always balances; levels and balances equal the sum of their entries at every
commit; nobody is promised what is not there, whoever asks at the same time. All of it is decided in one local
transaction, under locks that are always taken in the same order: reservations by id, then stock levels by item and
warehouse.
"""
