-- The steps of ledger verbs, one function each: one round trip, one transaction. They repeat the arithmetic of accounts
-- that the scripts of Redis do; the conformance suite and the state machine prove that the storages agree.
--
-- Locks are taken in one order by all: budgets (shared; whoever amends them takes it alone), accounts with a limit by
-- their number, the reservation, the holds of slices from the innermost on, then cells. Each statement sees what was committed before it, so that what is read after
-- a lock is current. Replies are arrays of text, as those of the scripts.

CREATE OR REPLACE FUNCTION llm_cost.moment(given bigint) RETURNS bigint LANGUAGE sql AS $$
    SELECT coalesce(given, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint)
$$;

CREATE OR REPLACE FUNCTION llm_cost.lock_budgets(tenant_ integer, alone boolean) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    -- Otherwise what is read after a lock is as old as the transaction: two would take the same money.
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'a ledger needs default_transaction_isolation = ''read committed''';
    END IF;
    IF alone THEN
        PERFORM pg_advisory_xact_lock(1819307123, tenant_);
    ELSE
        PERFORM pg_advisory_xact_lock_shared(1819307123, tenant_);
    END IF;
END $$;

-- The budgets with their version, flat: name, value, name, value ...
CREATE OR REPLACE FUNCTION llm_cost.budgets(tenant_ integer) RETURNS text[] LANGUAGE sql AS $$
    SELECT ARRAY['version', (SELECT version::text FROM llm_cost.tenant WHERE id = tenant_)]
        || coalesce((SELECT array_agg(pair.part) FROM llm_cost.budget, LATERAL (VALUES (name), (value)) AS pair (part)
            WHERE tenant = tenant_), '{}')
$$;

-- The fields of a reservation that are set, flat; empty for none.
CREATE OR REPLACE FUNCTION llm_cost.record(tenant_ integer, id_ text) RETURNS text[] LANGUAGE sql AS $$
    SELECT coalesce((SELECT array_agg(pair.part ORDER BY pair.at)
        FROM llm_cost.reservation r, LATERAL (VALUES
            (1, 'id', r.id), (2, 'scopes', r.scopes), (3, 'amount', r.amount::text), (4, 'created', r.created::text),
            (5, 'expires', r.expires::text), (6, 'state', r.state), (7, 'charged', r.charged::text), (8, 'verb', r.verb),
            (9, 'actual', r.actual::text), (10, 'status', r.status), (11, 'late', r.late::integer::text),
            (12, 'resolved', r.resolved::text), (13, 'reconciled', r.reconciled::text), (14, 'warnings', r.warnings),
            (15, 'refusal', r.refusal), (16, 'requested', r.requested::text), (17, 'writer', r.writer),
            (18, 'reducer', r.reducer), (19, 'archived', r.archived::text)
        ) AS field (number, name, value), LATERAL (VALUES (number * 2, field.name), (number * 2 + 1, field.value))
            AS pair (at, part)
        WHERE r.tenant = tenant_ AND r.id = id_ AND field.value IS NOT NULL), '{}')
$$;

-- The numbers of accounts, in the order of their names; those that are missing are made.
CREATE OR REPLACE FUNCTION llm_cost.accounts(tenant_ integer, names text[]) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
    found bigint[];
BEGIN
    FOR attempt IN 1..2 LOOP
        SELECT array_agg(a.id ORDER BY n.position) INTO found FROM unnest(names) WITH ORDINALITY AS n (name, position)
            LEFT JOIN llm_cost.account a ON a.tenant = tenant_ AND a.name = n.name;
        EXIT WHEN array_position(found, NULL) IS NULL;
        INSERT INTO llm_cost.account (tenant, name) SELECT tenant_, n.name FROM unnest(names) AS n (name) ORDER BY n.name
            ON CONFLICT DO NOTHING;
    END LOOP;
    RETURN found;
END $$;

-- Settled and pending of an account in the cells that count.
CREATE OR REPLACE FUNCTION llm_cost.sums(account_ bigint, first bigint, last bigint) RETURNS bigint[] LANGUAGE sql AS $$
    SELECT ARRAY[coalesce(sum(settled), 0)::bigint, coalesce(sum(pending), 0)::bigint] FROM llm_cost.cell
        WHERE account = account_ AND cell >= first AND (cell = last OR first <> last)
$$;

