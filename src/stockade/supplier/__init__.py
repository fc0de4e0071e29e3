"""supplier-service: suppliers, what they offer, purchase orders, and the goods receipts that become stock.

It promises that no line ever receives more than was ordered plus the tolerance agreed with the supplier (I9), that a
purchase order needs somebody with the right to approve it, and that a goods receipt and its stock movement both exist
or neither does, whatever stops in between: a receipt begins as `posting`, asks the inventory-service under a key of its
own, and ends `posted` with the movement or is withdrawn with nothing left behind.
"""
