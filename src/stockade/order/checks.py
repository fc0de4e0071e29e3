"""The invariants that the order-service can prove from its own tables."""

from stockade.kit.integrity import Check

CHECKS = (
    Check(
        "I8",
        "An order line is what is allocated, back-ordered, shipped and cancelled of it, and what is allocated is reserved.",
        """
        SELECT text FROM (
            SELECT order_id || '/' || line AS text FROM order_lines
             WHERE ordered <> allocated + backordered + shipped + cancelled OR returned + being_returned > shipped
                OR being_shipped > allocated
            UNION ALL
            SELECT l.order_id || '/' || l.line || ' reserved'
              FROM orders o
              JOIN order_lines l ON l.order_id = o.id
              LEFT JOIN (SELECT a.order_id, p.line, sum(p.quantity - p.taken) AS quantity
                           FROM allocations a JOIN allocation_lines p ON p.allocation_id = a.id
                          WHERE a.step = 'done' GROUP BY a.order_id, p.line) r
                ON r.order_id = l.order_id AND r.line = l.line
             WHERE o.status IN ('confirmed', 'allocated', 'partially_allocated', 'partially_shipped', 'partially_returned')
               AND l.allocated - l.being_shipped <> coalesce(r.quantity, 0)
        ) broken
        """,
    ),
    Check(
        "I16",
        "Every order, shipment and return that was begun comes to its end.",
        """
        SELECT text FROM (
            SELECT 'allocation ' || id AS text FROM allocations
             WHERE step IN ('hold', 'confirm', 'undo', 'release') AND deadline < now() - interval '10 minutes'
            UNION ALL
            SELECT 'shipment ' || id FROM shipments WHERE status = 'posting' AND deadline < now() - interval '10 minutes'
            UNION ALL
            SELECT 'return ' || id FROM returns WHERE status = 'posting' AND deadline < now() - interval '10 minutes'
            UNION ALL
            SELECT 'order ' || id FROM orders o
             WHERE status = 'placing' AND NOT EXISTS (
                       SELECT FROM allocations a WHERE a.order_id = o.id AND step IN ('hold', 'confirm', 'undo'))
        ) broken
        """,
    ),
)
