-- Customers, sales orders, the reservations behind them, shipments and returns.

CREATE TABLE customers (
    id uuid PRIMARY KEY,
    code text NOT NULL,
    name text NOT NULL,
    email text,
    address text,
    created_by text NOT NULL,
    version integer NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT customers_code_taken UNIQUE (code)
);
GRANT SELECT, INSERT, UPDATE ON customers TO :service_role;

-- Numbers have gaps: an order that was refused has taken one and is gone.
CREATE SEQUENCE order_numbers START 100001;
CREATE SEQUENCE shipment_numbers START 100001;
CREATE SEQUENCE return_numbers START 100001;
GRANT USAGE ON SEQUENCE order_numbers, shipment_numbers, return_numbers TO :service_role;

CREATE TABLE orders (
    id uuid PRIMARY KEY,
    number text NOT NULL DEFAULT 'SO-' || nextval('order_numbers'),
    customer_id uuid REFERENCES customers,
    reference text,
    priority smallint NOT NULL CHECK (priority BETWEEN 0 AND 9),
    warehouse text NOT NULL,
    -- `placing` is seen by nobody: the order is not accepted yet, and is removed if it is refused.
    status text NOT NULL CHECK (status IN (
        'placing', 'confirmed', 'allocated', 'partially_allocated', 'partially_shipped', 'shipped', 'cancelled',
        'partially_returned', 'returned'
    )),
    placed_by text NOT NULL,
    version integer NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT orders_number_taken UNIQUE (number)
) WITH (fillfactor = 85);
CREATE INDEX orders_customer ON orders (customer_id, id) WHERE customer_id IS NOT NULL;
CREATE INDEX orders_status ON orders (status, id);
GRANT SELECT, INSERT, UPDATE, DELETE ON orders TO :service_role;

CREATE TABLE order_lines (
    order_id uuid NOT NULL REFERENCES orders ON DELETE CASCADE,
    line smallint NOT NULL CHECK (line BETWEEN 1 AND 256),
    sku text NOT NULL,
    unit_price numeric(18, 6) CHECK (unit_price >= 0),
    ordered numeric(18, 6) NOT NULL CHECK (ordered > 0),
    allocated numeric(18, 6) NOT NULL DEFAULT 0 CHECK (allocated >= 0),
    backordered numeric(18, 6) NOT NULL DEFAULT 0 CHECK (backordered >= 0),
    shipped numeric(18, 6) NOT NULL DEFAULT 0 CHECK (shipped >= 0),
    cancelled numeric(18, 6) NOT NULL DEFAULT 0 CHECK (cancelled >= 0),
    returned numeric(18, 6) NOT NULL DEFAULT 0 CHECK (returned >= 0),
    -- The part of `allocated` for which a shipment is being posted, and the part of `shipped` that is being returned.
    being_shipped numeric(18, 6) NOT NULL DEFAULT 0 CHECK (being_shipped >= 0),
    being_returned numeric(18, 6) NOT NULL DEFAULT 0 CHECK (being_returned >= 0),
    PRIMARY KEY (order_id, line),
    CONSTRAINT order_lines_add_up CHECK (ordered = allocated + backordered + shipped + cancelled),
    CONSTRAINT order_lines_ship_what_is_allocated CHECK (being_shipped <= allocated),
    CONSTRAINT order_lines_return_what_was_shipped CHECK (returned + being_returned <= shipped)
) WITH (fillfactor = 85);
-- The lines of an order go only with the order, so this service may not delete them alone.
GRANT SELECT, INSERT, UPDATE ON order_lines TO :service_role;

-- One reservation of the inventory-service for an order, and the saga that gets it. hold → confirm → done, and when the
-- order is cancelled release → released; undo gives back what was never done, after which the row is removed.
CREATE TABLE allocations (
    id uuid PRIMARY KEY,
    order_id uuid NOT NULL REFERENCES orders ON DELETE CASCADE,
    -- The first one decides whether the order is accepted; later ones fill back orders.
    is_first boolean NOT NULL,
    mode text NOT NULL CHECK (mode IN ('all', 'partial')),
    step text NOT NULL DEFAULT 'hold' CHECK (step IN ('hold', 'confirm', 'done', 'undo', 'release', 'released')),
    -- A new hold after an expired one is a new request with a new key.
    attempt smallint NOT NULL DEFAULT 1 CHECK (attempt BETWEEN 1 AND 1000),
    reservation_id uuid,
    asked_by text NOT NULL,
    tries integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL,
    deadline timestamptz NOT NULL,
    CONSTRAINT allocations_know_their_reservation CHECK (reservation_id IS NOT NULL OR step IN ('hold', 'undo'))
) WITH (fillfactor = 85);
CREATE INDEX allocations_order ON allocations (order_id);
CREATE UNIQUE INDEX allocations_one_at_a_time ON allocations (order_id) WHERE step IN ('hold', 'confirm', 'undo');
CREATE INDEX allocations_open ON allocations (next_attempt_at) WHERE step IN ('hold', 'confirm', 'undo', 'release');
GRANT SELECT, INSERT, UPDATE, DELETE ON allocations TO :service_role;

