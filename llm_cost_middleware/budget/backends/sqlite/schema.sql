-- The ledger in SQLite. Sections are append-only: a database of version n is brought forward by those after n.

-- version 1
CREATE TABLE tenant (
    id      INTEGER PRIMARY KEY,
    name    TEXT NOT NULL UNIQUE,
    version INTEGER NOT NULL DEFAULT 1          -- of its budgets: processes compare it with the one they hold
);

CREATE TABLE budget (
    tenant        INTEGER NOT NULL REFERENCES tenant (id),
    scope         TEXT    NOT NULL,             -- may be a template, kind:*
    "window"      TEXT    NOT NULL,
    limit_nanousd INTEGER NOT NULL CHECK (typeof(limit_nanousd) = 'integer' AND limit_nanousd >= 0),
    timezone      TEXT    NOT NULL,
    warn_at       TEXT,                         -- a decimal, or NULL for never
    PRIMARY KEY (tenant, scope, "window")
) WITHOUT ROWID;

CREATE TABLE account (                          -- one scope in one window
    id       INTEGER PRIMARY KEY,
    tenant   INTEGER NOT NULL REFERENCES tenant (id),
    scope    TEXT    NOT NULL,
    "window" TEXT    NOT NULL,
    warned   INTEGER NOT NULL DEFAULT -1,       -- the cell that last crossed warn_at
    UNIQUE (tenant, scope, "window")
);

CREATE TABLE cell (                             -- the sums of an account in one stretch of time
    account INTEGER NOT NULL REFERENCES account (id),
    cell    INTEGER NOT NULL,
    settled INTEGER NOT NULL CHECK (typeof(settled) = 'integer'),   -- an overflow would turn it into a float
    pending INTEGER NOT NULL CHECK (typeof(pending) = 'integer'),
    PRIMARY KEY (account, cell)
) WITHOUT ROWID;

CREATE TABLE reservation (                      -- what became of an id: a summary of its entries
    tenant     INTEGER NOT NULL REFERENCES tenant (id),
    id         TEXT    NOT NULL,
    scopes     TEXT    NOT NULL,                -- separated by spaces
    amount     INTEGER NOT NULL,
    created    INTEGER NOT NULL,                -- ms since the Unix epoch, as every time here
    expires    INTEGER NOT NULL,
    state      TEXT    NOT NULL DEFAULT 'pending',
    charged    INTEGER NOT NULL DEFAULT 0,
    verb       TEXT    NOT NULL DEFAULT 'settle',
    actual     INTEGER NOT NULL DEFAULT 0,
    status     TEXT    NOT NULL DEFAULT 'reserved',
    late       INTEGER NOT NULL DEFAULT 0,
    resolved   INTEGER NOT NULL DEFAULT 0,
    reconciled INTEGER NOT NULL DEFAULT 0,
    warnings   TEXT    NOT NULL DEFAULT '',     -- JSON
    refusal    TEXT    NOT NULL DEFAULT '',     -- JSON
    PRIMARY KEY (tenant, id)
) WITHOUT ROWID;

CREATE INDEX reservation_open ON reservation (tenant, expires) WHERE state = 'pending';

CREATE TABLE entry (                            -- the ledger itself
    seq      INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant   INTEGER NOT NULL,
    kind     TEXT    NOT NULL,
    id       TEXT    NOT NULL,
    at       INTEGER NOT NULL,
    amount   INTEGER NOT NULL,
    scopes   TEXT    NOT NULL,
    status   TEXT    NOT NULL,
    created  INTEGER NOT NULL,                  -- when the money was reserved: whose window it counts in
    settled  INTEGER NOT NULL,                  -- what this line changed in the sums of its scopes
    pending  INTEGER NOT NULL,
    memo     BLOB    NOT NULL
);

