-- What the kit keeps in the schema of every service: remembered answers, the outbox, and how far foreign feeds were read.

CREATE TABLE idempotency_keys (
    actor text NOT NULL,
    key text NOT NULL,
    fingerprint bytea NOT NULL,
    -- NULL while a request of several steps is under way; resource_id then says what it is making.
    status smallint,
    body text,
    resource_id uuid,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (actor, key)
);
CREATE INDEX idempotency_keys_created_at ON idempotency_keys USING brin (created_at);
CREATE UNIQUE INDEX idempotency_keys_unfinished ON idempotency_keys (resource_id) WHERE status IS NULL;
GRANT SELECT, INSERT, UPDATE, DELETE ON idempotency_keys TO :service_role;

CREATE TABLE outbox (
    -- First in the table so that its default is evaluated before the identity's: a position is never taken by a
    -- transaction without a number, which is what lets a reader know that no lower position can still appear.
    transaction_id xid8 NOT NULL DEFAULT pg_current_xact_id(),
    position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id uuid NOT NULL UNIQUE,
    type text NOT NULL,
    subject text NOT NULL,
    occurred_at timestamptz NOT NULL DEFAULT now(),
    data jsonb NOT NULL
);
CREATE INDEX outbox_subject ON outbox (subject);
GRANT SELECT, INSERT ON outbox TO :service_role;
GRANT SELECT ON SEQUENCE outbox_position_seq TO :service_role;

CREATE TABLE feed_cursors (
    source text PRIMARY KEY,
    position bigint NOT NULL DEFAULT 0,
    updated_at timestamptz NOT NULL DEFAULT now()
);
GRANT SELECT, INSERT, UPDATE ON feed_cursors TO :service_role;
