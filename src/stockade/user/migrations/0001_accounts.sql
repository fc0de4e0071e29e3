-- Accounts, the refresh tokens of their sessions, and the audit log of access.

CREATE TABLE accounts (
    id uuid PRIMARY KEY,
    email text NOT NULL CHECK (email = lower(email)),
    name text NOT NULL,
    password_hash text NOT NULL,
    password_change_required boolean NOT NULL DEFAULT false,
    roles text[] NOT NULL,
    is_active boolean NOT NULL DEFAULT true,
    failures integer NOT NULL DEFAULT 0 CHECK (failures >= 0),
    locked_until timestamptz,
    version integer NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT accounts_email_taken UNIQUE (email)
);
GRANT SELECT, INSERT, UPDATE ON accounts TO :service_role;

-- A session is a family of refresh tokens, of which only the youngest is unused.
CREATE TABLE refresh_tokens (
    token_hash bytea PRIMARY KEY,
    session_id uuid NOT NULL,
    account_id uuid NOT NULL REFERENCES accounts,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    used_at timestamptz,
    revoked_at timestamptz
);
CREATE INDEX refresh_tokens_session ON refresh_tokens (session_id);
CREATE INDEX refresh_tokens_account ON refresh_tokens (account_id);
CREATE INDEX refresh_tokens_expires_at ON refresh_tokens (expires_at);
GRANT SELECT, INSERT, UPDATE, DELETE ON refresh_tokens TO :service_role;

CREATE TABLE audit_log (
    id uuid PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    actor text NOT NULL,
    action text NOT NULL,
    account_id uuid,
    details jsonb NOT NULL DEFAULT '{}'
);
-- Append-only: nobody but the owner of the schema can change or remove an entry.
GRANT SELECT, INSERT ON audit_log TO :service_role;
