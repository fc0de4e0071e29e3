"""order-service: customers, sales orders, what is allocated to them, shipments, and returns.

It never decides about stock: it asks the inventory-service and keeps what it was told. Placing, shipping and returning
take several transactions in two databases, so each is a saga whose row says which step comes next; whoever finds an open
saga (the request itself, a repetition of it, or the background driver of any process) may take that step, and taking it
twice does nothing twice. It promises that an order line always adds up (ordered = allocated + back-ordered + shipped +
cancelled, returned ≤ shipped), and that after a crash at any point an order ends allocated with its reservations
confirmed, or is gone with none left.
"""
