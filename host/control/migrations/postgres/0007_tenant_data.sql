-- What applications keep for a tenant: the guide's `users`, `projects` and `files`, which
-- are its kinds, in the guide's `tenant_data` with what it lacks: a key, walls, time.
--
--   tenant_data                    LIST (tenant_id): a tenant that is huge has a part alone
--     tenant_data_shared           DEFAULT, HASH (tenant_id): everybody else, in 8 parts
--       tenant_data_h8_0           RANGE (created_at): a part a month, and one for the rest
--
-- Row-level security of the parent does not protect a partition that is named in a
-- statement, so partitions are made by make_partition alone: own walls, nobody's rights.
-- Every change of the tree first locks the root, so that no statement is between its look
-- at the tree and its rows. All of it is schema_owner's (store/partitions); the functions
-- have the rights of their caller, and nobody else may call them.

CREATE TABLE tenant_data (
    tenant_id  uuid   NOT NULL,
    id         uuid   NOT NULL,
    kind       text   NOT NULL,
    -- JSON.
    data       text   NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    -- No foreign key: a part that joins the tree would be read as a whole, under the lock.
    PRIMARY KEY (tenant_id, id, created_at)
) PARTITION BY LIST (tenant_id);

CREATE INDEX tenant_data_by_time ON tenant_data (tenant_id, created_at, id);

ALTER TABLE tenant_data ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenant_data FORCE ROW LEVEL SECURITY;

CREATE POLICY one_tenant ON tenant_data TO application_user
    USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid)
    WITH CHECK (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid);
CREATE POLICY all_tenants ON tenant_data TO control_plane USING (true);

GRANT SELECT, INSERT, UPDATE (kind, data, updated_at), DELETE ON tenant_data TO application_user;
GRANT SELECT, DELETE ON tenant_data TO control_plane;

-- Makes a table of the tree: a part of `parent` for `bound`; without a bound a table like
-- `parent` that is to be one. `parts` is its own PARTITION BY, or ''.
CREATE FUNCTION make_partition(name text, parent regclass, bound text, parts text)
RETURNS regclass LANGUAGE plpgsql SET search_path = edge, pg_temp AS $$
DECLARE
    made regclass;
BEGIN
    IF bound IS NULL THEN
        EXECUTE format('CREATE TABLE %I (LIKE %s INCLUDING DEFAULTS INCLUDING CONSTRAINTS '
                       'INCLUDING INDEXES) %s', name, parent, parts);
    ELSE
        EXECUTE format('CREATE TABLE %I PARTITION OF %s %s %s', name, parent, bound, parts);
    END IF;
    made := to_regclass(quote_ident(name));
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', made);
    EXECUTE format('REVOKE ALL ON %s FROM PUBLIC, application_user, control_plane', made);
    RETURN made;
END $$;

SELECT make_partition('tenant_data_shared', 'tenant_data', 'DEFAULT',
                      'PARTITION BY HASH (tenant_id)');

DO $$
DECLARE
    part regclass;
BEGIN
    FOR remainder IN 0..7 LOOP
        part := edge.make_partition('tenant_data_h8_' || remainder, 'edge.tenant_data_shared',
            format('FOR VALUES WITH (MODULUS 8, REMAINDER %s)', remainder),
            'PARTITION BY RANGE (created_at)');
        PERFORM edge.make_partition('tenant_data_h8_' || remainder || '_rest', part, 'DEFAULT', '');
    END LOOP;
END $$;

-- The tree: each part, its bound as PostgreSQL writes it, and the bounds of a month.
CREATE VIEW tenant_data_part WITH (security_invoker = true) AS
SELECT c.oid::regclass AS part, c.relname::text AS name, i.inhparent::regclass AS parent,
       b.bound, b.bound = 'DEFAULT' AS is_default, c.relkind = 'r' AS is_leaf,
       (regexp_match(b.bound, 'FROM \(''?(-?\d+)'))[1]::bigint AS from_ms,
       (regexp_match(b.bound, 'TO \(''?(-?\d+)'))[1]::bigint AS to_ms,
       (regexp_match(b.bound, 'modulus (\d+)'))[1]::integer AS modulus,
       (regexp_match(b.bound, 'remainder (\d+)'))[1]::integer AS remainder,
       (regexp_match(b.bound, 'IN \(''([0-9a-f-]{36})'))[1]::uuid AS whale
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.oid
CROSS JOIN LATERAL (SELECT pg_get_expr(c.relpartbound, c.oid) AS bound) b
WHERE c.relnamespace = 'edge'::regnamespace AND c.relkind IN ('r', 'p')
  AND c.relname LIKE 'tenant\_data\_%';