CREATE TRIGGER entry_is_never_changed BEFORE UPDATE ON entry BEGIN SELECT raise(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER entry_is_never_deleted BEFORE DELETE ON entry BEGIN SELECT raise(ABORT, 'the ledger is append-only'); END;

-- version 2
CREATE TABLE mark (                             -- the journal: small records besides money
    seq    INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant INTEGER NOT NULL,
    kind   TEXT    NOT NULL,
    id     TEXT    NOT NULL,
    at     REAL    NOT NULL,
    data   BLOB    NOT NULL
);

CREATE INDEX mark_kind ON mark (tenant, kind, seq);

-- version 3
ALTER TABLE reservation ADD COLUMN archived INTEGER NOT NULL DEFAULT 0;     -- number of the archive its rows are in

CREATE TABLE archive (                          -- rows that were moved to a file
    id      INTEGER PRIMARY KEY,
    tenant  INTEGER NOT NULL REFERENCES tenant (id),
    before  INTEGER NOT NULL,
    path    TEXT    NOT NULL,
    state   TEXT    NOT NULL DEFAULT 'closing', -- then written, then moved
    sha256  TEXT    NOT NULL DEFAULT '',
    lines   INTEGER NOT NULL DEFAULT 0,
    settled INTEGER NOT NULL DEFAULT 0,
    carried INTEGER NOT NULL DEFAULT 0          -- rows that hold the sums of the moved ones
);

DROP TRIGGER entry_is_never_deleted;
CREATE TRIGGER entry_is_never_deleted BEFORE DELETE ON entry    -- but for what stands in an archive that is whole
WHEN NOT EXISTS (
    SELECT 1 FROM reservation JOIN archive ON archive.id = reservation.archived
    WHERE reservation.tenant = old.tenant AND reservation.id = old.id AND archive.state = 'written'
)
BEGIN SELECT raise(ABORT, 'the ledger is append-only'); END;

-- version 4
-- The end of a hold is called expiry. Rows of the ledger are never changed: reading maps their old word (backend.py).
UPDATE reservation SET state = 'expired' WHERE state = 'lapsed';
UPDATE reservation SET verb = 'expire' WHERE verb = 'lapse';

-- version 5
ALTER TABLE budget ADD COLUMN reserve TEXT NOT NULL DEFAULT '';             -- JSON: shares kept, by scope

-- version 6
CREATE TABLE shared (                           -- small values besides money that processes share: a cache
    tenant INTEGER NOT NULL,
    key    TEXT    NOT NULL,
    at     REAL    NOT NULL,
    data   BLOB    NOT NULL,
    PRIMARY KEY (tenant, key)
) WITHOUT ROWID;

CREATE INDEX shared_age ON shared (tenant, at);

-- version 7
CREATE TABLE moment (                           -- where reading begins: the first row of each quarter of an hour
    tenant INTEGER NOT NULL,
    slot   INTEGER NOT NULL,
    seq    INTEGER NOT NULL,
    PRIMARY KEY (tenant, slot)
) WITHOUT ROWID;

CREATE TABLE mark_moment (                      -- the same of the journal
    tenant INTEGER NOT NULL,
    slot   INTEGER NOT NULL,
    seq    INTEGER NOT NULL,
    PRIMARY KEY (tenant, slot)
) WITHOUT ROWID;

INSERT INTO moment SELECT tenant, at / 900000, min(seq) FROM entry GROUP BY tenant, at / 900000;
INSERT INTO mark_moment
    SELECT tenant, CAST(at / 900 AS INTEGER), min(seq) FROM mark GROUP BY tenant, CAST(at / 900 AS INTEGER);

-- Triggers, because a process of the version before may still have the file open and write to it.
CREATE TRIGGER entry_has_a_moment AFTER INSERT ON entry
WHEN NOT EXISTS (SELECT 1 FROM moment WHERE tenant = new.tenant AND slot = new.at / 900000)
BEGIN INSERT INTO moment VALUES (new.tenant, new.at / 900000, new.seq); END;
CREATE TRIGGER mark_has_a_moment AFTER INSERT ON mark
WHEN NOT EXISTS (SELECT 1 FROM mark_moment WHERE tenant = new.tenant AND slot = CAST(new.at / 900 AS INTEGER))
BEGIN INSERT INTO mark_moment VALUES (new.tenant, CAST(new.at / 900 AS INTEGER), new.seq); END;

CREATE TABLE dictionary (                       -- texts of this ledger by which later ones are compressed
    id   INTEGER PRIMARY KEY,
    data BLOB NOT NULL
);

CREATE TABLE erasure (                          -- a person's scope that was replaced; by which, never whose
    id     INTEGER PRIMARY KEY,
    tenant INTEGER NOT NULL REFERENCES tenant (id),
    at     INTEGER NOT NULL,
    alias  TEXT    NOT NULL,
    state  TEXT    NOT NULL DEFAULT 'open'      -- then done
);

DROP TRIGGER entry_is_never_changed;
CREATE TRIGGER entry_is_never_changed BEFORE UPDATE ON entry    -- but for the name of a person who is erased
WHEN NOT EXISTS (SELECT 1 FROM erasure WHERE tenant = old.tenant AND state = 'open')
    OR (new.seq, new.tenant, new.kind, new.id, new.at, new.amount, new.status, new.created, new.settled, new.pending,
        new.memo)
    IS NOT (old.seq, old.tenant, old.kind, old.id, old.at, old.amount, old.status, old.created, old.settled,
        old.pending, old.memo)
BEGIN SELECT raise(ABORT, 'the ledger is append-only'); END;

-- version 8
CREATE TABLE budget_register (                  -- where each budget comes from, since when, and what is paused
    tenant INTEGER PRIMARY KEY REFERENCES tenant (id),
    data   BLOB    NOT NULL                     -- JSON
);

-- version 9
ALTER TABLE budget ADD COLUMN carry_over TEXT NOT NULL DEFAULT '';          -- JSON: true, or the most that is carried

-- version 10
CREATE TABLE memo_kind (                        -- what many memos share, so that sums need not read each of them
    id   INTEGER PRIMARY KEY,
    data TEXT NOT NULL UNIQUE                   -- a memo with zeros for its counts
);

ALTER TABLE entry ADD COLUMN memo_kind INTEGER; -- NULL: the memo must be read, as of rows of an earlier version
ALTER TABLE entry ADD COLUMN count_1 INTEGER;   -- the counts of the memo, in the order of its kind
ALTER TABLE entry ADD COLUMN count_2 INTEGER;
ALTER TABLE entry ADD COLUMN count_3 INTEGER;
ALTER TABLE entry ADD COLUMN count_4 INTEGER;
ALTER TABLE entry ADD COLUMN count_5 INTEGER;

CREATE INDEX entry_single ON entry (tenant)     -- what sums must look at row by row: few, in a ledger of this version
WHERE (memo_kind IS NULL AND kind != 'reserve') OR kind = 'reconcile';

DROP TRIGGER entry_is_never_changed;
CREATE TRIGGER entry_is_never_changed BEFORE UPDATE ON entry    -- but for the name of a person who is erased
WHEN NOT EXISTS (SELECT 1 FROM erasure WHERE tenant = old.tenant AND state = 'open')
    OR (new.seq, new.tenant, new.kind, new.id, new.at, new.amount, new.status, new.created, new.settled, new.pending,
        new.memo, new.memo_kind, new.count_1, new.count_2, new.count_3, new.count_4, new.count_5)
    IS NOT (old.seq, old.tenant, old.kind, old.id, old.at, old.amount, old.status, old.created, old.settled,
        old.pending, old.memo, old.memo_kind, old.count_1, old.count_2, old.count_3, old.count_4, old.count_5)
BEGIN SELECT raise(ABORT, 'the ledger is append-only'); END;

-- version 11
ALTER TABLE reservation ADD COLUMN writer INTEGER;                          -- the version that made it, from 11 on

-- A process of an earlier version that still has the file open heeds no pause and no limit of today, so it makes no hold
-- any more. What it holds it settles: that all versions write alike. A later version that is not understood by this one
-- puts a trigger with its own number in the place of this.
CREATE TRIGGER reservation_of_an_earlier_version BEFORE INSERT ON reservation
WHEN new.writer IS NULL AND new.amount > 0 AND new.state = 'pending'
BEGIN
    SELECT raise(ABORT, 'a newer version of llm_cost_middleware uses this ledger: update this program and start it again');
END;

-- version 12
-- Scopes of a call stand in three rows, and most calls share theirs: rows refer to a list of them. The views read as the
-- tables did, whatever wrote a row, and take new rows; what else is changed is changed in the tables.
CREATE TABLE scope_list (
    id     INTEGER PRIMARY KEY,
    tenant INTEGER NOT NULL REFERENCES tenant (id),
    scopes TEXT    NOT NULL,                    -- separated by spaces
    UNIQUE (tenant, scopes)
);

CREATE TRIGGER scope_list_is_never_changed BEFORE UPDATE ON scope_list     -- but for the name of a person who is erased
WHEN NOT EXISTS (SELECT 1 FROM erasure WHERE tenant = old.tenant AND state = 'open')
    OR (new.id, new.tenant) IS NOT (old.id, old.tenant)
BEGIN SELECT raise(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER scope_list_is_never_deleted BEFORE DELETE ON scope_list
BEGIN SELECT raise(ABORT, 'the ledger is append-only'); END;

ALTER TABLE entry RENAME TO entry_row;
ALTER TABLE entry_row ADD COLUMN scope_list INTEGER;    -- NULL in rows of an earlier version, whose scopes stand in them
ALTER TABLE reservation RENAME TO reservation_row;
ALTER TABLE reservation_row ADD COLUMN scope_list INTEGER;

DROP TRIGGER entry_is_never_changed;
CREATE TRIGGER entry_is_never_changed BEFORE UPDATE ON entry_row    -- but for the name of a person who is erased
WHEN NOT EXISTS (SELECT 1 FROM erasure WHERE tenant = old.tenant AND state = 'open')
    OR (new.seq, new.tenant, new.kind, new.id, new.at, new.amount, new.status, new.created, new.settled, new.pending,
        new.memo, new.memo_kind, new.count_1, new.count_2, new.count_3, new.count_4, new.count_5, new.scope_list)
    IS NOT (old.seq, old.tenant, old.kind, old.id, old.at, old.amount, old.status, old.created, old.settled,
        old.pending, old.memo, old.memo_kind, old.count_1, old.count_2, old.count_3, old.count_4, old.count_5,
        old.scope_list)
BEGIN SELECT raise(ABORT, 'the ledger is append-only'); END;

CREATE VIEW entry AS
SELECT seq, tenant, kind, id, at, amount,
    coalesce((SELECT list.scopes FROM scope_list AS list WHERE list.id = scope_list), scopes) AS scopes,
    status, created, settled, pending, memo, memo_kind, count_1, count_2, count_3, count_4, count_5
FROM entry_row;

CREATE TRIGGER entry_is_appended INSTEAD OF INSERT ON entry
BEGIN
    INSERT INTO scope_list (tenant, scopes) SELECT new.tenant, new.scopes
    WHERE NOT EXISTS (SELECT 1 FROM scope_list WHERE tenant = new.tenant AND scopes = new.scopes);
    INSERT INTO entry_row (tenant, kind, id, at, amount, scopes, status, created, settled, pending, memo, memo_kind,
        count_1, count_2, count_3, count_4, count_5, scope_list)
    SELECT new.tenant, new.kind, new.id, new.at, new.amount, '', new.status, new.created, new.settled, new.pending,
        new.memo, new.memo_kind, new.count_1, new.count_2, new.count_3, new.count_4, new.count_5, list.id
    FROM scope_list AS list WHERE list.tenant = new.tenant AND list.scopes = new.scopes;
END;
CREATE TRIGGER entry_is_not_changed INSTEAD OF UPDATE ON entry
BEGIN SELECT raise(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER entry_is_not_deleted INSTEAD OF DELETE ON entry
BEGIN SELECT raise(ABORT, 'the ledger is append-only'); END;

CREATE VIEW reservation AS
SELECT tenant, id,
    coalesce((SELECT list.scopes FROM scope_list AS list WHERE list.id = scope_list), scopes) AS scopes,
    amount, created, expires, state, charged, verb, actual, status, late, resolved, reconciled, warnings, refusal,
    archived, writer
FROM reservation_row;

CREATE TRIGGER reservation_is_made INSTEAD OF INSERT ON reservation
BEGIN
    INSERT INTO scope_list (tenant, scopes) SELECT new.tenant, new.scopes
    WHERE NOT EXISTS (SELECT 1 FROM scope_list WHERE tenant = new.tenant AND scopes = new.scopes);
    INSERT INTO reservation_row (tenant, id, scopes, amount, created, expires, state, charged, verb, actual, status,
        late, resolved, reconciled, warnings, refusal, archived, writer, scope_list)
    SELECT new.tenant, new.id, '', new.amount, new.created, new.expires, coalesce(new.state, 'pending'),
        coalesce(new.charged, 0), coalesce(new.verb, 'settle'), coalesce(new.actual, 0),
        coalesce(new.status, 'reserved'), coalesce(new.late, 0), coalesce(new.resolved, 0),
        coalesce(new.reconciled, 0), coalesce(new.warnings, ''), coalesce(new.refusal, ''), coalesce(new.archived, 0),
        new.writer, list.id
    FROM scope_list AS list WHERE list.tenant = new.tenant AND list.scopes = new.scopes;
END;

-- A process of an earlier version settles what it holds, and expires what nobody settled.
CREATE TRIGGER reservation_is_changed INSTEAD OF UPDATE ON reservation
BEGIN
    SELECT raise(ABORT, 'a newer version of llm_cost_middleware uses this ledger: update this program and start it again')
    WHERE new.scopes IS NOT old.scopes;
    UPDATE reservation_row SET amount = new.amount, expires = new.expires, state = new.state, charged = new.charged,
        verb = new.verb, actual = new.actual, status = new.status, late = new.late, resolved = new.resolved,
        reconciled = new.reconciled, warnings = new.warnings, refusal = new.refusal, archived = new.archived
    WHERE tenant = old.tenant AND id = old.id;
END;

DROP TRIGGER reservation_of_an_earlier_version;         -- as in version 11
CREATE TRIGGER reservation_of_an_earlier_version BEFORE INSERT ON reservation_row
WHEN coalesce(new.writer, 0) < 12 AND new.amount > 0 AND new.state = 'pending'
BEGIN
    SELECT raise(ABORT, 'a newer version of llm_cost_middleware uses this ledger: update this program and start it again');
END;

-- The journal is read by kind: two letters tell most of them apart.
DROP INDEX mark_kind;
CREATE INDEX mark_kind ON mark (tenant, substr(kind, 1, 2), seq);

DROP INDEX shared_age;                                  -- what is more than is kept is looked for seldom

-- version 13
CREATE TABLE at_rest (                          -- what is left of the accounts of a run that is over: what it spent
    tenant  INTEGER NOT NULL REFERENCES tenant (id),
    scope   BLOB    NOT NULL,                   -- a digest of its name
    settled INTEGER NOT NULL CHECK (typeof(settled) = 'integer'),
    warned  INTEGER NOT NULL,
    PRIMARY KEY (tenant, scope)
) WITHOUT ROWID;

-- version 14
ALTER TABLE erasure ADD COLUMN digest TEXT;             -- of the scope, while it is open: to know it again
