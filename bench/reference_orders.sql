-- What pgbench does: the rows that an order of three lines leaves behind, with its reservation, in one transaction. The
-- product needs several, in two services; the reference shows what the database alone would cost.

CREATE TABLE bench.orders (LIKE "order".orders INCLUDING ALL) WITH (fillfactor = 85);
CREATE TABLE bench.order_lines (LIKE "order".order_lines INCLUDING ALL) WITH (fillfactor = 85);
CREATE TABLE bench.allocations (LIKE "order".allocations INCLUDING ALL) WITH (fillfactor = 85);
CREATE TABLE bench.allocation_lines (LIKE "order".allocation_lines INCLUDING ALL) WITH (fillfactor = 85);
CREATE TABLE bench.order_outbox (LIKE "order".outbox INCLUDING ALL);
CREATE TABLE bench.order_idempotency_keys (LIKE "order".idempotency_keys INCLUDING ALL);
ALTER TABLE bench.order_lines ADD FOREIGN KEY (order_id) REFERENCES bench.orders;
ALTER TABLE bench.allocations ADD FOREIGN KEY (order_id) REFERENCES bench.orders;
ALTER TABLE bench.allocation_lines ADD FOREIGN KEY (allocation_id) REFERENCES bench.allocations;

CREATE FUNCTION bench.place_order(one integer, two integer, three integer) RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
    order_id uuid := :new_id;
    allocation uuid := :new_id;
    reservation uuid := :new_id;
    actor text := '01a20000-0000-7000-8000-000000000001';
    caller_key text := gen_random_uuid()::text;
    numbers integer[] := ARRAY[one, two, three];
    lines jsonb := (SELECT jsonb_agg(jsonb_build_object(
        'line', place, 'sku', 'B-' || number, 'ordered', '1', 'allocated', '1', 'backordered', '0', 'shipped', '0',
        'cancelled', '0', 'returned', '0')) FROM unnest(ARRAY[one, two, three]) WITH ORDINALITY AS n (number, place));
    told jsonb := jsonb_build_object('id', order_id, 'number', 'SO-100001', 'status', 'allocated', 'warehouse', 'BENCH',
                                     'customer', NULL, 'version', 2, 'lines', lines);
    held jsonb := jsonb_build_object('id', reservation, 'reference', 'SO-100001', 'status', 'confirmed', 'actor', actor,
        'lines', (SELECT jsonb_agg(jsonb_build_object('line', place, 'sku', 'B-' || number, 'warehouse', 'BENCH',
                                                      'quantity', '1', 'consumed', '0', 'released', '0'))
                    FROM unnest(ARRAY[one, two, three]) WITH ORDINALITY AS n (number, place)));
    number integer;
BEGIN
    INSERT INTO bench.orders (id, priority, warehouse, status, placed_by, version)
    VALUES (order_id, 5, 'BENCH', 'allocated', actor, 2);
    INSERT INTO bench.order_lines (order_id, line, sku, ordered, allocated)
    SELECT order_id, place, 'B-' || n.number, 1, 1 FROM unnest(numbers) WITH ORDINALITY AS n (number, place);
    INSERT INTO bench.allocations (id, order_id, is_first, mode, step, reservation_id, asked_by, next_attempt_at, deadline)
    VALUES (allocation, order_id, true, 'all', 'done', reservation, actor, now(), now());
    INSERT INTO bench.allocation_lines (allocation_id, place, line, asked, quantity)
    SELECT allocation, place, place, 1, 1 FROM generate_series(1, 3) AS place;
    INSERT INTO bench.order_outbox (event_id, type, subject, data)
    VALUES (:new_id, 'order.placed', order_id::text, told), (:new_id, 'order.allocated', order_id::text, told);
    INSERT INTO bench.order_idempotency_keys (actor, key, fingerprint, resource_id, status, body)
    VALUES ('user:' || actor, caller_key, sha256(caller_key::bytea), allocation, 201, told::text);

    INSERT INTO bench.reservations (id, reference, status, expires_at, actor)
    VALUES (reservation, 'SO-100001', 'confirmed', now() + interval '15 minutes', actor);
    INSERT INTO bench.reservation_lines (reservation_id, line, item_id, warehouse_id, requested, quantity)
    SELECT reservation, place, bench.item(n.number), bench.warehouse(), 1, 1
      FROM unnest(numbers) WITH ORDINALITY AS n (number, place);
    INSERT INTO bench.outbox (event_id, type, subject, data)
    VALUES (:new_id, 'reservation.held', reservation::text, held),
           (:new_id, 'reservation.confirmed', reservation::text, held);
    INSERT INTO bench.idempotency_keys (actor, key, fingerprint, status, body)
    VALUES ('service:order-service', allocation || '-1', sha256(caller_key::bytea), 201, held::text);
    -- In the order of the key, as everybody must.
    FOR number IN SELECT n FROM unnest(numbers) AS n ORDER BY n LOOP
        UPDATE bench.stock_levels SET allocated = allocated + 1
         WHERE item_id = bench.item(number) AND warehouse_id = bench.warehouse() AND sellable - reserved - allocated >= 1;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'insufficient stock';
        END IF;
    END LOOP;
    RETURN order_id;
END $$;