GRANT SELECT ON tenant_data_part TO control_plane;

-- Start of the month of an instant, or of one some months later.
CREATE FUNCTION month_start(at_ms bigint, later integer) RETURNS bigint
LANGUAGE sql IMMUTABLE AS $$
    SELECT (extract(epoch FROM date_trunc('month', timezone('UTC', to_timestamp(at_ms / 1000.0)))
            + make_interval(months => later)) * 1000)::bigint
$$;

-- How a part of a month is called after its parent.
CREATE FUNCTION month_name(parent text, from_ms bigint) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT parent || COALESCE(to_char(timezone('UTC', to_timestamp(from_ms / 1000.0)), '_YYYYMM'),
                              '_rest')
$$;

-- Makes the next missing month of `parent`, up to `ahead` months after that of `now_ms`, and
-- gives it the rows that had to go to the rest. Its name, or NULL when there is none.
CREATE FUNCTION make_month(parent regclass, now_ms bigint, ahead integer) RETURNS text
LANGUAGE plpgsql SET search_path = edge, pg_temp AS $$
DECLARE
    from_ms bigint;
    to_ms bigint;
    rest regclass;
    month regclass;
BEGIN
    SELECT month_start(now_ms, n), month_start(now_ms, n + 1) INTO from_ms, to_ms
    FROM generate_series(0, ahead) n
    WHERE NOT EXISTS (SELECT FROM tenant_data_part p
                      WHERE p.parent = make_month.parent AND p.from_ms = month_start(now_ms, n))
    ORDER BY n LIMIT 1;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    SELECT part INTO STRICT rest FROM tenant_data_part p
    WHERE p.parent = make_month.parent AND is_default;
    month := make_partition(
        month_name((SELECT relname::text FROM pg_class WHERE oid = parent), from_ms),
        parent, NULL, '');
    -- The owner sees no row but by a policy, which ends with this transaction.
    EXECUTE format('CREATE POLICY moving ON %s TO schema_owner USING (true)', rest);
    EXECUTE format('CREATE POLICY moving ON %s TO schema_owner USING (true)', month);
    EXECUTE format('WITH moved AS (DELETE FROM %s WHERE created_at >= %s AND created_at < %s '
                   'RETURNING *) INSERT INTO %s SELECT * FROM moved', rest, from_ms, to_ms, month);
    EXECUTE format('DROP POLICY moving ON %s', rest);
    EXECUTE format('DROP POLICY moving ON %s', month);
    EXECUTE format('ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM (%s) TO (%s)',
                   parent, month, from_ms, to_ms);
    RETURN month::text;
END $$;

-- Takes the oldest month that ends by `before_ms` out of the tree and drops it. Its name, or
-- NULL when there is none. Parts that are being moved wait until they are.
CREATE FUNCTION drop_month(before_ms bigint) RETURNS text
LANGUAGE plpgsql SET search_path = edge, pg_temp AS $$
DECLARE
    month record;
BEGIN
    SELECT p.part, p.name, p.parent INTO month FROM tenant_data_part p
    WHERE p.is_leaf AND p.to_ms <= before_ms
      AND NOT EXISTS (SELECT FROM partition_move m
                      WHERE m.state NOT IN ('done', 'failed')
                        AND p.parent::text IN (m.source, m.left_part, m.right_part))
    ORDER BY p.to_ms, p.name LIMIT 1;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    EXECUTE format('ALTER TABLE %s DETACH PARTITION %s', month.parent, month.part);
    EXECUTE format('DROP TABLE %s', month.part);
    RETURN month.name;
END $$;