CREATE TABLE allocation_lines (
    allocation_id uuid NOT NULL REFERENCES allocations ON DELETE CASCADE,
    -- The line of the reservation, which has only the lines of the order that needed something.
    place smallint NOT NULL CHECK (place BETWEEN 1 AND 256),
    line smallint NOT NULL,
    asked numeric(18, 6) NOT NULL CHECK (asked > 0),
    -- What was granted, and how much of that shipments took.
    quantity numeric(18, 6) NOT NULL,
    taken numeric(18, 6) NOT NULL DEFAULT 0,
    PRIMARY KEY (allocation_id, place),
    CONSTRAINT allocation_lines_in_bounds CHECK (0 <= taken AND taken <= quantity AND quantity <= asked)
) WITH (fillfactor = 85);
GRANT SELECT, INSERT, UPDATE ON allocation_lines TO :service_role;

CREATE TABLE shipments (
    id uuid PRIMARY KEY,
    number text NOT NULL DEFAULT 'SH-' || nextval('shipment_numbers'),
    order_id uuid NOT NULL REFERENCES orders,
    status text NOT NULL DEFAULT 'posting' CHECK (status IN ('posting', 'posted')),
    shipped_by text NOT NULL,
    shipped_at timestamptz,
    tries integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL,
    deadline timestamptz NOT NULL,
    CONSTRAINT shipments_number_taken UNIQUE (number),
    CONSTRAINT shipments_posted_once CHECK ((status = 'posted') = (shipped_at IS NOT NULL))
);
CREATE INDEX shipments_order ON shipments (order_id);
CREATE INDEX shipments_open ON shipments (next_attempt_at) WHERE status = 'posting';
GRANT SELECT, INSERT, UPDATE, DELETE ON shipments TO :service_role;

-- A shipment takes from one or more reservations, and each consumption is one movement of stock.
CREATE TABLE shipment_parts (
    shipment_id uuid NOT NULL REFERENCES shipments ON DELETE CASCADE,
    allocation_id uuid NOT NULL REFERENCES allocations,
    movement_id uuid,
    is_refused boolean NOT NULL DEFAULT false,
    PRIMARY KEY (shipment_id, allocation_id),
    CONSTRAINT shipment_parts_refused_or_posted CHECK (NOT is_refused OR movement_id IS NULL)
);
CREATE INDEX shipment_parts_allocation ON shipment_parts (allocation_id);
GRANT SELECT, INSERT, UPDATE ON shipment_parts TO :service_role;

CREATE TABLE shipment_lines (
    shipment_id uuid NOT NULL,
    allocation_id uuid NOT NULL,
    place smallint NOT NULL,
    line smallint NOT NULL,
    quantity numeric(18, 6) NOT NULL CHECK (quantity > 0),
    PRIMARY KEY (shipment_id, allocation_id, place),
    FOREIGN KEY (shipment_id, allocation_id) REFERENCES shipment_parts ON DELETE CASCADE
);
GRANT SELECT, INSERT ON shipment_lines TO :service_role;

CREATE TABLE returns (
    id uuid PRIMARY KEY,
    number text NOT NULL DEFAULT 'RT-' || nextval('return_numbers'),
    order_id uuid NOT NULL REFERENCES orders,
    status text NOT NULL DEFAULT 'posting' CHECK (status IN ('posting', 'posted')),
    reason text,
    movement_id uuid,
    returned_by text NOT NULL,
    returned_at timestamptz,
    tries integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL,
    deadline timestamptz NOT NULL,
    CONSTRAINT returns_number_taken UNIQUE (number),
    CONSTRAINT returns_posted_once CHECK ((status = 'posted') = (returned_at IS NOT NULL)),
    CONSTRAINT returns_posted_by_a_movement CHECK ((status = 'posted') = (movement_id IS NOT NULL))
);
CREATE INDEX returns_order ON returns (order_id);
CREATE INDEX returns_open ON returns (next_attempt_at) WHERE status = 'posting';
GRANT SELECT, INSERT, UPDATE, DELETE ON returns TO :service_role;

CREATE TABLE return_lines (
    return_id uuid NOT NULL REFERENCES returns ON DELETE CASCADE,
    place smallint NOT NULL CHECK (place BETWEEN 1 AND 256),
    line smallint NOT NULL,
    quantity numeric(18, 6) NOT NULL CHECK (quantity > 0),
    disposition text NOT NULL CHECK (disposition IN ('restock', 'quality_hold', 'damaged')),
    lot text,
    PRIMARY KEY (return_id, place)
);
GRANT SELECT, INSERT ON return_lines TO :service_role;

-- Only what never happened may be removed; the grants above cannot say that.
CREATE FUNCTION refuse_deletion() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% % is history and cannot be deleted', TG_TABLE_NAME, OLD.id USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER orders_stay BEFORE DELETE ON orders
    FOR EACH ROW WHEN (OLD.status <> 'placing') EXECUTE FUNCTION refuse_deletion();
CREATE TRIGGER allocations_stay BEFORE DELETE ON allocations
    FOR EACH ROW WHEN (OLD.step NOT IN ('hold', 'confirm', 'undo')) EXECUTE FUNCTION refuse_deletion();
CREATE TRIGGER shipments_stay BEFORE DELETE ON shipments
    FOR EACH ROW WHEN (OLD.status <> 'posting') EXECUTE FUNCTION refuse_deletion();
CREATE TRIGGER returns_stay BEFORE DELETE ON returns
    FOR EACH ROW WHEN (OLD.status <> 'posting') EXECUTE FUNCTION refuse_deletion();
