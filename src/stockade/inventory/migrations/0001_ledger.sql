-- Warehouses and the double-entry stock ledger.

CREATE TABLE items (
    -- The product's id, its SKU and what stock needs to know of it; the catalog owns them and tells of every change.
    id uuid PRIMARY KEY,
    sku text NOT NULL UNIQUE,
    name text NOT NULL,
    unit text NOT NULL,
    tracking text NOT NULL CHECK (tracking IN ('none', 'lot', 'serial')),
    is_active boolean NOT NULL,
    version integer NOT NULL
);
GRANT SELECT, INSERT, UPDATE ON items TO :service_role;

CREATE TABLE warehouses (
    id uuid PRIMARY KEY,
    code text NOT NULL,
    name text NOT NULL,
    version integer NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT warehouses_code_taken UNIQUE (code)
);
GRANT SELECT, INSERT, UPDATE ON warehouses TO :service_role;

CREATE TABLE locations (
    id uuid PRIMARY KEY,
    warehouse_id uuid NOT NULL REFERENCES warehouses,
    -- Virtual locations have codes that start with @, which no location of a person can have.
    code text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('physical', 'supplier', 'customer', 'adjustment', 'production', 'scrap', 'transit')),
    created_at timestamptz NOT NULL DEFAULT now(),
    CHECK ((kind = 'physical') = (code NOT LIKE '@%')),
    CONSTRAINT locations_code_taken UNIQUE (warehouse_id, code)
);
GRANT SELECT, INSERT ON locations TO :service_role;

CREATE TABLE lots (
    id uuid PRIMARY KEY,
    item_id uuid NOT NULL REFERENCES items,
    code text NOT NULL,
    expires_on date,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (item_id, code)
);
GRANT SELECT, INSERT ON lots TO :service_role;

-- The row that a decision locks: one item in one warehouse.
CREATE TABLE stock_levels (
    item_id uuid NOT NULL REFERENCES items,
    warehouse_id uuid NOT NULL REFERENCES warehouses,
    on_hand numeric(18, 6) NOT NULL DEFAULT 0,
    sellable numeric(18, 6) NOT NULL DEFAULT 0,
    reserved numeric(18, 6) NOT NULL DEFAULT 0,
    allocated numeric(18, 6) NOT NULL DEFAULT 0,
    PRIMARY KEY (item_id, warehouse_id),
    CHECK (on_hand >= 0),
    CHECK (sellable >= 0 AND sellable <= on_hand),
    CHECK (reserved >= 0),
    CHECK (allocated >= 0),
    CONSTRAINT stock_levels_promises_are_covered CHECK (reserved + allocated <= sellable)
) WITH (fillfactor = 70);
CREATE INDEX stock_levels_warehouse ON stock_levels (warehouse_id, item_id);
GRANT SELECT, INSERT, UPDATE ON stock_levels TO :service_role;

CREATE TABLE balances (
    item_id uuid NOT NULL,
    warehouse_id uuid NOT NULL,
    location_id uuid NOT NULL REFERENCES locations,
    -- The nil UUID is "no lot", so that it can be part of the key.
    lot_id uuid NOT NULL,
    status text NOT NULL CHECK (status IN ('sellable', 'quality_hold', 'quarantined', 'damaged')),
    is_physical boolean NOT NULL,
    quantity numeric(18, 6) NOT NULL,
    PRIMARY KEY (item_id, location_id, lot_id, status),
    CONSTRAINT balances_physical_not_negative CHECK (quantity >= 0 OR NOT is_physical)
) WITH (fillfactor = 70);
CREATE INDEX balances_item_warehouse ON balances (item_id, warehouse_id);
GRANT SELECT, INSERT, UPDATE ON balances TO :service_role;

CREATE TABLE movements (
    id uuid PRIMARY KEY,
    type text NOT NULL CHECK (type IN ('receipt', 'issue', 'adjustment', 'transfer', 'status_change', 'reversal')),
    reason text,
    reference text,
    actor text NOT NULL,
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    reverses uuid REFERENCES movements,
    reservation_id uuid,
    CHECK ((type = 'reversal') = (reverses IS NOT NULL)),
    CHECK (occurred_at <= recorded_at),
    CONSTRAINT movements_reversed_once UNIQUE (reverses)
);
CREATE INDEX movements_reference ON movements (reference) WHERE reference IS NOT NULL;
CREATE INDEX movements_reservation ON movements (reservation_id) WHERE reservation_id IS NOT NULL;
GRANT SELECT, INSERT ON movements TO :service_role;

CREATE TABLE entries (
    movement_id uuid NOT NULL REFERENCES movements,
    position integer NOT NULL,
    -- The line of the request that the entry belongs to.
    line integer NOT NULL,
    item_id uuid NOT NULL,
    warehouse_id uuid NOT NULL,
    location_id uuid NOT NULL,
    lot_id uuid NOT NULL,
    status text NOT NULL,
    is_physical boolean NOT NULL,
    quantity numeric(18, 6) NOT NULL CHECK (quantity <> 0),
    -- The balance of this item, location, lot and status after this entry: every entry proves its predecessor.
    balance numeric(18, 6) NOT NULL,
    unit_cost numeric(18, 6) CHECK (unit_cost >= 0),
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (movement_id, position)
);
CREATE INDEX entries_as_of ON entries (item_id, warehouse_id, occurred_at) INCLUDE (quantity, status, is_physical);
GRANT SELECT, INSERT ON entries TO :service_role;

-- I1. Every statement that adds entries must leave their movements balanced; stricter than a check at the commit.
CREATE FUNCTION check_entries_balance() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF EXISTS (
        SELECT FROM entries WHERE movement_id IN (SELECT movement_id FROM added)
         GROUP BY movement_id, item_id HAVING sum(quantity) <> 0
    ) THEN
        RAISE EXCEPTION 'the entries of a movement must sum to zero per item'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'entries_sum_to_zero';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER entries_sum_to_zero AFTER INSERT ON entries
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION check_entries_balance();

CREATE FUNCTION check_movement_has_entries() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF (SELECT count(*) FROM entries WHERE movement_id = NEW.id) < 2 THEN
        RAISE EXCEPTION 'a movement needs two or more entries'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'movements_have_entries';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER movements_have_entries AFTER INSERT ON movements
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_movement_has_entries();

-- The ledger is append-only, for its owner, too.
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: correct it with a reversal', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER movements_are_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON movements
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER entries_are_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON entries
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- I13. One event a movement.
CREATE UNIQUE INDEX outbox_one_event_a_movement ON outbox (subject) WHERE type = 'movement.posted';