-- A part that is being replaced by two, one move at a time: split by a larger modulus, or a
-- huge tenant isolated in a part of its own. The manager takes it from state to state; each
-- step is one transaction, so a restart goes on where the last one ended.
CREATE TABLE partition_move (
    id            bigint NOT NULL PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    kind          text   NOT NULL CHECK (kind IN ('split', 'isolate')),
    -- The part that is replaced; known from the start of a split, found for a tenant.
    source        text,
    -- The tenant that is isolated.
    whale         uuid,
    state         text   NOT NULL DEFAULT 'wanted' CHECK (state IN ('wanted', 'copying',
        'guarding', 'checking', 'verifying', 'swapping', 'dropping', 'done', 'failed')),
    -- The two that replace it: names, bounds, and what is true of each row of them.
    left_part     text,
    right_part    text,
    left_bound    text,
    right_bound   text,
    left_check    text,
    right_check   text,
    -- Key of the last row copied.
    at_tenant     uuid   NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    at_id         uuid   NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    at_created    bigint NOT NULL DEFAULT -9223372036854775808,
    copied        bigint NOT NULL DEFAULT 0,
    -- Rows and sum of their hashes, when both sides were found equal.
    verified_rows bigint,
    verified_hash text,
    error         text,
    created_at    bigint NOT NULL,
    updated_at    bigint NOT NULL,
    CHECK ((kind = 'isolate') = (whale IS NOT NULL))
);

CREATE UNIQUE INDEX partition_move_one ON partition_move ((1))
    WHERE state NOT IN ('done', 'failed');

GRANT SELECT, INSERT (kind, source, whale, created_at, updated_at) ON partition_move
    TO control_plane;

-- Keys that were written in the part that is being moved, since its copy began.
CREATE TABLE tenant_data_change (
    tenant_id  uuid   NOT NULL,
    seq        bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    id         uuid   NOT NULL,
    created_at bigint NOT NULL,
    PRIMARY KEY (tenant_id, seq)
);

ALTER TABLE tenant_data_change ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenant_data_change FORCE ROW LEVEL SECURITY;

CREATE POLICY moving ON tenant_data_change TO schema_owner USING (true);

-- The only function with its owner's rights: whoever writes a row has none on the log.
CREATE FUNCTION log_tenant_data_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = edge, pg_temp AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        INSERT INTO tenant_data_change (tenant_id, id, created_at)
        VALUES (OLD.tenant_id, OLD.id, OLD.created_at);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO tenant_data_change (tenant_id, id, created_at)
        VALUES (NEW.tenant_id, NEW.id, NEW.created_at);
    END IF;
    RETURN NULL;
END $$;

-- Ends a move that cannot go on, and what it has made.
CREATE FUNCTION fail_move(move_id bigint, reason text) RETURNS text
LANGUAGE plpgsql SET search_path = edge, pg_temp AS $$
DECLARE
    m partition_move;
    guarded record;
BEGIN
    SELECT * INTO STRICT m FROM partition_move WHERE id = move_id FOR UPDATE;
    IF m.state IN ('dropping', 'done', 'failed') THEN
        RETURN m.state;
    END IF;
    IF to_regclass(m.source) IS NOT NULL AND m.left_part IS NOT NULL THEN
        EXECUTE format('DROP TRIGGER log_changes ON %I', m.source);
        EXECUTE format('DROP POLICY moving ON %I', m.source);
        EXECUTE format('DROP TABLE %I, %I', m.left_part, m.right_part);
    END IF;
    PERFORM unguard(m);
    DELETE FROM tenant_data_change;
    UPDATE partition_move SET state = 'failed', error = reason WHERE id = move_id;
    RETURN 'failed';
END $$;

-- wanted: makes the two tables and starts the log of changes.
CREATE FUNCTION prepare_move(move_id bigint) RETURNS text
LANGUAGE plpgsql SET search_path = edge, pg_temp AS $$
DECLARE
    m partition_move;
    p tenant_data_part;
    side record;
    part record;
    made regclass;