CREATE OR REPLACE FUNCTION llm_cost.add(accounts_ bigint[], cells bigint[], settled_ bigint, pending_ bigint)
RETURNS void LANGUAGE sql AS $$
    INSERT INTO llm_cost.cell AS known (account, cell, stripe, settled, pending)
        SELECT n.account, n.cell, pg_backend_pid() % 16, settled_, pending_ FROM unnest(accounts_, cells) AS n (account, cell)
            ORDER BY n.account
        ON CONFLICT (account, cell, stripe)
            DO UPDATE SET settled = known.settled + excluded.settled, pending = known.pending + excluded.pending
$$;

-- Slices, as JSON, the outermost first: id, limit, account and cell of the own scope; scopes, created and postings (account
-- and cell each) of the hold. NULL for none.
CREATE OR REPLACE FUNCTION llm_cost.slice_sums(tenant_ integer, slice jsonb) RETURNS bigint[] LANGUAGE sql AS $$
    SELECT llm_cost.sums(
        coalesce((SELECT id FROM llm_cost.account WHERE tenant = tenant_ AND name = slice ->> 'account'), -1),
        (slice ->> 'cell')::bigint, (slice ->> 'cell')::bigint
    )
$$;

-- Change what the hold of a slice counts in the sums.
CREATE OR REPLACE FUNCTION llm_cost.hold(tenant_ integer, slice jsonb, change bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    names text[];
    cells bigint[];
BEGIN
    SELECT array_agg(value ->> 0 ORDER BY at), array_agg((value ->> 1)::bigint ORDER BY at) INTO names, cells
        FROM jsonb_array_elements(slice -> 'postings') WITH ORDINALITY AS n (value, at);
    PERFORM llm_cost.add(llm_cost.accounts(tenant_, names), cells, 0, change);
END $$;

-- Write down what a slice holds from now on, until ``until_`` at least.
CREATE OR REPLACE FUNCTION llm_cost.held(tenant_ integer, slice jsonb, now_ bigint, amount_ bigint, change bigint, until_ bigint)
RETURNS void LANGUAGE sql AS $$
    UPDATE llm_cost.reservation SET requested = coalesce(requested, amount), amount = amount_,
        expires = greatest(expires, until_) WHERE tenant = tenant_ AND id = slice ->> 'id';
    INSERT INTO llm_cost.entry (tenant, kind, id, at, amount, scopes, status, created, settled, pending, memo)
        VALUES (tenant_, 'reduce', slice ->> 'id', now_, amount_, slice ->> 'scopes', 'reserved',
            (slice ->> 'created')::bigint, 0, change, '');
$$;

CREATE OR REPLACE FUNCTION llm_cost.lock_slices(tenant_ integer, slices_ jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    FOR number IN REVERSE coalesce(jsonb_array_length(slices_), 0) - 1..0 LOOP
        PERFORM 1 FROM llm_cost.reservation WHERE tenant = tenant_ AND id = slices_ -> number ->> 'id' FOR UPDATE;
    END LOOP;
END $$;

-- Let each slice hold what of its limit is not booked, the innermost first. Their holds are locked.
CREATE OR REPLACE FUNCTION llm_cost.set_right(tenant_ integer, slices_ jsonb, now_ bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    slice jsonb;
    before_ bigint;
    sums_ bigint[];
    after_ bigint;
BEGIN
    FOR number IN REVERSE coalesce(jsonb_array_length(slices_), 0) - 1..0 LOOP
        slice := slices_ -> number;
        SELECT amount INTO before_ FROM llm_cost.reservation
            WHERE tenant = tenant_ AND id = slice ->> 'id' AND state = 'pending';
        CONTINUE WHEN NOT FOUND;
        sums_ := llm_cost.slice_sums(tenant_, slice);
        after_ := greatest((slice ->> 'limit')::bigint - sums_[1] - sums_[2], 0);
        CONTINUE WHEN after_ = before_;
        PERFORM llm_cost.hold(tenant_, slice, after_ - before_);
        PERFORM llm_cost.held(tenant_, slice, now_, after_, after_ - before_, 0);
    END LOOP;
END $$;

CREATE OR REPLACE FUNCTION llm_cost.reserve(
    tenant_ integer, given bigint, version_ text, start_ bigint, until_ bigint, id_ text, amount_ bigint, ttl bigint,
    scopes_ text, forget boolean, latest bigint, memo_ bytea,
    names text[], cells bigint[], firsts bigint[], limits text[], schema_ integer, slices_ jsonb
) RETURNS text[] LANGUAGE plpgsql SET lock_timeout = '5s' AS $$
DECLARE
    now_ bigint;
    accounts_ bigint[];
    sum_ bigint[];
    before_ bigint[];
    parts text[];
    most bigint;
    carried bigint;
    known text[];
    inner_ jsonb := slices_ -> -1;
    left_ bigint := 0;
    drawn bigint := 0;
BEGIN
    PERFORM llm_cost.check_schema(schema_);
    PERFORM llm_cost.lock_budgets(tenant_, false);
    known := llm_cost.record(tenant_, id_);
    IF known <> '{}' THEN
        RETURN ARRAY['known'] || known;
    END IF;
    now_ := llm_cost.moment(given);
    IF version_ <> (SELECT version::text FROM llm_cost.tenant WHERE id = tenant_) OR now_ < start_ OR now_ >= until_ THEN
        RETURN ARRAY['stale', now_::text] || llm_cost.budgets(tenant_);
    END IF;
    accounts_ := llm_cost.accounts(tenant_, names);
    PERFORM 1 FROM llm_cost.account WHERE id IN (
        SELECT n.id FROM unnest(accounts_, limits) AS n (id, bound) WHERE n.bound <> ''
    ) ORDER BY id FOR NO KEY UPDATE;  -- new cells refer to them
    -- Meanwhile its window may have ended, and others may have carried what was unused of it into the next one.
    now_ := llm_cost.moment(given);
    IF now_ >= until_ THEN
        RETURN ARRAY['stale', now_::text] || llm_cost.budgets(tenant_);
    END IF;
    -- After what may have to be waited for: a server that was frozen must not hold for somebody who was refused.
    IF llm_cost.moment(NULL) > latest THEN
        RETURN ARRAY['late', llm_cost.moment(NULL)::text];
    END IF;
    IF inner_ IS NOT NULL THEN  -- what the innermost slice holds makes room for what it pays for
        SELECT amount INTO left_ FROM llm_cost.reservation
            WHERE tenant = tenant_ AND id = inner_ ->> 'id' AND state = 'pending' FOR UPDATE;
        IF NOT FOUND THEN
            RETURN ARRAY['ended'] || llm_cost.slice_sums(tenant_, inner_)::text[];
        END IF;
        drawn := least(left_, amount_);
        PERFORM llm_cost.hold(tenant_, inner_, -drawn);
    END IF;
    FOR number IN 1..cardinality(names) LOOP
        CONTINUE WHEN limits[number] = '';
        sum_ := llm_cost.sums(accounts_[number], firsts[number], cells[number]);
        parts := string_to_array(limits[number], ' ');
        most := parts[1];
        carried := 0;
        IF cardinality(parts) > 1 AND sum_[1] + sum_[2] + amount_ > most THEN
            -- limit, cell of the window before, limit of that window, most that is carried
            before_ := llm_cost.sums(accounts_[number], parts[2]::bigint, parts[2]::bigint);
            carried := greatest(least(parts[3]::bigint - before_[1] - before_[2], parts[4]::bigint), 0);
            most := most + carried;
        END IF;
        IF sum_[1] + sum_[2] + amount_ > most THEN
            IF inner_ IS NOT NULL THEN
                PERFORM llm_cost.hold(tenant_, inner_, drawn);
            END IF;
            IF NOT forget THEN
                INSERT INTO llm_cost.reservation (tenant, id, scopes, amount, created, expires, state, refusal)
                    VALUES (tenant_, id_, scopes_, amount_, now_, now_, 'refused',
                        concat_ws(' ', names[number], most, sum_[1], sum_[2], carried))
                    ON CONFLICT DO NOTHING;
                IF NOT FOUND THEN
                    RETURN ARRAY['known'] || llm_cost.record(tenant_, id_);
                END IF;
            END IF;
            RETURN ARRAY['refused', now_::text, (number - 1)::text, sum_[1]::text, sum_[2]::text, carried::text];
        END IF;
    END LOOP;
    INSERT INTO llm_cost.reservation (tenant, id, scopes, amount, created, expires, state)
        VALUES (tenant_, id_, scopes_, amount_, now_, now_ + ttl, 'pending') ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN  -- made by another call of the same id, just now
        IF inner_ IS NOT NULL THEN
            PERFORM llm_cost.hold(tenant_, inner_, drawn);
        END IF;
        RETURN ARRAY['known'] || llm_cost.record(tenant_, id_);
    END IF;
    PERFORM llm_cost.add(accounts_, cells, 0, amount_);
    INSERT INTO llm_cost.entry (tenant, kind, id, at, amount, scopes, status, created, settled, pending, memo)
        VALUES (tenant_, 'reserve', id_, now_, amount_, scopes_, 'reserved', now_, 0, amount_, memo_);
    IF inner_ IS NOT NULL THEN  -- whoever spends from it is alive
        PERFORM llm_cost.held(tenant_, inner_, now_, left_ - drawn, -drawn, now_ + ttl);
    END IF;
    RETURN ARRAY['held', now_::text];
END $$;

CREATE OR REPLACE FUNCTION llm_cost.resolve(
    tenant_ integer, given bigint, version_ text, id_ text, seen_state text, seen_charged bigint, seen_reconciled bigint,
    verb_ text, amount_ bigint, status_ text, state_ text, charged_ bigint, settled_ bigint, pending_ bigint, scopes_ text,
    created_ bigint, start_ bigint, until_ bigint, writer_ text, seen_amount bigint, memo_ bytea,
    names text[], cells bigint[], firsts bigint[], warns text[], kind_ text, counts bigint[], notes text, data_ bytea[],
    slices_ jsonb
) RETURNS text[] LANGUAGE plpgsql SET lock_timeout = '5s' AS $$
DECLARE
    now_ bigint;
    created_at bigint;
    accounts_ bigint[];
    before_ llm_cost.reservation;
    late_ boolean := false;
    crossed text[] := '{}';
    sum_ bigint;
    sums_ bigint[];
    fresh boolean;
    reached bigint;
    number_ integer := llm_cost.memo_kind(kind_);  -- first: who makes one is waited for, and must not wait for us
BEGIN
    PERFORM llm_cost.lock_budgets(tenant_, false);
    IF version_ <> (SELECT version::text FROM llm_cost.tenant WHERE id = tenant_) THEN
        RETURN ARRAY['stale', llm_cost.moment(given)::text] || llm_cost.budgets(tenant_);
    END IF;
    -- Nothing is made under the name of a scope that was erased.
    IF EXISTS (SELECT 1 FROM llm_cost.reservation WHERE tenant = tenant_ AND id = id_ AND scopes <> scopes_) THEN
        RETURN ARRAY['known'] || llm_cost.record(tenant_, id_);
    END IF;
    accounts_ := llm_cost.accounts(tenant_, names);
    PERFORM 1 FROM llm_cost.account WHERE id IN (
        SELECT n.id FROM unnest(accounts_, warns) AS n (id, warn) WHERE n.warn <> ''
    ) ORDER BY id FOR NO KEY UPDATE;  -- new cells refer to them
    SELECT * INTO before_ FROM llm_cost.reservation WHERE tenant = tenant_ AND id = id_ FOR UPDATE;
    IF (seen_state = '') IS DISTINCT FROM (before_.id IS NULL) OR (seen_state <> '' AND (before_.state || CASE WHEN
            before_.archived IS NULL THEN '' ELSE '*' END, before_.charged, before_.reconciled, before_.created, before_.amount,
            before_.scopes) IS DISTINCT FROM (seen_state, seen_charged, seen_reconciled, created_, seen_amount, scopes_)) THEN
        RETURN ARRAY['known'] || llm_cost.record(tenant_, id_);
    END IF;
    now_ := llm_cost.moment(given);
    IF created_ IS NULL AND (now_ < start_ OR now_ >= until_) THEN
        RETURN ARRAY['stale', now_::text] || llm_cost.budgets(tenant_);
    END IF;
    PERFORM llm_cost.lock_slices(tenant_, slices_);
    created_at := coalesce(created_, now_);
    IF seen_state = '' THEN
        INSERT INTO llm_cost.reservation (tenant, id, scopes, amount, created, expires, state)
            VALUES (tenant_, id_, scopes_, 0, created_at, created_at, state_) ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN
            RETURN ARRAY['known'] || llm_cost.record(tenant_, id_);
        END IF;
    ELSE
        late_ := before_.state = 'expired' OR now_ >= before_.expires;
    END IF;
    PERFORM llm_cost.add(accounts_, cells, settled_, pending_);
    IF verb_ NOT IN ('void', 'expire') THEN
        FOR number IN 1..cardinality(names) LOOP
            CONTINUE WHEN warns[number] = '';
            sums_ := string_to_array(warns[number], ',')::bigint[];
            sum_ := (llm_cost.sums(accounts_[number], firsts[number], cells[number]))[1];
            CONTINUE WHEN sum_ < sums_[1];
            -- of the lowest once a window, whoever crossed it; of the others whoever crosses them
            UPDATE llm_cost.account SET warned = cells[number] WHERE id = accounts_[number] AND warned < firsts[number];
            fresh := FOUND;
            SELECT max(n.warn) INTO reached FROM unnest(sums_) AS n (warn)
                WHERE n.warn <= sum_ AND (fresh OR (n.warn > sums_[1] AND n.warn > sum_ - settled_));
            IF reached IS NOT NULL THEN
                crossed := crossed || (names[number] || ' ' || reached);
            END IF;
        END LOOP;
    END IF;
    UPDATE llm_cost.reservation SET state = state_, charged = charged_, writer = writer_,
        reconciled = CASE WHEN verb_ = 'reconcile' THEN now_ ELSE reconciled END WHERE tenant = tenant_ AND id = id_;
    IF verb_ <> 'reconcile' OR before_.state <> 'settled' THEN  -- the first resolution is what a repeated settle gets back
        UPDATE llm_cost.reservation SET verb = verb_, actual = amount_, status = status_, late = late_, resolved = now_,
            warnings = CASE WHEN verb_ = 'reconcile' THEN '' ELSE array_to_string(crossed, ',') END
            WHERE tenant = tenant_ AND id = id_;
    END IF;
    INSERT INTO llm_cost.entry (tenant, kind, id, at, amount, scopes, status, created, settled, pending, memo, memo_kind,
            count_1, count_2, count_3, count_4, count_5)
        SELECT tenant_, verb_, id_, now_, amount_, scopes_, status_, created_at, settled_, pending_, memo_, number_, n[1], n[2],
            n[3], n[4], n[5] FROM (SELECT CASE WHEN number_ IS NOT NULL THEN counts END) AS known (n);
    PERFORM llm_cost.set_right(tenant_, slices_, now_);
    RETURN ARRAY['done', now_::text, llm_cost.write_notes(tenant_, notes, data_)::integer::text] || crossed;
END $$;

CREATE OR REPLACE FUNCTION llm_cost.reduce(
    tenant_ integer, given bigint, version_ text, id_ text, created_ bigint, seen_amount bigint, amount_ bigint,
    pending_ bigint, scopes_ text, reducer_ text, names text[], cells bigint[], slices_ jsonb
) RETURNS text[] LANGUAGE plpgsql SET lock_timeout = '5s' AS $$
DECLARE
    now_ bigint := llm_cost.moment(given);
    accounts_ bigint[];
BEGIN
    PERFORM llm_cost.lock_budgets(tenant_, false);
    IF version_ <> (SELECT version::text FROM llm_cost.tenant WHERE id = tenant_) THEN
        RETURN ARRAY['stale', llm_cost.moment(given)::text] || llm_cost.budgets(tenant_);
    END IF;
    -- Nothing is made under the name of a scope that was erased.
    IF EXISTS (SELECT 1 FROM llm_cost.reservation WHERE tenant = tenant_ AND id = id_ AND scopes <> scopes_) THEN
        RETURN ARRAY['known'] || llm_cost.record(tenant_, id_);
    END IF;
    accounts_ := llm_cost.accounts(tenant_, names);
    PERFORM 1 FROM llm_cost.reservation WHERE tenant = tenant_ AND id = id_ AND state = 'pending' AND created = created_
        AND amount = seen_amount AND scopes = scopes_ FOR UPDATE;
    IF NOT FOUND THEN
        RETURN ARRAY['known'] || llm_cost.record(tenant_, id_);
    END IF;
    PERFORM llm_cost.lock_slices(tenant_, slices_);
    PERFORM llm_cost.add(accounts_, cells, 0, pending_);
    UPDATE llm_cost.reservation SET requested = coalesce(requested, amount), amount = amount_, reducer = reducer_
        WHERE tenant = tenant_ AND id = id_;
    INSERT INTO llm_cost.entry (tenant, kind, id, at, amount, scopes, status, created, settled, pending, memo)
        VALUES (tenant_, 'reduce', id_, now_, amount_, scopes_, 'reserved', created_, 0, pending_, '');
    PERFORM llm_cost.set_right(tenant_, slices_, now_);
    RETURN ARRAY['done', now_::text];
END $$;

CREATE OR REPLACE FUNCTION llm_cost.extend(tenant_ integer, given bigint, id_ text, ttl bigint)
RETURNS text[] LANGUAGE plpgsql SET lock_timeout = '5s' AS $$
BEGIN
    UPDATE llm_cost.reservation SET expires = llm_cost.moment(given) + ttl
        WHERE tenant = tenant_ AND id = id_ AND state = 'pending' AND expires < llm_cost.moment(given) + ttl;
    RETURN llm_cost.record(tenant_, id_);
END $$;

CREATE OR REPLACE FUNCTION llm_cost.read(
    tenant_ integer, given bigint, version_ text, start_ bigint, until_ bigint,
    names text[], cells bigint[], firsts bigint[]
) RETURNS text[] LANGUAGE plpgsql SET lock_timeout = '5s' AS $$
DECLARE
    now_ bigint := llm_cost.moment(given);
    found text[];
BEGIN
    PERFORM llm_cost.lock_budgets(tenant_, false);
    IF version_ <> (SELECT version::text FROM llm_cost.tenant WHERE id = tenant_) OR now_ < start_ OR now_ >= until_ THEN
        RETURN ARRAY['stale', now_::text] || llm_cost.budgets(tenant_);
    END IF;
    -- One statement: all at one moment.
    SELECT array_agg(part.value ORDER BY n.position, part.number) INTO found
        FROM unnest(names, cells, firsts) WITH ORDINALITY AS n (name, cell, first, position)
        LEFT JOIN llm_cost.account a ON a.tenant = tenant_ AND a.name = n.name
        CROSS JOIN LATERAL (SELECT llm_cost.sums(coalesce(a.id, -1), n.first, n.cell) AS both) AS s
        CROSS JOIN LATERAL (VALUES (1, s.both[1]::text), (2, s.both[2]::text)) AS part (number, value);
    RETURN ARRAY['sums', now_::text] || coalesce(found, '{}');
END $$;

-- Put budgets in force. Whoever calls it has the budgets to himself, and counted the rows meanwhile.
CREATE OR REPLACE FUNCTION llm_cost.amend(
    tenant_ integer, version_ text, register_ text, names text[], values_ text[],
    accounts_ text[], filled text[], cells bigint[], settled_ bigint[], pending_ bigint[]
) RETURNS text[] LANGUAGE plpgsql AS $$
BEGIN
    IF version_ <> (SELECT version::text FROM llm_cost.tenant WHERE id = tenant_) THEN
        RETURN ARRAY['stale', '0'] || llm_cost.budgets(tenant_);
    END IF;
    DELETE FROM llm_cost.budget b USING unnest(names, values_) AS n (name, value)
        WHERE b.tenant = tenant_ AND b.name = n.name AND n.value = '';
    INSERT INTO llm_cost.budget (tenant, name, value)
        SELECT tenant_, n.name, n.value FROM unnest(names || 'register'::text, values_ || register_) AS n (name, value)
            WHERE n.value <> ''
        ON CONFLICT (tenant, name) DO UPDATE SET value = excluded.value;
    DELETE FROM llm_cost.cell WHERE account IN (
        SELECT id FROM llm_cost.account WHERE tenant = tenant_ AND name = ANY (accounts_)
    );
    PERFORM llm_cost.accounts(tenant_, filled);
    INSERT INTO llm_cost.cell (account, cell, stripe, settled, pending)
        SELECT a.id, n.cell, 0, n.settled, n.pending FROM unnest(filled, cells, settled_, pending_)
            AS n (name, cell, settled, pending) JOIN llm_cost.account a ON a.tenant = tenant_ AND a.name = n.name;
    UPDATE llm_cost.tenant SET version = version + 1 WHERE id = tenant_;
    RETURN ARRAY['done', (SELECT version::text FROM llm_cost.tenant WHERE id = tenant_)];
END $$;
