"""What is in the schema beside its tables: functions, triggers, the first tenant."""

from __future__ import annotations

from sqlalchemy import Connection, text

from crochet_tasks.db import tables

FUNCTIONS_OF_CHECKS = (
    # Postgres calls convert_to stable because encodings can be redefined; into UTF-8 it always gives the same.
    """
    CREATE FUNCTION word_hash(word text) RETURNS bytea
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN sha256(convert_to(word, 'UTF8'))
    """,
    # How many cells a box has; 0 where the sides are none of an ortho: fewer than two, one below 2, or not ascending.
    """
    CREATE FUNCTION box_cells(sides smallint[]) RETURNS integer
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
    DECLARE
        cells integer := 1;
        side smallint;
        before smallint := 2;
    BEGIN
        IF coalesce(array_length(sides, 1), 0) < 2 THEN
            RETURN 0;
        END IF;
        FOREACH side IN ARRAY sides LOOP
            IF side < before THEN
                RETURN 0;
            END IF;
            cells := cells * side;
            before := side;
        END LOOP;
        RETURN cells;
    END $$
    """,
    # Who makes a change: what our programs say of this transaction, or what another program shows of itself.
    """
    CREATE FUNCTION audit_by() RETURNS jsonb
    LANGUAGE sql STABLE
    RETURN coalesce(
        nullif(current_setting('crochet.by', true), '')::jsonb,
        CASE WHEN current_setting('application_name') <> 'crochet' THEN jsonb_strip_nulls(jsonb_build_object(
            'via', 'sql', 'program', current_setting('application_name'), 'address', host(inet_client_addr())
        )) END
    )
    """,
)
"""Run before the tables are made: their constraints call these."""