BEGIN
    SELECT * INTO STRICT m FROM partition_move WHERE id = move_id AND state = 'wanted' FOR UPDATE;
    SELECT * INTO p FROM tenant_data_part q
    WHERE q.parent = 'tenant_data_shared'::regclass
      AND CASE m.kind WHEN 'split' THEN q.name = m.source
          ELSE satisfies_hash_partition(q.parent, q.modulus, q.remainder, m.whale) END;
    IF NOT FOUND THEN
        RETURN fail_move(move_id, 'there is no such part to split');
    END IF;
    IF EXISTS (SELECT FROM tenant_data_part q WHERE q.whale = m.whale) THEN
        RETURN fail_move(move_id, 'the tenant has a part of its own already');
    END IF;
    m.source := p.name;
    IF m.kind = 'split' THEN
        m.left_part := format('tenant_data_h%s_%s_m%s', 2 * p.modulus, p.remainder, m.id);
        m.right_part := format('tenant_data_h%s_%s_m%s', 2 * p.modulus, p.modulus + p.remainder, m.id);
        m.left_bound := format('WITH (MODULUS %s, REMAINDER %s)', 2 * p.modulus, p.remainder);
        m.right_bound := format('WITH (MODULUS %s, REMAINDER %s)', 2 * p.modulus,
                                p.modulus + p.remainder);
        -- As PostgreSQL writes the condition of the bound, so that it need not look at rows.
        m.left_check := format('satisfies_hash_partition(%L::oid, %s, %s, tenant_id)',
                               p.parent::oid, 2 * p.modulus, p.remainder);
        m.right_check := format('satisfies_hash_partition(%L::oid, %s, %s, tenant_id)',
                                p.parent::oid, 2 * p.modulus, p.modulus + p.remainder);
    ELSE
        m.left_part := format('tenant_data_h%s_%s_m%s', p.modulus, p.remainder, m.id);
        m.right_part := format('tenant_data_t%s', replace(m.whale::text, '-', ''));
        m.left_bound := format('WITH (MODULUS %s, REMAINDER %s)', p.modulus, p.remainder);
        m.right_bound := format('IN (%L)', m.whale);
        m.left_check := format('satisfies_hash_partition(%L::oid, %s, %s, tenant_id) '
                               'AND tenant_id <> %L::uuid',
                               p.parent::oid, p.modulus, p.remainder, m.whale);
        m.right_check := format('tenant_id = %L::uuid', m.whale);
    END IF;
    FOR side IN SELECT * FROM (VALUES (m.left_part, m.left_check),
                                      (m.right_part, m.right_check)) v (name, holds) LOOP
        made := make_partition(side.name, 'tenant_data', NULL, 'PARTITION BY RANGE (created_at)');
        EXECUTE format('ALTER TABLE %s ADD CONSTRAINT bound CHECK (%s)', made, side.holds);
        EXECUTE format('CREATE POLICY moving ON %s TO schema_owner USING (true)', made);
        FOR part IN SELECT * FROM tenant_data_part q WHERE q.parent = p.part LOOP
            PERFORM make_partition(month_name(side.name, part.from_ms), made,
                CASE WHEN part.is_default THEN 'DEFAULT' ELSE part.bound END, '');
        END LOOP;
    END LOOP;
    EXECUTE format('CREATE POLICY moving ON %s TO schema_owner USING (true)', p.part);
    EXECUTE format('CREATE TRIGGER log_changes AFTER INSERT OR UPDATE OR DELETE ON %s '
                   'FOR EACH ROW EXECUTE FUNCTION log_tenant_data_change()', p.part);
    UPDATE partition_move
    SET state = 'copying', source = m.source, left_part = m.left_part, right_part = m.right_part,
        left_bound = m.left_bound, right_bound = m.right_bound,
        left_check = m.left_check, right_check = m.right_check
    WHERE id = move_id;
    RETURN 'copying';
END $$;

-- copying: copies the next rows in the order of their keys.
CREATE FUNCTION copy_move(move_id bigint, rows_max bigint) RETURNS text
LANGUAGE plpgsql SET search_path = edge, pg_temp AS $$
DECLARE
    m partition_move;
    batch record;
BEGIN
    SELECT * INTO STRICT m FROM partition_move WHERE id = move_id AND state = 'copying' FOR UPDATE;
    EXECUTE format(
        'WITH batch AS MATERIALIZED (
             SELECT * FROM %I WHERE (tenant_id, id, created_at) > ($1, $2, $3)
             ORDER BY tenant_id, id, created_at LIMIT $4
         ), to_left AS (
             INSERT INTO %I SELECT * FROM batch WHERE %s ON CONFLICT DO NOTHING
         ), to_right AS (
             INSERT INTO %I SELECT * FROM batch WHERE %s ON CONFLICT DO NOTHING
         )
         SELECT tenant_id, id, created_at, (SELECT count(*) FROM batch) AS rows FROM batch
         ORDER BY tenant_id DESC, id DESC, created_at DESC LIMIT 1',
        m.source, m.left_part, m.left_check, m.right_part, m.right_check)
    INTO batch USING m.at_tenant, m.at_id, m.at_created, rows_max;
    IF batch.rows IS NULL THEN
        UPDATE partition_move SET state = 'guarding' WHERE id = move_id RETURNING state INTO m.state;
    ELSE
        UPDATE partition_move
        SET at_tenant = batch.tenant_id, at_id = batch.id, at_created = batch.created_at,
            copied = copied + batch.rows
        WHERE id = move_id;
    END IF;
    RETURN m.state;
