-- What pgbench does: the rows of one reservation, one transaction each, as one prepared call of one function. The tables
-- are copies of the inventory-service's, with all their indexes and checks, so that both sides always write the same.
--
-- The reference is kept as strong as it can be: it is given the item's id, where the product looks it up by SKU; it parses
-- nothing; and it takes the lock that everybody waits for last, right before the commit. :new_id is what PostgreSQL has for
-- time-ordered identifiers (uuidv7() from 18 on).

DROP SCHEMA IF EXISTS bench CASCADE;
CREATE SCHEMA bench;

CREATE TABLE bench.stock_levels (LIKE inventory.stock_levels INCLUDING ALL) WITH (fillfactor = 70);
CREATE TABLE bench.reservations (LIKE inventory.reservations INCLUDING ALL);
CREATE TABLE bench.reservation_lines (LIKE inventory.reservation_lines INCLUDING ALL);
ALTER TABLE bench.reservation_lines ADD FOREIGN KEY (reservation_id) REFERENCES bench.reservations;
CREATE TABLE bench.outbox (LIKE inventory.outbox INCLUDING ALL);
CREATE TABLE bench.idempotency_keys (LIKE inventory.idempotency_keys INCLUDING ALL);

CREATE FUNCTION bench.warehouse() RETURNS uuid LANGUAGE sql IMMUTABLE AS
    $$ SELECT '00000000-0000-7000-9000-000000000001'::uuid $$;
CREATE FUNCTION bench.item(number integer) RETURNS uuid LANGUAGE sql IMMUTABLE AS
    $$ SELECT ('00000000-0000-7000-8000-' || lpad(number::text, 12, '0'))::uuid $$;

INSERT INTO bench.stock_levels (item_id, warehouse_id, on_hand, sellable)
SELECT bench.item(number), bench.warehouse(), 1000000000, 1000000000 FROM generate_series(1, :skus) AS number;

CREATE FUNCTION bench.reserve(number integer) RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
    reservation uuid := :new_id;
    item uuid := bench.item(number);
    actor text := '01a20000-0000-7000-8000-000000000001';
    caller_key text := gen_random_uuid()::text;
    due timestamptz := clock_timestamp() + interval '1 day';
BEGIN
    INSERT INTO bench.reservations (id, status, expires_at, actor) VALUES (reservation, 'held', due, actor);
    INSERT INTO bench.reservation_lines (reservation_id, line, item_id, warehouse_id, requested, quantity)
    VALUES (reservation, 1, item, bench.warehouse(), 1, 1);
    INSERT INTO bench.outbox (event_id, type, subject, data)
    VALUES (:new_id, 'reservation.held', reservation::text, jsonb_build_object(
        'id', reservation, 'reference', NULL, 'status', 'held', 'actor', actor,
        'lines', jsonb_build_array(jsonb_build_object('line', 1, 'sku', 'B-000001', 'warehouse', 'BENCH',
                                                      'quantity', '1', 'consumed', '0', 'released', '0'))));
    INSERT INTO bench.idempotency_keys (actor, key, fingerprint, status, body)
    VALUES ('user:' || actor, caller_key, sha256(caller_key::bytea), 201, format(
        '{"id":"%s","reference":null,"status":"held","expires_at":"%s","lines":[{"line":1,"sku":"B-000001",'
        '"warehouse":"BENCH","requested":"1","quantity":"1","consumed":"0"}]}', reservation, due));
    UPDATE bench.stock_levels SET reserved = reserved + 1
     WHERE item_id = item AND warehouse_id = bench.warehouse() AND sellable - reserved - allocated >= 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'insufficient stock';
    END IF;
    RETURN reservation;
END $$;