PROGRAMS = (
    # Bulk values do not compress in the server, but must be read in slices: EXTERNAL.
    "ALTER TABLE batches ALTER COLUMN packed SET STORAGE EXTERNAL",
    "ALTER TABLE remediations ALTER COLUMN phrases SET STORAGE EXTERNAL",
    "ALTER TABLE windows ALTER COLUMN due SET STORAGE EXTERNAL",
    "ALTER TABLE work ALTER COLUMN boxes SET STORAGE EXTERNAL",
    "ALTER TABLE phrases ALTER COLUMN parent SET STORAGE EXTERNAL",
    "ALTER TABLE phrases ALTER COLUMN word SET STORAGE EXTERNAL",
    "ALTER TABLE best_faces ALTER COLUMN boxes SET STORAGE EXTERNAL",
    # By default a fifth of a table may be dead before it is vacuumed; the queue's index is read for each message.
    """
    ALTER TABLE work SET (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000,
                          autovacuum_analyze_scale_factor = 0.05)
    """,
    # A few rows that every result changes: with room beside them a change needs no new entry in the index.
    "ALTER TABLE counts SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200)",
    "ALTER TABLE audit SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 10000)",
    # Merges rewrite batches; nearly all their bytes are in the TOAST table, which has an autovacuum of its own.
    "ALTER TABLE batches SET (autovacuum_vacuum_scale_factor = 0.05, toast.autovacuum_vacuum_scale_factor = 0.05)",
    "ALTER TABLE remediations SET (autovacuum_vacuum_scale_factor = 0.05, toast.autovacuum_vacuum_scale_factor = 0.05)",
    """
    CREATE FUNCTION audit_text() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO audit (corpus, what, subject, before, after)
        VALUES (NEW.corpus, 'text.' || NEW.state, 'text ' || NEW.id,
                CASE WHEN TG_OP = 'UPDATE' THEN jsonb_build_object('state', OLD.state, 'version', OLD.version) END,
                jsonb_build_object('state', NEW.state, 'version', NEW.version, 'error', NEW.error)
                || CASE WHEN NEW.priority > 0 THEN jsonb_build_object('priority', NEW.priority) ELSE '{}' END);
        RETURN NULL;
    END $$
    """,
    "CREATE TRIGGER texts_audit_insert AFTER INSERT ON texts FOR EACH ROW EXECUTE FUNCTION audit_text()",
    """
    CREATE TRIGGER texts_audit_update AFTER UPDATE OF state ON texts FOR EACH ROW
    WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION audit_text()
    """,
    # Per statement: many items are written and done at once.
    """
    CREATE FUNCTION audit_work_written() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO audit (corpus, what, subject, after)
        SELECT corpus, 'work.' || state, 'work ' || id,
               jsonb_build_object('state', state, 'kind', kind, 'subject', subject)
          FROM written;
        RETURN NULL;
    END $$
    """,
    """
    CREATE FUNCTION audit_work_changed() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO audit (corpus, what, subject, before, after)
        SELECT now.corpus, 'work.' || CASE WHEN now.state <> was.state THEN now.state ELSE 'postponed' END,
               'work ' || now.id,
               jsonb_build_object('state', was.state, 'attempts', was.attempts),
               jsonb_build_object('state', now.state, 'attempts', now.attempts, 'error', now.error)
          FROM after AS now JOIN before AS was ON was.id = now.id
         WHERE now.state <> was.state OR now.attempts > was.attempts;
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER work_audit_insert AFTER INSERT ON work REFERENCING NEW TABLE AS written
    FOR EACH STATEMENT EXECUTE FUNCTION audit_work_written()
    """,
    """
    CREATE TRIGGER work_audit_update AFTER UPDATE ON work REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION audit_work_changed()
    """,
    # What a text that is no version yet brought: who may cancel it (the API) may delete no other words and phrases.
    """
    CREATE FUNCTION delete_ingested(number integer) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
    BEGIN
        DELETE FROM phrases WHERE corpus = number AND born > (SELECT version FROM corpora WHERE id = number);
        DELETE FROM words WHERE corpus = number AND born > (SELECT version FROM corpora WHERE id = number);
    END $$
    """,
    # Not the version, which its texts tell.
    """
    CREATE FUNCTION audit_corpus() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        was jsonb := CASE WHEN TG_OP <> 'INSERT' THEN jsonb_build_object(
            'name', OLD.name, 'description', OLD.description, 'budget', OLD.budget, 'priority', OLD.priority,
            'paused_at', OLD.paused_at, 'removed_at', OLD.removed_at) END;
        now jsonb := CASE WHEN TG_OP <> 'DELETE' THEN jsonb_build_object(
            'name', NEW.name, 'description', NEW.description, 'budget', NEW.budget, 'priority', NEW.priority,
            'paused_at', NEW.paused_at, 'removed_at', NEW.removed_at) END;
    BEGIN
        IF was IS DISTINCT FROM now THEN
            INSERT INTO audit (corpus, tenant, what, subject, before, after)
            VALUES (coalesce(NEW.id, OLD.id), coalesce(NEW.tenant, OLD.tenant),
                    CASE WHEN TG_OP = 'INSERT' THEN 'corpus.created' WHEN TG_OP = 'DELETE' THEN 'corpus.erased'
                         WHEN OLD.removed_at IS DISTINCT FROM NEW.removed_at THEN 'corpus.deleted'
                         WHEN OLD.paused_at IS NULL AND NEW.paused_at IS NOT NULL THEN 'corpus.paused'
                         WHEN OLD.paused_at IS NOT NULL AND NEW.paused_at IS NULL THEN 'corpus.resumed'
                         ELSE 'corpus.changed' END,
                    'corpus ' || coalesce(NEW.id, OLD.id), was, now);
        END IF;
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER corpora_audit
    AFTER INSERT OR DELETE OR UPDATE OF name, description, budget, priority, paused_at, removed_at
    ON corpora FOR EACH ROW EXECUTE FUNCTION audit_corpus()
    """,
    # Without its hash, and not each use.
    """
    CREATE FUNCTION audit_key() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        was jsonb := CASE WHEN TG_OP <> 'INSERT' THEN jsonb_build_object('name', OLD.name, 'scopes', OLD.scopes,
            'corpora', OLD.corpora, 'tier', OLD.tier, 'expires_at', OLD.expires_at,
            'revoked_at', OLD.revoked_at, 'rotated_at', OLD.rotated_at) END;
        now jsonb := CASE WHEN TG_OP <> 'DELETE' THEN jsonb_build_object('name', NEW.name, 'scopes', NEW.scopes,
            'corpora', NEW.corpora, 'tier', NEW.tier, 'expires_at', NEW.expires_at,
            'revoked_at', NEW.revoked_at, 'rotated_at', NEW.rotated_at) END;
    BEGIN
        IF was IS DISTINCT FROM now THEN
            INSERT INTO audit (tenant, what, subject, before, after)
            VALUES (coalesce(NEW.tenant, OLD.tenant),
                    CASE WHEN TG_OP = 'INSERT' THEN 'key.created' WHEN TG_OP = 'DELETE' THEN 'key.deleted'
                         WHEN OLD.revoked_at IS DISTINCT FROM NEW.revoked_at THEN 'key.revoked'
                         ELSE 'key.changed' END,
                    'key ' || coalesce(NEW.prefix, OLD.prefix), was, now);
        END IF;
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER keys_audit
    AFTER INSERT OR DELETE OR UPDATE OF name, scopes, corpora, tier, expires_at, revoked_at, rotated_at ON keys
    FOR EACH ROW EXECUTE FUNCTION audit_key()
    """,
    # Not each code, of which the security log has those that count.
    """
    CREATE FUNCTION audit_second_factor() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO audit (tenant, what, subject)
        SELECT keys.tenant,
               CASE WHEN TG_OP = 'DELETE' THEN 'second_factor.disabled' ELSE 'second_factor.enabled' END,
               'key ' || keys.prefix
          FROM keys WHERE keys.id = coalesce(NEW.key, OLD.key);
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER second_factors_audit_enabled AFTER UPDATE OF confirmed_at ON second_factors FOR EACH ROW
    WHEN (OLD.confirmed_at IS NULL AND NEW.confirmed_at IS NOT NULL) EXECUTE FUNCTION audit_second_factor()
    """,
    """
    CREATE TRIGGER second_factors_audit_disabled AFTER DELETE ON second_factors FOR EACH ROW
    WHEN (OLD.confirmed_at IS NOT NULL) EXECUTE FUNCTION audit_second_factor()
    """,
    """
    CREATE FUNCTION audit_tenant() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO audit (tenant, what, subject, before, after)
        VALUES (coalesce(NEW.id, OLD.id),
                CASE WHEN TG_OP = 'INSERT' THEN 'tenant.created' WHEN TG_OP = 'DELETE' THEN 'tenant.erased'
                     WHEN OLD.removed_at IS DISTINCT FROM NEW.removed_at THEN 'tenant.deleted'
                     WHEN OLD.suspended_at IS NULL AND NEW.suspended_at IS NOT NULL THEN 'tenant.suspended'
                     WHEN OLD.suspended_at IS NOT NULL AND NEW.suspended_at IS NULL THEN 'tenant.resumed'
                     WHEN OLD.full_at IS NULL AND NEW.full_at IS NOT NULL THEN 'tenant.full'
                     WHEN OLD.full_at IS NOT NULL AND NEW.full_at IS NULL THEN 'tenant.not_full'
                     ELSE 'tenant.changed' END,
                'tenant ' || coalesce(NEW.id, OLD.id), to_jsonb(OLD), to_jsonb(NEW));
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER tenants_audit AFTER INSERT OR DELETE OR UPDATE ON tenants
    FOR EACH ROW EXECUTE FUNCTION audit_tenant()
    """,
    # So that a row has its transaction before its number: seals wait for transactions (db/audit.py).
    """
    CREATE FUNCTION take_transaction() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_current_xact_id();
        RETURN NULL;
    END $$
    """,
    "CREATE TRIGGER audit_numbered BEFORE INSERT ON audit FOR EACH STATEMENT EXECUTE FUNCTION take_transaction()",
    """
    CREATE TRIGGER security_log_numbered BEFORE INSERT ON security_log
    FOR EACH STATEMENT EXECUTE FUNCTION take_transaction()
    """,
    # For the relay, which seals the security log and may not read it. Who checks it reads the rows (db/audit.py).
    """
    CREATE VIEW security_log_digests AS
    SELECT id, at, sha256(convert_to(jsonb_build_array(
           id, extract(epoch FROM at)::text, who, what, tenant, key, address, request, details)::text, 'UTF8'))
           AS digest
      FROM security_log
    """,
    "COMMENT ON VIEW security_log_digests IS 'SHA-256 of each row of the security log, which the relay may not read.'",
    """
    CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION '% is append only', TG_TABLE_NAME;
    END $$
    """,
    """
    CREATE TRIGGER audit_append_only BEFORE UPDATE OR TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
    """,
    """
    CREATE TRIGGER audit_kept BEFORE DELETE ON audit
    FOR EACH ROW WHEN (OLD.at > clock_timestamp() - INTERVAL '30 days') EXECUTE FUNCTION refuse_change()
    """,
    """
    CREATE TRIGGER security_log_append_only BEFORE UPDATE OR TRUNCATE ON security_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
    """,
    # What is older may be deleted: an intruder cannot delete the traces of an intrusion.
    """
    CREATE TRIGGER security_log_kept BEFORE DELETE ON security_log
    FOR EACH ROW WHEN (OLD.at > clock_timestamp() - INTERVAL '30 days') EXECUTE FUNCTION refuse_change()
    """,
    """
    CREATE TRIGGER seals_append_only BEFORE DELETE OR TRUNCATE ON seals
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
    """,
    # Where all rows are deleted, being old, what was kept of each may go.
    """
    CREATE TRIGGER seals_kept BEFORE UPDATE ON seals FOR EACH ROW
    WHEN (NEW.digests IS NOT NULL OR OLD.oldest > clock_timestamp() - INTERVAL '30 days'
          OR (OLD.id, OLD.at, OLD.source, OLD.first, OLD.last, OLD.rows, OLD.oldest, OLD.before, OLD.root, OLD.hash)
             IS DISTINCT FROM
             (NEW.id, NEW.at, NEW.source, NEW.first, NEW.last, NEW.rows, NEW.oldest, NEW.before, NEW.root, NEW.hash))
    EXECUTE FUNCTION refuse_change()
    """,
    "INSERT INTO tenants (name) VALUES ('default')",
)
"""Run after the tables were made."""


def create(connection: Connection) -> None:
    """Make the whole schema in an empty database: what the migrations are compared with."""
    for statement in FUNCTIONS_OF_CHECKS:
        connection.execute(text(statement))
    tables.corpora.metadata.create_all(connection)  # it has them all
    for statement in PROGRAMS:
        connection.execute(text(statement))