END $$;

-- Brings up to `rows_max` changed rows of the copy to what they are now; how many log entries
-- that took. Their order does not matter: a row becomes what the source has.
CREATE FUNCTION replay_changes(m partition_move, rows_max bigint) RETURNS bigint
LANGUAGE plpgsql SET search_path = edge, pg_temp AS $$
DECLARE
    taken bigint;
    tenants uuid[];
    ids uuid[];
    instants bigint[];
    side record;
BEGIN
    WITH gone AS (
        DELETE FROM tenant_data_change
        WHERE ctid = ANY (ARRAY(SELECT ctid FROM tenant_data_change LIMIT rows_max))
        RETURNING tenant_id, id, created_at
    ), keys AS (
        SELECT tenant_id, id, created_at, count(*) AS times FROM gone GROUP BY 1, 2, 3
    )
    SELECT sum(times), array_agg(tenant_id), array_agg(id), array_agg(created_at)
    INTO taken, tenants, ids, instants FROM keys;
    IF taken IS NULL THEN
        RETURN 0;
    END IF;
    FOR side IN SELECT * FROM (VALUES (m.left_part, m.left_check),
                                      (m.right_part, m.right_check)) v (name, holds) LOOP
        EXECUTE format('DELETE FROM %I WHERE (tenant_id, id, created_at) IN
                            (SELECT * FROM unnest($1, $2, $3))', side.name)
        USING tenants, ids, instants;
        EXECUTE format('INSERT INTO %I SELECT s.* FROM %I s
                        JOIN unnest($1, $2, $3) AS k (tenant_id, id, created_at)
                            USING (tenant_id, id, created_at) WHERE %s',
                       side.name, m.source, side.holds)
        USING tenants, ids, instants;
    END LOOP;
    RETURN taken;
END $$;

-- Between copy and swap: brings the copy nearer to the source.
CREATE FUNCTION catch_up_move(move_id bigint, rows_max bigint) RETURNS bigint
LANGUAGE plpgsql SET search_path = edge, pg_temp AS $$
DECLARE
    m partition_move;
BEGIN
    SELECT * INTO STRICT m FROM partition_move
    WHERE id = move_id AND state NOT IN ('wanted', 'dropping', 'done', 'failed') FOR UPDATE;
    RETURN replay_changes(m, rows_max);
END $$;

-- A tenant's own part takes rows from the bound of the shared ones, all of which would be
-- read under the lock. So each is guarded: a condition that is added at once (guarding) and
-- checked without a lock (checking), and goes at the end.
CREATE FUNCTION guard_move(move_id bigint) RETURNS text
LANGUAGE plpgsql SET search_path = edge, pg_temp AS $$
DECLARE
    m partition_move;
    other regclass;
BEGIN
    SELECT * INTO STRICT m FROM partition_move WHERE id = move_id AND state = 'guarding' FOR UPDATE;
    IF m.kind = 'isolate' THEN
        FOR other IN SELECT part FROM tenant_data_part
                     WHERE parent = 'tenant_data_shared'::regclass AND name <> m.source LOOP
            EXECUTE format('ALTER TABLE %s ADD CONSTRAINT guard CHECK (tenant_id <> %L::uuid) '
                           'NOT VALID', other, m.whale);
        END LOOP;
    END IF;
    UPDATE partition_move SET state = 'checking' WHERE id = move_id;
    RETURN 'checking';
END $$;

CREATE FUNCTION check_guard(move_id bigint) RETURNS text
LANGUAGE plpgsql SET search_path = edge, pg_temp AS $$
DECLARE
    m partition_move;
    other regclass;
BEGIN
    SELECT * INTO STRICT m FROM partition_move WHERE id = move_id AND state = 'checking' FOR UPDATE;
    SELECT k.conrelid::regclass INTO other FROM pg_constraint k
    JOIN tenant_data_part p ON p.part = k.conrelid
    WHERE k.conname = 'guard' AND NOT k.convalidated
      AND p.parent = 'tenant_data_shared'::regclass LIMIT 1;
    IF FOUND THEN
        EXECUTE format('ALTER TABLE %s VALIDATE CONSTRAINT guard', other);
    ELSE
        UPDATE partition_move SET state = 'verifying' WHERE id = move_id
        RETURNING state INTO m.state;
    END IF;
    RETURN m.state;
END $$;

CREATE FUNCTION unguard(m partition_move) RETURNS void
LANGUAGE plpgsql SET search_path = edge, pg_temp AS $$
DECLARE
    other regclass;
BEGIN
    FOR other IN SELECT k.conrelid::regclass FROM pg_constraint k
                 JOIN tenant_data_part p ON p.part = k.conrelid
                 WHERE k.conname = 'guard' AND p.parent = 'tenant_data_shared'::regclass LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT guard', other);
    END LOOP;
END $$;

-- verifying, in one snapshot: the copy, brought to it, must be what the source is in it.
CREATE FUNCTION verify_move(move_id bigint) RETURNS text
LANGUAGE plpgsql SET search_path = edge, pg_temp AS $$
DECLARE
    m partition_move;
    sides text[];
    rows bigint[];
    hashes numeric[];
    found record;
BEGIN
    SELECT * INTO STRICT m FROM partition_move WHERE id = move_id AND state = 'verifying' FOR UPDATE;
    PERFORM replay_changes(m, 9223372036854775807);
    sides := ARRAY[m.source, m.left_part, m.right_part];
    FOR side IN 1..3 LOOP
        EXECUTE format('SELECT count(*) AS rows, COALESCE(sum(hashtextextended(ROW(tenant_id, id,
                            kind, data, created_at, updated_at)::text, 0)::numeric), 0) AS hash
                        FROM %I', sides[side])
        INTO found;
        rows[side] := found.rows;
        hashes[side] := found.hash;
    END LOOP;
    IF rows[1] <> rows[2] + rows[3] OR hashes[1] <> hashes[2] + hashes[3] THEN
        RETURN fail_move(move_id, format('the copy is not the source: %s + %s rows of %s',
                                         rows[2], rows[3], rows[1]));
    END IF;
    UPDATE partition_move
    SET state = 'swapping', verified_rows = rows[1], verified_hash = hashes[1]::text
    WHERE id = move_id;
    RETURN 'swapping';
