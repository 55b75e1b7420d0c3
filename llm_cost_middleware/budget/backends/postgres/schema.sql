-- The ledger in PostgreSQL. Sections are append-only: a database of version n is brought forward by those after n.

-- version 1
CREATE TABLE llm_cost.tenant (
    id      integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name    text   NOT NULL UNIQUE,
    version bigint NOT NULL DEFAULT 1           -- of its budgets: processes compare it with the one they hold
);

CREATE TABLE llm_cost.budget (                  -- by scope and window; and the register of all of them
    tenant integer NOT NULL REFERENCES llm_cost.tenant (id),
    name   text    NOT NULL,
    value  text    NOT NULL,                    -- JSON
    PRIMARY KEY (tenant, name)
);

CREATE TABLE llm_cost.account (                 -- one scope in one window
    id     bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant integer NOT NULL REFERENCES llm_cost.tenant (id),
    name   text    NOT NULL,
    warned bigint  NOT NULL DEFAULT -1,         -- the cell that last crossed warn_at
    UNIQUE (tenant, name)
);

-- The sums of an account in one stretch of time. Connections that share no limit write rows of their own (stripes):
-- none waits for the commit of another.
CREATE TABLE llm_cost.cell (
    account bigint   NOT NULL REFERENCES llm_cost.account (id),
    cell    bigint   NOT NULL,
    stripe  smallint NOT NULL,
    settled bigint   NOT NULL,
    pending bigint   NOT NULL,
    PRIMARY KEY (account, cell, stripe)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);

CREATE TABLE llm_cost.reservation (             -- what became of an id: a summary of its entries
    tenant     integer NOT NULL REFERENCES llm_cost.tenant (id),
    id         text    NOT NULL,
    scopes     text    NOT NULL,                -- separated by spaces
    amount     bigint  NOT NULL,
    created    bigint  NOT NULL,                -- ms since the Unix epoch, as every time here
    expires    bigint  NOT NULL,
    state      text    NOT NULL,
    charged    bigint  NOT NULL DEFAULT 0,
    verb       text,
    actual     bigint  NOT NULL DEFAULT 0,
    status     text,
    late       boolean NOT NULL DEFAULT false,
    resolved   bigint  NOT NULL DEFAULT 0,
    reconciled bigint  NOT NULL DEFAULT 0,
    warnings   text    NOT NULL DEFAULT '',
    refusal    text,
    requested  bigint,
    writer     text,                            -- whose reply may have been lost
    reducer    text,
    PRIMARY KEY (tenant, id)
) WITH (fillfactor = 70);

CREATE INDEX reservation_open ON llm_cost.reservation (tenant, expires) WHERE state = 'pending';

CREATE TABLE llm_cost.entry (                   -- the ledger itself
    tenant  integer NOT NULL REFERENCES llm_cost.tenant (id),
    seq     bigint  GENERATED ALWAYS AS IDENTITY,
    kind    text    NOT NULL,
    id      text    NOT NULL,
    at      bigint  NOT NULL,
    amount  bigint  NOT NULL,
    scopes  text    NOT NULL,
    status  text    NOT NULL,
    created bigint  NOT NULL,                   -- when the money was reserved: whose window it counts in
    settled bigint  NOT NULL,                   -- what this line changed in the sums of its scopes
    pending bigint  NOT NULL,
    memo    bytea   NOT NULL,
    PRIMARY KEY (tenant, seq)
);

CREATE INDEX entry_at ON llm_cost.entry (tenant, at);

CREATE FUNCTION llm_cost.entry_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is append-only';
END $$;

CREATE TRIGGER entry_is_never_changed BEFORE UPDATE OR DELETE ON llm_cost.entry
    FOR EACH ROW EXECUTE FUNCTION llm_cost.entry_stays();
CREATE TRIGGER entry_is_never_emptied BEFORE TRUNCATE ON llm_cost.entry
    FOR EACH STATEMENT EXECUTE FUNCTION llm_cost.entry_stays();

CREATE TABLE llm_cost.mark (                    -- the journal: small records besides money
    tenant integer NOT NULL REFERENCES llm_cost.tenant (id),
    kind   text    NOT NULL,
    seq    bigint  GENERATED ALWAYS AS IDENTITY,
    id     text    NOT NULL,
    at     double precision NOT NULL,
    data   bytea   NOT NULL,
    PRIMARY KEY (tenant, kind, seq)
);

CREATE TABLE llm_cost.shared (                  -- small values besides money that processes share: a cache
    tenant integer NOT NULL REFERENCES llm_cost.tenant (id),
    key    text    NOT NULL,
    at     double precision NOT NULL,
    data   bytea   NOT NULL,
    PRIMARY KEY (tenant, key)
);

CREATE INDEX shared_age ON llm_cost.shared (tenant, at);
