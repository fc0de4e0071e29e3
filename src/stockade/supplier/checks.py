"""What the supplier-service can prove from its own tables (design section 5)."""

from stockade.kit.integrity import Check

CHECKS = (
    Check(
        "I9",
        "No purchase order line receives more than was ordered plus its tolerance, and each counts exactly its receipts.",
        """
        SELECT 'line ' || l.line || ' of ' || o.number || ': received ' || l.received || ', receiving ' || l.receiving
               || ', receipts say ' || coalesce(c.posted, 0) || ' and ' || coalesce(c.posting, 0)
          FROM purchase_order_lines l
          JOIN purchase_orders o ON o.id = l.purchase_order_id
          LEFT JOIN (SELECT rl.purchase_order_line_id,
                            sum(rl.quantity) FILTER (WHERE r.status = 'posted') AS posted,
                            sum(rl.quantity) FILTER (WHERE r.status = 'posting') AS posting
                       FROM receipt_lines rl JOIN receipts r ON r.id = rl.receipt_id
                      GROUP BY 1) c ON c.purchase_order_line_id = l.id
         WHERE l.received + l.receiving > l.ordered * (1 + l.tolerance)
            OR l.received <> coalesce(c.posted, 0)
            OR l.receiving <> coalesce(c.posting, 0)
        """,
    ),
    Check(
        "I16",
        "Every goods receipt ends posted or withdrawn, at the latest ten minutes after its deadline.",
        """
        SELECT number || ': posting since ' || received_at || ', after ' || attempts || ' attempts'
          FROM receipts WHERE status = 'posting' AND deadline < now() - interval '10 minutes'
        """,
    ),
)