END $$;

-- swapping, under the lock of the root: the last changes, then the two in place of the one.
CREATE FUNCTION swap_move(move_id bigint) RETURNS text
LANGUAGE plpgsql SET search_path = edge, pg_temp AS $$
DECLARE
    m partition_move;
BEGIN
    SELECT * INTO STRICT m FROM partition_move WHERE id = move_id AND state = 'swapping' FOR UPDATE;
    PERFORM replay_changes(m, 9223372036854775807);
    EXECUTE format('DROP TRIGGER log_changes ON %I', m.source);
    EXECUTE format('ALTER TABLE tenant_data_shared DETACH PARTITION %I', m.source);
    EXECUTE format('ALTER TABLE tenant_data_shared ATTACH PARTITION %I FOR VALUES %s',
                   m.left_part, m.left_bound);
    EXECUTE format('ALTER TABLE %s ATTACH PARTITION %I FOR VALUES %s',
                   CASE m.kind WHEN 'split' THEN 'tenant_data_shared' ELSE 'tenant_data' END,
                   m.right_part, m.right_bound);
    EXECUTE format('DROP POLICY moving ON %I', m.left_part);
    EXECUTE format('DROP POLICY moving ON %I', m.right_part);
    EXECUTE format('ALTER TABLE %I DROP CONSTRAINT bound', m.left_part);
    EXECUTE format('ALTER TABLE %I DROP CONSTRAINT bound', m.right_part);
    UPDATE partition_move SET state = 'dropping' WHERE id = move_id;
    RETURN 'dropping';
END $$;

-- dropping: what was replaced goes.
CREATE FUNCTION drop_moved(move_id bigint) RETURNS text
LANGUAGE plpgsql SET search_path = edge, pg_temp AS $$
DECLARE
    m partition_move;
BEGIN
    SELECT * INTO STRICT m FROM partition_move WHERE id = move_id AND state = 'dropping' FOR UPDATE;
    EXECUTE format('DROP TABLE %I', m.source);
    PERFORM unguard(m);
    DELETE FROM tenant_data_change;
    UPDATE partition_move SET state = 'done' WHERE id = move_id;
    RETURN 'done';
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA edge FROM PUBLIC;
