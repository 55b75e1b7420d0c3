-- What the functions of verbs and queries share.

-- The version of the schema: a process of an earlier one holds nothing any more.
CREATE OR REPLACE FUNCTION llm_cost.check_schema(schema_ integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF schema_ IS DISTINCT FROM (SELECT version FROM llm_cost.schema_version) THEN
        RAISE EXCEPTION 'a newer version of llm_cost_middleware uses this ledger: this program settles what it holds, and'
            ' holds nothing more; update it and start it again';
    END IF;
END $$;

-- The number of a kind of memos; NULL for none, or where there are too many.
CREATE OR REPLACE FUNCTION llm_cost.memo_kind(kind_ text) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    found integer;
BEGIN
    IF kind_ IS NULL THEN
        RETURN NULL;
    END IF;
    SELECT id INTO found FROM llm_cost.memo_kind WHERE data = kind_;
    IF found IS NULL THEN
        INSERT INTO llm_cost.memo_kind (data) SELECT kind_ WHERE (SELECT count(*) FROM llm_cost.memo_kind) < 10000
            ON CONFLICT DO NOTHING;
        SELECT id INTO found FROM llm_cost.memo_kind WHERE data = kind_;
    END IF;
    RETURN found;
END $$;

-- Write the notes of a resolution: lines of the journal (kind, id, at), then shared values (key), the bytes of each in
-- data_; ``keep``: how many values stay. Whether it could: money is booked all the same.
CREATE OR REPLACE FUNCTION llm_cost.write_notes(tenant_ integer, told text, data_ bytea[]) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    notes jsonb;
    lines integer;
BEGIN
    IF told IS NULL THEN
        RETURN false;
    END IF;
    notes := told;  -- here: a text that it does not take costs the notes, and nothing else
    lines := coalesce(jsonb_array_length(notes -> 'lines'), 0);
    INSERT INTO llm_cost.mark (tenant, kind, id, at, data)
        SELECT tenant_, n.line ->> 0, n.line ->> 1, (n.line ->> 2)::double precision, data_[n.number]
            FROM jsonb_array_elements(notes -> 'lines') WITH ORDINALITY AS n (line, number) ORDER BY n.number;
    INSERT INTO llm_cost.shared (tenant, key, at, data)
        SELECT tenant_, n.key, (notes ->> 'at')::double precision, data_[lines + n.number]
            FROM jsonb_array_elements_text(notes -> 'keys') WITH ORDINALITY AS n (key, number) ORDER BY n.key
        ON CONFLICT (tenant, key) DO UPDATE SET at = excluded.at, data = excluded.data;
    IF notes ->> 'keep' IS NOT NULL THEN
        DELETE FROM llm_cost.shared WHERE tenant = tenant_ AND at < (
            SELECT at FROM llm_cost.shared WHERE tenant = tenant_ ORDER BY at DESC LIMIT 1 OFFSET (notes ->> 'keep')::integer
        );
    END IF;
    RETURN true;
EXCEPTION WHEN OTHERS THEN
    RETURN false;
END $$;

-- The scopes of some kinds.
CREATE OR REPLACE FUNCTION llm_cost.narrow(scopes_ text, kinds text[]) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(string_agg(n.scope, ' ' ORDER BY n.number), '')
        FROM unnest(string_to_array(scopes_, ' ')) WITH ORDINALITY AS n (scope, number)
        WHERE split_part(n.scope, ':', 1) = ANY (kinds)
$$;

-- Scopes, or names of accounts, with another name in the place of a scope.
CREATE OR REPLACE FUNCTION llm_cost.renamed(scopes_ text, scope text, alias text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT trim(both ' ' FROM replace(' ' || scopes_ || ' ', ' ' || scope || ' ', ' ' || alias || ' '))
$$;

-- The same in a list of accounts with what they crossed, separated by commas.
CREATE OR REPLACE FUNCTION llm_cost.renamed_list(accounts_ text, scope text, alias text) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT substr(replace(',' || accounts_, ',' || scope || ' ', ',' || alias || ' '), 2)
$$;

-- Whether it is still this process whose turn it is to do what one at a time does; if so, for longer.
CREATE OR REPLACE FUNCTION llm_cost.keep_turn(tenant_ integer, token_ text, lease_ms bigint) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE llm_cost.upkeep SET until = llm_cost.moment(NULL) + lease_ms WHERE tenant = tenant_ AND token = token_;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'another process is archiving it';
    END IF;
END $$;
