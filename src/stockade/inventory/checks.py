"""The invariants that the books can prove of themselves (design, section 5): a query each for what breaks it."""

from stockade.kit.integrity import Check

CHECKS = (
    Check(
        "I1",
        "the entries of a movement sum to zero per item",
        """
        SELECT 'movement ' || movement_id || ': ' || sum(quantity) || ' of item ' || item_id
          FROM entries GROUP BY movement_id, item_id HAVING sum(quantity) <> 0
        UNION ALL
        SELECT 'movement ' || m.id || ' has fewer than two entries'
          FROM movements m LEFT JOIN entries e ON e.movement_id = m.id GROUP BY m.id HAVING count(e.movement_id) < 2
        """,
    ),
    Check(
        "I2",
        "every balance and every stock level equals the sum of its entries",
        """
        SELECT 'balance of item ' || coalesce(b.item_id, e.item_id) || ' in location ' || coalesce(b.location_id, e.location_id)
               || ' says ' || coalesce(b.quantity, 0) || ', entries say ' || coalesce(e.quantity, 0)
          FROM balances b
          FULL JOIN (SELECT item_id, location_id, lot_id, status, sum(quantity) AS quantity
                       FROM entries GROUP BY item_id, location_id, lot_id, status) e
            ON (b.item_id, b.location_id, b.lot_id, b.status) = (e.item_id, e.location_id, e.lot_id, e.status)
         WHERE coalesce(b.quantity, 0) <> coalesce(e.quantity, 0)
        UNION ALL
        SELECT 'stock level of item ' || coalesce(s.item_id, e.item_id)
               || ' in warehouse ' || coalesce(s.warehouse_id, e.warehouse_id)
               || ' says ' || coalesce(s.on_hand, 0) || ' (' || coalesce(s.sellable, 0) || ' sellable), entries say '
               || coalesce(e.on_hand, 0) || ' (' || coalesce(e.sellable, 0) || ')'
          FROM stock_levels s
          FULL JOIN (SELECT item_id, warehouse_id, sum(quantity) AS on_hand,
                            coalesce(sum(quantity) FILTER (WHERE status = 'sellable'), 0) AS sellable
                       FROM entries WHERE is_physical GROUP BY item_id, warehouse_id) e
            ON (s.item_id, s.warehouse_id) = (e.item_id, e.warehouse_id)
         WHERE coalesce(s.on_hand, 0) <> coalesce(e.on_hand, 0) OR coalesce(s.sellable, 0) <> coalesce(e.sellable, 0)
        """,
    ),
    Check(
        "I3",
        "nothing physical is negative, and what is promised is covered by what can be sold",
        """
        SELECT 'stock level of item ' || item_id || ' in warehouse ' || warehouse_id
          FROM stock_levels
         WHERE on_hand < 0 OR sellable < 0 OR sellable > on_hand OR reserved < 0 OR allocated < 0
            OR reserved + allocated > sellable
        UNION ALL
        SELECT 'balance of item ' || item_id || ' in location ' || location_id FROM balances WHERE is_physical AND quantity < 0
        """,
    ),
    Check(
        "I4",
        "exactly what was granted was handed out: a reservation's consumption equals its movements",
        """
        SELECT 'reservation ' || coalesce(l.reservation_id, e.reservation_id) || ' consumed ' || coalesce(l.consumed, 0)
               || ', its movements took ' || coalesce(e.taken, 0)
          FROM (SELECT reservation_id, sum(consumed) AS consumed FROM reservation_lines
                 GROUP BY reservation_id HAVING sum(consumed) > 0) l
          FULL JOIN (SELECT m.reservation_id, -sum(e.quantity) AS taken
                       FROM movements m JOIN entries e ON e.movement_id = m.id
                      WHERE m.reservation_id IS NOT NULL AND e.is_physical GROUP BY m.reservation_id) e USING (reservation_id)
         WHERE coalesce(l.consumed, 0) <> coalesce(e.taken, 0)
        """,
    ),
    Check(
        "I5",
        "reserved equals the open holds, allocated equals what confirmed reservations have left",
        """
        SELECT 'stock level of item ' || coalesce(s.item_id, o.item_id)
               || ' in warehouse ' || coalesce(s.warehouse_id, o.warehouse_id)
               || ' says ' || coalesce(s.reserved, 0) || ' reserved and ' || coalesce(s.allocated, 0)
               || ' allocated, reservations say ' || coalesce(o.reserved, 0) || ' and ' || coalesce(o.allocated, 0)
          FROM stock_levels s
          FULL JOIN (
            SELECT l.item_id, l.warehouse_id,
                   coalesce(sum(l.quantity - l.consumed - l.released) FILTER (WHERE r.status = 'held'), 0) AS reserved,
                   coalesce(sum(l.quantity - l.consumed - l.released) FILTER (WHERE r.status <> 'held'), 0) AS allocated
              FROM reservation_lines l JOIN reservations r ON r.id = l.reservation_id
             WHERE l.consumed + l.released < l.quantity GROUP BY l.item_id, l.warehouse_id) o
            ON (s.item_id, s.warehouse_id) = (o.item_id, o.warehouse_id)
         WHERE coalesce(s.reserved, 0) <> coalesce(o.reserved, 0) OR coalesce(s.allocated, 0) <> coalesce(o.allocated, 0)
        """,
    ),
    Check(
        "I6",
        "an idempotency key has one effect: no two keys share an answer, and none is left unfinished",
        """
        SELECT 'keys ' || string_agg(key, ', ') || ' answer with the same ' || (body::jsonb ->> 'id')
          FROM idempotency_keys WHERE status = 201 AND body::jsonb ? 'id' GROUP BY body::jsonb ->> 'id' HAVING count(*) > 1
        UNION ALL
        SELECT 'key ' || key || ' of ' || actor || ' is unfinished since ' || created_at
          FROM idempotency_keys WHERE status IS NULL AND created_at < now() - interval '1 hour'
        """,
    ),
    Check(
        "I11",
        "stock as of now is the balance",
        """
        SELECT 'item ' || s.item_id || ' in warehouse ' || s.warehouse_id
               || ' has ' || s.on_hand || ', as of now ' || coalesce(e.on_hand, 0)
          FROM stock_levels s
          LEFT JOIN (SELECT item_id, warehouse_id, sum(quantity) AS on_hand
                       FROM entries WHERE is_physical AND occurred_at <= clock_timestamp() GROUP BY item_id, warehouse_id) e
            ON (s.item_id, s.warehouse_id) = (e.item_id, e.warehouse_id)
         WHERE s.on_hand <> coalesce(e.on_hand, 0)
        """,
    ),
    Check(
        "I12",
        "a movement has at most one reversal, which restores exactly what it changed",
        """
        SELECT 'movement ' || reverses || ' is reversed ' || count(*) || ' times'
          FROM movements WHERE reverses IS NOT NULL GROUP BY reverses HAVING count(*) > 1
        UNION ALL
        SELECT 'reversal ' || m.id || ' leaves ' || sum(e.quantity) || ' of item ' || e.item_id || ' in location ' || e.location_id
          FROM movements m JOIN entries e ON e.movement_id IN (m.id, m.reverses)
         WHERE m.reverses IS NOT NULL
         GROUP BY m.id, e.item_id, e.location_id, e.lot_id, e.status HAVING sum(e.quantity) <> 0
        """,
    ),
    Check(
        "I13",
        "every movement has exactly one event, and events are in the order of the entries of each item",
        """
        SELECT 'movement ' || m.id || ' has ' || count(o.position) || ' events'
          FROM movements m LEFT JOIN outbox o ON o.type = 'movement.posted' AND o.subject = m.id::text
         GROUP BY m.id HAVING count(o.position) <> 1
        UNION ALL
        SELECT 'the event of movement ' || movement_id || ' is out of order for item ' || item_id
          FROM (SELECT e.movement_id, e.item_id, e.quantity, e.balance,
                       coalesce(lag(e.balance) OVER (PARTITION BY e.item_id, e.location_id, e.lot_id, e.status
                                                     ORDER BY o.position, e.position), 0) AS before
                  FROM entries e JOIN outbox o ON o.type = 'movement.posted' AND o.subject = e.movement_id::text) chain
         WHERE before + quantity <> balance
        """,
    ),
)
