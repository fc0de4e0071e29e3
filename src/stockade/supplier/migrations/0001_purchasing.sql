-- Suppliers, what they offer, what was ordered from them, and what has come.

CREATE TABLE suppliers (
    id uuid PRIMARY KEY,
    code text NOT NULL CHECK (code ~ '^[A-Za-z0-9][A-Za-z0-9._/-]{0,63}$'),
    name text NOT NULL CHECK (name <> ''),
    email text,
    lead_time_days integer CHECK (lead_time_days BETWEEN 0 AND 3650),
    over_receipt_tolerance numeric(7, 6) NOT NULL CHECK (over_receipt_tolerance BETWEEN 0 AND 1),
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    version integer NOT NULL DEFAULT 1,
    CONSTRAINT suppliers_code_taken UNIQUE (code)
);
GRANT SELECT, INSERT ON suppliers TO :service_role;
GRANT UPDATE (name, email, lead_time_days, over_receipt_tolerance, version) ON suppliers TO :service_role;

CREATE TABLE supplier_items (
    supplier_id uuid NOT NULL REFERENCES suppliers,
    sku text NOT NULL,
    supplier_sku text,
    unit_cost numeric(18, 6) NOT NULL CHECK (unit_cost >= 0),
    minimum_quantity numeric(18, 6) CHECK (minimum_quantity > 0),
    pack_size numeric(18, 6) CHECK (pack_size > 0),
    changed_by text NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (supplier_id, sku)
);
CREATE INDEX supplier_items_sku ON supplier_items (sku);
GRANT SELECT, INSERT ON supplier_items TO :service_role;
GRANT UPDATE (supplier_sku, unit_cost, minimum_quantity, pack_size, changed_by, changed_at)
    ON supplier_items TO :service_role;

-- Every change of an order, of its lines or of its receipts holds the lock of the order's row.
CREATE TABLE purchase_orders (
    id uuid PRIMARY KEY,
    serial bigint GENERATED ALWAYS AS IDENTITY,
    number text NOT NULL GENERATED ALWAYS AS
        ('PO-' || lpad(serial::text, greatest(6, length(serial::text)), '0')) STORED UNIQUE,
    supplier_id uuid NOT NULL REFERENCES suppliers,
    warehouse text NOT NULL,
    reference text,
    expected_on date,
    status text NOT NULL DEFAULT 'draft' CHECK (status IN (
        'draft', 'pending_approval', 'approved', 'rejected', 'sent', 'partially_received', 'received', 'closed', 'cancelled'
    )),
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    approved_by text,
    version integer NOT NULL DEFAULT 1,
    CHECK (approved_by IS NOT NULL OR status NOT IN ('approved', 'sent', 'partially_received', 'received', 'closed'))
);
CREATE INDEX purchase_orders_supplier ON purchase_orders (supplier_id, id);
CREATE INDEX purchase_orders_status ON purchase_orders (status, id);
GRANT SELECT, INSERT ON purchase_orders TO :service_role;
GRANT UPDATE (expected_on, status, approved_by, version) ON purchase_orders TO :service_role;

CREATE TABLE purchase_order_lines (
    id uuid PRIMARY KEY,
    purchase_order_id uuid NOT NULL REFERENCES purchase_orders,
    line integer NOT NULL CHECK (line BETWEEN 1 AND 1000),
    sku text NOT NULL,
    unit_cost numeric(18, 6) CHECK (unit_cost >= 0),
    -- The supplier's tolerance on the day of the order: a later agreement does not reach back.
    tolerance numeric(7, 6) NOT NULL CHECK (tolerance BETWEEN 0 AND 1),
    ordered numeric(18, 6) NOT NULL CHECK (ordered > 0),
    received numeric(18, 6) NOT NULL DEFAULT 0 CHECK (received >= 0),
    -- What receipts under way will add to `received`. It counts against the tolerance from the first moment.
    receiving numeric(18, 6) NOT NULL DEFAULT 0 CHECK (receiving >= 0),
    UNIQUE (purchase_order_id, line),
    CONSTRAINT purchase_order_lines_within_tolerance CHECK (received + receiving <= ordered * (1 + tolerance))
);
GRANT SELECT, INSERT ON purchase_order_lines TO :service_role;
GRANT UPDATE (received, receiving) ON purchase_order_lines TO :service_role;

CREATE TABLE receipts (
    id uuid PRIMARY KEY,
    serial bigint GENERATED ALWAYS AS IDENTITY,
    number text NOT NULL GENERATED ALWAYS AS
        ('GR-' || lpad(serial::text, greatest(6, length(serial::text)), '0')) STORED UNIQUE,
    purchase_order_id uuid NOT NULL REFERENCES purchase_orders,
    reference text,
    status text NOT NULL DEFAULT 'posting' CHECK (status IN ('posting', 'posted')),
    movement_id uuid UNIQUE,
    received_by text NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    -- Until when the receipt should be posted; later than that somebody has to look (check I16).
    deadline timestamptz NOT NULL,
    attempts integer NOT NULL DEFAULT 1 CHECK (attempts >= 1),
    -- Until then the receipt belongs to the attempt under way, or rests after a failed one.
    next_attempt_at timestamptz NOT NULL,
    CHECK ((status = 'posted') = (movement_id IS NOT NULL))
);
CREATE INDEX receipts_purchase_order ON receipts (purchase_order_id, id);
CREATE INDEX receipts_due ON receipts (next_attempt_at) WHERE status = 'posting';
-- DELETE is for a receipt that the inventory-service refused; the trigger below keeps it away from posted ones.
GRANT SELECT, INSERT, DELETE ON receipts TO :service_role;
GRANT UPDATE (status, movement_id, attempts, next_attempt_at) ON receipts TO :service_role;

CREATE FUNCTION refuse_change_of_posted_receipt() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'goods receipt % is posted and never changes', OLD.number USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER receipts_stay_posted BEFORE UPDATE OR DELETE ON receipts
    FOR EACH ROW WHEN (OLD.status = 'posted') EXECUTE FUNCTION refuse_change_of_posted_receipt();

CREATE TABLE receipt_lines (
    receipt_id uuid NOT NULL REFERENCES receipts ON DELETE CASCADE,
    line integer NOT NULL CHECK (line BETWEEN 1 AND 1000),
    purchase_order_line_id uuid NOT NULL REFERENCES purchase_order_lines,
    quantity numeric(18, 6) NOT NULL CHECK (quantity > 0),
    lot text,
    expires_on date,
    location text,
    PRIMARY KEY (receipt_id, line)
);
CREATE INDEX receipt_lines_purchase_order_line ON receipt_lines (purchase_order_line_id);
GRANT SELECT, INSERT ON receipt_lines TO :service_role;
