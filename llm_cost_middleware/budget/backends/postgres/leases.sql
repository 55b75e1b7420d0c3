-- Parcels of leases. See functions.sql for the order of locks.

-- Take in what calls of a process have cost, and what its blocks hold from now on. Blocks are JSON: id, amount, ttl (0: it
-- ends), scopes, created, postings (account and cell each).
CREATE OR REPLACE FUNCTION llm_cost.ship(
    tenant_ integer, given bigint, version_ text,
    kinds text[], ids text[], scopes_ text[], amounts bigint[], made bigint[], until_ bigint[], statuses text[], memos bytea[],
    memo_kinds text[], count_1_ bigint[], count_2_ bigint[], count_3_ bigint[], count_4_ bigint[], count_5_ bigint[],
    names text[], cells bigint[], firsts bigint[], warns text[], settled_ bigint[], pending_ bigint[], blocks jsonb
) RETURNS text[] LANGUAGE plpgsql SET lock_timeout = '5s' AS $$
DECLARE
    now_ bigint;
    accounts_ bigint[];
    fresh_ids text[];
    block jsonb;
    before_ llm_cost.reservation;
    target bigint;
    change_settled bigint;
    change_pending bigint;
    held_names text[] := '{}';
    held_cells bigint[] := '{}';
    held_settled bigint[] := '{}';
    held_pending bigint[] := '{}';
    lost text[] := '{}';
    crossed text[] := '{}';
    sums_ bigint[];
    sum_ bigint;
    fresh boolean;
    reached bigint;
    each_kind text[] := ARRAY(SELECT DISTINCT n.kind FROM unnest(memo_kinds) AS n (kind) WHERE n.kind IS NOT NULL ORDER BY 1);
    -- First: who makes one is waited for, and must not wait for us.
    numbers integer[] := ARRAY(SELECT llm_cost.memo_kind(n.kind) FROM unnest(each_kind) WITH ORDINALITY AS n (kind, at)
        ORDER BY n.at);
