BEGIN TRANSACTION;
CREATE TABLE account (                          -- one scope in one window
    id       INTEGER PRIMARY KEY,
    tenant   INTEGER NOT NULL REFERENCES tenant (id),
    scope    TEXT    NOT NULL,
    "window" TEXT    NOT NULL,
    warned   INTEGER NOT NULL DEFAULT -1,       -- the cell that last crossed warn_at
    UNIQUE (tenant, scope, "window")
);
INSERT INTO "account" VALUES(1,1,'global','none',-1);
INSERT INTO "account" VALUES(2,1,'user:a','none',-1);
INSERT INTO "account" VALUES(3,1,'user:a','day',-1);
INSERT INTO "account" VALUES(4,1,'user:b','day',-1);
INSERT INTO "account" VALUES(5,1,'user:b','none',-1);
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
INSERT INTO "archive" VALUES(1,1,1768564861000,'/data/ledger-archive-0001.jsonl','moved','6436d9c147f4e9910172aa92a9401bcc23a897fce0ce09344d3980327d02cee4',3,750000000,1);
CREATE TABLE budget (
    tenant        INTEGER NOT NULL REFERENCES tenant (id),
    scope         TEXT    NOT NULL,             -- may be a template, kind:*
    "window"      TEXT    NOT NULL,
    limit_nanousd INTEGER NOT NULL CHECK (typeof(limit_nanousd) = 'integer' AND limit_nanousd >= 0),
    timezone      TEXT    NOT NULL,
    warn_at       TEXT,                         -- a decimal, or NULL for never
    PRIMARY KEY (tenant, scope, "window")
) WITHOUT ROWID;
INSERT INTO "budget" VALUES(1,'user:*','day',5000000000,'UTC','0.8');
CREATE TABLE cell (                             -- the sums of an account in one stretch of time
    account INTEGER NOT NULL REFERENCES account (id),
    cell    INTEGER NOT NULL,
    settled INTEGER NOT NULL CHECK (typeof(settled) = 'integer'),   -- an overflow would turn it into a float
    pending INTEGER NOT NULL CHECK (typeof(pending) = 'integer'),
    PRIMARY KEY (account, cell)
) WITHOUT ROWID;
INSERT INTO "cell" VALUES(1,0,2000000000,500000000);
INSERT INTO "cell" VALUES(2,0,1750000000,500000000);
INSERT INTO "cell" VALUES(3,1768435200,750000000,0);
INSERT INTO "cell" VALUES(3,1768521600,1000000000,500000000);
INSERT INTO "cell" VALUES(4,1768521600,250000000,0);
INSERT INTO "cell" VALUES(5,0,250000000,0);
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
INSERT INTO "entry" VALUES(4,1,'carried','archive-1-3',1768478461000,750000000,'global user:a','exact',1768478400000,750000000,0,X'7B2276223A312C2263616C6C223A22222C226E223A302C2263616C6C73223A312C227076223A22222C226174223A6E756C6C2C226974656D73223A5B5D7D');
INSERT INTO "entry" VALUES(5,1,'reserve','charged',1768564862000,500000000,'global user:a','reserved',1768564862000,0,500000000,X'6D');
INSERT INTO "entry" VALUES(6,1,'reserve','late',1768564862000,500000000,'global user:a','reserved',1768564862000,0,500000000,X'6D');
INSERT INTO "entry" VALUES(7,1,'reserve','open',1768564862000,500000000,'global user:a','reserved',1768564862000,0,500000000,X'6D');
INSERT INTO "entry" VALUES(8,1,'reserve','corrected',1768564862000,500000000,'global user:a','reserved',1768564862000,0,500000000,X'6D');
INSERT INTO "entry" VALUES(9,1,'settle','corrected',1768564862000,400000000,'global user:a','estimated',1768564862000,400000000,-500000000,X'');
INSERT INTO "entry" VALUES(10,1,'lapse','charged',1768564923000,500000000,'global user:a','unconfirmed',1768564862000,500000000,-500000000,X'');
INSERT INTO "entry" VALUES(11,1,'lapse','late',1768564923000,500000000,'global user:a','unconfirmed',1768564862000,500000000,-500000000,X'');
INSERT INTO "entry" VALUES(12,1,'settle','late',1768564923000,100000000,'global user:a','exact',1768564862000,-400000000,0,X'');
INSERT INTO "entry" VALUES(13,1,'book','booked',1768564923000,250000000,'global user:b','exact',1768564923000,250000000,0,X'');
CREATE TABLE mark (                             -- the journal: small records besides money
    seq    INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant INTEGER NOT NULL,
    kind   TEXT    NOT NULL,
    id     TEXT    NOT NULL,
    at     REAL    NOT NULL,
    data   BLOB    NOT NULL
);
INSERT INTO "mark" VALUES(1,1,'decision','call-1',1768564923.0,X'7B7D');
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
    refusal    TEXT    NOT NULL DEFAULT '', archived INTEGER NOT NULL DEFAULT 0,     -- JSON
    PRIMARY KEY (tenant, id)
) WITHOUT ROWID;
INSERT INTO "reservation" VALUES(1,'booked','global user:b',0,1768564923000,1768564923000,'settled',250000000,'book',250000000,'exact',0,1768564923000,0,'','',0);
INSERT INTO "reservation" VALUES(1,'charged','global user:a',500000000,1768564862000,1768564922000,'lapsed',500000000,'lapse',500000000,'unconfirmed',1,1768564923000,0,'','',0);
INSERT INTO "reservation" VALUES(1,'corrected','global user:a',500000000,1768564862000,1768564922000,'settled',400000000,'settle',400000000,'estimated',0,1768564862000,0,'','',0);
INSERT INTO "reservation" VALUES(1,'late','global user:a',500000000,1768564862000,1768564922000,'settled',100000000,'settle',100000000,'exact',1,1768564923000,0,'','',0);
INSERT INTO "reservation" VALUES(1,'old','global user:a',1000000000,1768478400000,1768478460000,'settled',750000000,'settle',750000000,'exact',1,1768478461000,0,'','',1);
INSERT INTO "reservation" VALUES(1,'open','global user:a',500000000,1768564862000,1771156862000,'pending',0,'settle',0,'reserved',0,0,0,'','',0);
CREATE TABLE tenant (
    id      INTEGER PRIMARY KEY,
    name    TEXT NOT NULL UNIQUE,
    version INTEGER NOT NULL DEFAULT 1          -- of its budgets: processes compare it with the one they hold
);
INSERT INTO "tenant" VALUES(1,'default',2);
CREATE INDEX reservation_open ON reservation (tenant, expires) WHERE state = 'pending';
CREATE TRIGGER entry_is_never_changed BEFORE UPDATE ON entry BEGIN SELECT raise(ABORT, 'the ledger is append-only'); END;
CREATE INDEX mark_kind ON mark (tenant, kind, seq);
CREATE TRIGGER entry_is_never_deleted BEFORE DELETE ON entry    -- but for what stands in an archive that is whole
WHEN NOT EXISTS (
    SELECT 1 FROM reservation JOIN archive ON archive.id = reservation.archived
    WHERE reservation.tenant = old.tenant AND reservation.id = old.id AND archive.state = 'written'
)
BEGIN SELECT raise(ABORT, 'the ledger is append-only'); END;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('entry',13);
INSERT INTO "sqlite_sequence" VALUES('mark',1);
COMMIT;
PRAGMA user_version = 3;
