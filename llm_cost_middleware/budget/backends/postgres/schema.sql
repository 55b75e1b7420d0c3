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

-- version 2
SET LOCAL lock_timeout = '3s';                  -- behind whoever waits for a long report everybody waits

CREATE TABLE llm_cost.memo_kind (               -- memos but for their counts: rows of one kind are added up by SQL
    id   integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    data text    NOT NULL UNIQUE
);

ALTER TABLE llm_cost.entry
    ADD COLUMN memo_kind integer, ADD COLUMN count_1 bigint, ADD COLUMN count_2 bigint, ADD COLUMN count_3 bigint,
    ADD COLUMN count_4 bigint, ADD COLUMN count_5 bigint;

CREATE INDEX entry_single ON llm_cost.entry (tenant, created)   -- what sums must look at row by row: few, from now on
    WHERE (memo_kind IS NULL AND kind <> 'reserve') OR kind = 'reconcile';
CREATE INDEX entry_created ON llm_cost.entry USING brin (created) WITH (pages_per_range = 32, autosummarize = on);

ALTER TABLE llm_cost.reservation ADD COLUMN archived integer;   -- number of the archive that its rows are in

CREATE TABLE llm_cost.upkeep (                  -- who does what one process at a time does
    tenant integer PRIMARY KEY REFERENCES llm_cost.tenant (id),
    token  text   NOT NULL,
    until  bigint NOT NULL
);

CREATE TABLE llm_cost.archive (
    tenant  integer NOT NULL REFERENCES llm_cost.tenant (id),
    number  integer NOT NULL,
    before  bigint  NOT NULL,
    path    text    NOT NULL,                   -- empty: the rows are rolled up, and kept nowhere
    state   text    NOT NULL DEFAULT 'closing', -- then written, then moved
    last    bigint  NOT NULL,                   -- the newest row at its beginning
    sha256  text,
    rows    bigint  NOT NULL DEFAULT 0,
    carried bigint  NOT NULL DEFAULT 0,
    settled bigint  NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, number)
);

CREATE TABLE llm_cost.erasure (                 -- a person's scope that was replaced; by which, never whose
    tenant integer NOT NULL REFERENCES llm_cost.tenant (id),
    number integer GENERATED ALWAYS AS IDENTITY,
    alias  text    NOT NULL,
    last   bigint  NOT NULL,                    -- rows up to this one are renamed
    state  text    NOT NULL DEFAULT 'open',     -- then done
    PRIMARY KEY (tenant, number)
);

-- Rows leave when an archive has them, and change in nothing but the name of a scope while one is erased.
CREATE OR REPLACE FUNCTION llm_cost.entry_stays() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    renamed llm_cost.entry;
BEGIN
    IF TG_OP = 'DELETE' AND EXISTS (
        SELECT 1 FROM llm_cost.reservation r JOIN llm_cost.archive a ON a.tenant = r.tenant AND a.number = r.archived
            WHERE r.tenant = OLD.tenant AND r.id = OLD.id AND a.state = 'written'
    ) THEN
        RETURN OLD;
    ELSIF TG_OP = 'UPDATE' AND EXISTS (SELECT 1 FROM llm_cost.erasure WHERE tenant = OLD.tenant AND state = 'open') THEN
        renamed := NEW;
        renamed.scopes := OLD.scopes;
        IF renamed IS NOT DISTINCT FROM OLD THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION 'the ledger is append-only';
END $$;

-- version 3
SET LOCAL lock_timeout = '3s';                  -- as in version 2

ALTER TABLE llm_cost.erasure ADD COLUMN digest text;    -- of the scope, while it is open: to know it again