BEGIN
    PERFORM llm_cost.lock_budgets(tenant_, false);
    now_ := llm_cost.moment(given);
    IF version_ <> (SELECT version::text FROM llm_cost.tenant WHERE id = tenant_) THEN
        RETURN ARRAY['stale', now_::text] || llm_cost.budgets(tenant_);
    END IF;
    accounts_ := llm_cost.accounts(tenant_, names);
    PERFORM 1 FROM llm_cost.account WHERE id IN (
        SELECT n.id FROM unnest(accounts_, warns) AS n (id, warn) WHERE n.warn <> ''
    ) ORDER BY id FOR NO KEY UPDATE;
    WITH added AS (
        INSERT INTO llm_cost.reservation (tenant, id, scopes, amount, created, expires, state, charged, verb, actual, status,
                resolved)
            SELECT tenant_, n.id, n.scopes, CASE n.kind WHEN 'book' THEN 0 ELSE n.amount END, n.created, n.expires,
                CASE n.kind WHEN 'book' THEN 'settled' ELSE 'pending' END, CASE n.kind WHEN 'book' THEN n.amount ELSE 0 END,
                CASE n.kind WHEN 'book' THEN 'book' END, CASE n.kind WHEN 'book' THEN n.amount ELSE 0 END,
                CASE n.kind WHEN 'book' THEN n.status END, CASE n.kind WHEN 'book' THEN now_ ELSE 0 END
            FROM unnest(kinds, ids, scopes_, amounts, made, until_, statuses)
                AS n (kind, id, scopes, amount, created, expires, status) ORDER BY n.id
            ON CONFLICT DO NOTHING RETURNING id
    ) SELECT coalesce(array_agg(id), '{}') INTO fresh_ids FROM added;
    IF cardinality(fresh_ids) < cardinality(ids) THEN  -- some are in already: nothing is done
        DELETE FROM llm_cost.reservation WHERE tenant = tenant_ AND id = ANY (fresh_ids);
        RETURN ARRAY['taken'] || (SELECT array_agg(n.id) FROM unnest(ids) AS n (id) WHERE n.id <> ALL (fresh_ids));
    END IF;
    INSERT INTO llm_cost.entry (tenant, kind, id, at, amount, scopes, status, created, settled, pending, memo, memo_kind,
            count_1, count_2, count_3, count_4, count_5)
        SELECT tenant_, n.kind, n.id, now_, n.amount, n.scopes, n.status, n.created,
            CASE n.kind WHEN 'book' THEN n.amount ELSE 0 END, CASE n.kind WHEN 'book' THEN 0 ELSE n.amount END, n.memo,
            numbers[array_position(each_kind, n.memo_kind)], n.one, n.two, n.three, n.four, n.five
        FROM unnest(kinds, ids, scopes_, amounts, made, statuses, memos, memo_kinds, count_1_, count_2_, count_3_, count_4_,
            count_5_) WITH ORDINALITY AS n (kind, id, scopes, amount, created, status, memo, memo_kind, one, two, three, four,
            five, at) ORDER BY n.at;
    FOR block IN SELECT value FROM jsonb_array_elements(blocks) ORDER BY value ->> 'id' LOOP
        SELECT * INTO before_ FROM llm_cost.reservation WHERE tenant = tenant_ AND id = block ->> 'id' FOR UPDATE;
        IF NOT FOUND OR before_.state NOT IN ('pending', 'expired') THEN
            IF block ->> 'ttl' <> '0' THEN
                lost := lost || (block ->> 'id');
            END IF;
            CONTINUE;
        END IF;
        target := (block ->> 'amount')::bigint;
        change_settled := 0;
        change_pending := 0;
        IF before_.state = 'expired' THEN  -- it was charged whole: what is booked now must not count twice
            lost := lost || before_.id;
            change_settled := least(target - before_.charged, 0);
        ELSE
            change_pending := CASE block ->> 'ttl' WHEN '0' THEN 0 ELSE target END - before_.amount;
        END IF;
        IF before_.state = 'pending' AND block ->> 'ttl' = '0' THEN
            UPDATE llm_cost.reservation SET state = 'voided', verb = 'void', status = 'void', resolved = now_
                WHERE tenant = tenant_ AND id = before_.id;
            INSERT INTO llm_cost.entry (tenant, kind, id, at, amount, scopes, status, created, settled, pending, memo)
                VALUES (tenant_, 'void', before_.id, now_, 0, before_.scopes, 'void', before_.created, 0, change_pending, '');
        ELSIF before_.state = 'pending' THEN
            UPDATE llm_cost.reservation SET amount = target, expires = greatest(expires, now_ + (block ->> 'ttl')::bigint)
                WHERE tenant = tenant_ AND id = before_.id;
            IF change_pending <> 0 THEN
                INSERT INTO llm_cost.entry (tenant, kind, id, at, amount, scopes, status, created, settled, pending, memo)
                    VALUES (tenant_, 'reduce', before_.id, now_, target, before_.scopes, 'reserved', before_.created, 0,
                        change_pending, '');
            END IF;
        ELSIF change_settled <> 0 THEN
            UPDATE llm_cost.reservation SET charged = charged + change_settled, reconciled = now_
                WHERE tenant = tenant_ AND id = before_.id;
            INSERT INTO llm_cost.entry (tenant, kind, id, at, amount, scopes, status, created, settled, pending, memo)
                VALUES (tenant_, 'reconcile', before_.id, now_, before_.charged + change_settled, before_.scopes, 'exact',
                    before_.created, change_settled, 0, '');
        END IF;
        FOR number IN 0..jsonb_array_length(block -> 'postings') - 1 LOOP
            held_names := held_names || (block -> 'postings' -> number ->> 0);
            held_cells := held_cells || (block -> 'postings' -> number ->> 1)::bigint;
            held_settled := held_settled || change_settled;
            held_pending := held_pending || change_pending;
        END LOOP;
    END LOOP;
    -- All sums in one statement and one order: two processes never wait for one another.
    INSERT INTO llm_cost.cell AS known (account, cell, stripe, settled, pending)
        SELECT n.account, n.cell, pg_backend_pid() % 16, sum(n.settled)::bigint, sum(n.pending)::bigint
            FROM unnest(accounts_ || llm_cost.accounts(tenant_, held_names), cells || held_cells, settled_ || held_settled,
                pending_ || held_pending) AS n (account, cell, settled, pending)
            WHERE n.settled <> 0 OR n.pending <> 0 OR n.account = ANY (accounts_)
            GROUP BY n.account, n.cell ORDER BY n.account, n.cell
        ON CONFLICT (account, cell, stripe)
            DO UPDATE SET settled = known.settled + excluded.settled, pending = known.pending + excluded.pending;
    FOR number IN 1..cardinality(names) LOOP
        CONTINUE WHEN warns[number] = '' OR settled_[number] <= 0;
        sums_ := string_to_array(warns[number], ',')::bigint[];
        sum_ := (llm_cost.sums(accounts_[number], firsts[number], cells[number]))[1];
        CONTINUE WHEN sum_ < sums_[1];
        -- of the lowest once a window, whoever crossed it; of the others whoever crosses them
        UPDATE llm_cost.account SET warned = cells[number] WHERE id = accounts_[number] AND warned < firsts[number];
        fresh := FOUND;
        SELECT max(n.warn) INTO reached FROM unnest(sums_) AS n (warn)
            WHERE n.warn <= sum_ AND (fresh OR (n.warn > sums_[1] AND n.warn > sum_ - settled_[number]));
        IF reached IS NOT NULL THEN
            crossed := crossed || (names[number] || ' ' || reached);
        END IF;
    END LOOP;
    RETURN ARRAY['done', now_::text, array_to_string(lost, ' ')] || crossed;
END $$;
