-- What processes of earlier versions call, while a fleet is brought forward: they settle what they hold, in the tables of
-- this version, and hold nothing more.

-- Of version 1.
CREATE OR REPLACE FUNCTION llm_cost.reserve(
    tenant_ integer, given bigint, version_ text, start_ bigint, until_ bigint, id_ text, amount_ bigint, ttl bigint,
    scopes_ text, forget boolean, latest bigint, memo_ bytea,
    names text[], cells bigint[], firsts bigint[], limits text[], slices_ jsonb
) RETURNS text[] LANGUAGE plpgsql AS $$
BEGIN
    PERFORM llm_cost.check_schema(1);
END $$;

CREATE OR REPLACE FUNCTION llm_cost.resolve(
    tenant_ integer, given bigint, version_ text, id_ text, seen_state text, seen_charged bigint, seen_reconciled bigint,
    verb_ text, amount_ bigint, status_ text, state_ text, charged_ bigint, settled_ bigint, pending_ bigint, scopes_ text,
    created_ bigint, start_ bigint, until_ bigint, writer_ text, seen_amount bigint, memo_ bytea,
    names text[], cells bigint[], firsts bigint[], warns text[], slices_ jsonb
) RETURNS text[] LANGUAGE sql AS $$
    SELECT llm_cost.resolve(
        tenant_, given, version_, id_, seen_state, seen_charged, seen_reconciled, verb_, amount_, status_, state_, charged_,
        settled_, pending_, scopes_, created_, start_, until_, writer_, seen_amount, memo_, names, cells, firsts, warns,
        NULL::text, NULL::bigint[], NULL::text, NULL::bytea[], slices_
    )
$$;
