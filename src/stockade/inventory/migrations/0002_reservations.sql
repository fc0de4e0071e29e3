-- Reservations: held until they expire, then confirmed, consumed in parts, or given back.

CREATE TABLE reservations (
    id uuid PRIMARY KEY,
    reference text,
    status text NOT NULL CHECK (status IN ('held', 'confirmed', 'partially_consumed', 'consumed', 'released', 'expired')),
    expires_at timestamptz NOT NULL,
    actor text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX reservations_due ON reservations (expires_at) WHERE status = 'held';
GRANT SELECT, INSERT, UPDATE ON reservations TO :service_role;

CREATE TABLE reservation_lines (
    reservation_id uuid NOT NULL REFERENCES reservations,
    line integer NOT NULL CHECK (line > 0),
    item_id uuid NOT NULL,
    warehouse_id uuid NOT NULL,
    requested numeric(18, 6) NOT NULL CHECK (requested > 0),
    quantity numeric(18, 6) NOT NULL CHECK (quantity >= 0 AND quantity <= requested),
    consumed numeric(18, 6) NOT NULL DEFAULT 0 CHECK (consumed >= 0),
    released numeric(18, 6) NOT NULL DEFAULT 0 CHECK (released >= 0),
    PRIMARY KEY (reservation_id, line),
    CONSTRAINT reservation_lines_spent_within_quantity CHECK (consumed + released <= quantity)
);
CREATE INDEX reservation_lines_open ON reservation_lines (item_id, warehouse_id) WHERE consumed + released < quantity;
GRANT SELECT, INSERT, UPDATE ON reservation_lines TO :service_role;
