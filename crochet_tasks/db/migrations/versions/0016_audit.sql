ALTER TABLE audit ADD COLUMN corpus integer, ADD COLUMN tenant integer, ADD COLUMN by jsonb;

COMMENT ON TABLE audit IS 'Every change of state of texts and work, every change of corpora, keys and tenants, append only.';
COMMENT ON COLUMN audit.corpus IS 'of texts, work and corpora; it may be deleted';
COMMENT ON COLUMN audit.tenant IS 'of corpora, keys and tenants';
COMMENT ON COLUMN audit.by IS 'key or user, address, request; none: the pipeline itself';

CREATE FUNCTION audit_by() RETURNS jsonb
LANGUAGE sql STABLE
RETURN coalesce(
    nullif(current_setting('crochet.by', true), '')::jsonb,
    CASE WHEN current_setting('application_name') <> 'crochet' THEN jsonb_strip_nulls(jsonb_build_object(
        'via', 'sql', 'program', current_setting('application_name'), 'address', host(inet_client_addr())
    )) END
);

-- Not with the column: old rows would get this transaction's.
ALTER TABLE audit ALTER COLUMN by SET DEFAULT audit_by();

CREATE TABLE seals (
    id bigint GENERATED ALWAYS AS IDENTITY NOT NULL,
    at timestamptz DEFAULT clock_timestamp() NOT NULL,
    source text NOT NULL,
    first bigint NOT NULL,
    last bigint NOT NULL,
    rows integer NOT NULL,
    oldest timestamptz NOT NULL,
    before bytea NOT NULL,
    root bytea NOT NULL,
    digests bytea,
    hash bytea NOT NULL,
    CONSTRAINT seals_pkey PRIMARY KEY (id),
    CONSTRAINT seals_source_first_key UNIQUE (source, first)
);

COMMENT ON TABLE seals IS 'What shows that rows of the audit were changed: a chain of hashes, append only.';
COMMENT ON COLUMN seals.source IS 'the table whose rows it seals';
COMMENT ON COLUMN seals.first IS 'id from which it seals rows: each follows on another';
COMMENT ON COLUMN seals.oldest IS 'when its oldest row was written';
COMMENT ON COLUMN seals.before IS 'hash of the seal before it, empty of the first one';
COMMENT ON COLUMN seals.root IS 'SHA-256 of digests';
COMMENT ON COLUMN seals.digests IS 'SHA-256 of each row; none: its rows are deleted, being old';
COMMENT ON COLUMN seals.hash IS 'SHA-256 of before, root and the rest';

CREATE OR REPLACE FUNCTION audit_text() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit (corpus, what, subject, before, after)
    VALUES (NEW.corpus, 'text.' || NEW.state, 'text ' || NEW.id,
            CASE WHEN TG_OP = 'UPDATE' THEN jsonb_build_object('state', OLD.state, 'version', OLD.version) END,
            jsonb_build_object('state', NEW.state, 'version', NEW.version, 'error', NEW.error));
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION audit_work_written() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit (corpus, what, subject, after)
    SELECT corpus, 'work.' || state, 'work ' || id, jsonb_build_object('state', state, 'kind', kind, 'subject', subject)
      FROM written;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION audit_work_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit (corpus, what, subject, before, after)
    SELECT now.corpus, 'work.' || CASE WHEN now.state <> was.state THEN now.state ELSE 'postponed' END, 'work ' || now.id,
           jsonb_build_object('state', was.state, 'attempts', was.attempts),
           jsonb_build_object('state', now.state, 'attempts', now.attempts, 'error', now.error)
      FROM after AS now JOIN before AS was ON was.id = now.id
     WHERE now.state <> was.state OR now.attempts > was.attempts;
    RETURN NULL;
END $$;

CREATE FUNCTION audit_corpus() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    was jsonb := CASE WHEN TG_OP <> 'INSERT' THEN jsonb_build_object('name', OLD.name, 'description',
        OLD.description, 'budget', OLD.budget, 'paused_at', OLD.paused_at, 'removed_at', OLD.removed_at) END;
    now jsonb := CASE WHEN TG_OP <> 'DELETE' THEN jsonb_build_object('name', NEW.name, 'description',
        NEW.description, 'budget', NEW.budget, 'paused_at', NEW.paused_at, 'removed_at', NEW.removed_at) END;
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
END $$;

CREATE TRIGGER corpora_audit AFTER INSERT OR DELETE OR UPDATE OF name, description, budget, paused_at, removed_at
ON corpora FOR EACH ROW EXECUTE FUNCTION audit_corpus();

CREATE FUNCTION audit_key() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    was jsonb := CASE WHEN TG_OP <> 'INSERT' THEN jsonb_build_object('name', OLD.name, 'scopes', OLD.scopes,
        'tier', OLD.tier, 'expires_at', OLD.expires_at, 'revoked_at', OLD.revoked_at, 'rotated_at', OLD.rotated_at)
        END;
    now jsonb := CASE WHEN TG_OP <> 'DELETE' THEN jsonb_build_object('name', NEW.name, 'scopes', NEW.scopes,
        'tier', NEW.tier, 'expires_at', NEW.expires_at, 'revoked_at', NEW.revoked_at, 'rotated_at', NEW.rotated_at)
        END;
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
END $$;

CREATE TRIGGER keys_audit AFTER INSERT OR DELETE OR UPDATE OF name, scopes, tier, expires_at, revoked_at, rotated_at
ON keys FOR EACH ROW EXECUTE FUNCTION audit_key();

CREATE FUNCTION audit_tenant() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit (tenant, what, subject, before, after)
    VALUES (coalesce(NEW.id, OLD.id),
            CASE TG_OP WHEN 'INSERT' THEN 'tenant.created' WHEN 'DELETE' THEN 'tenant.deleted'
                 ELSE 'tenant.changed' END,
            'tenant ' || coalesce(NEW.id, OLD.id), to_jsonb(OLD), to_jsonb(NEW));
    RETURN NULL;
END $$;

CREATE TRIGGER tenants_audit AFTER INSERT OR DELETE OR UPDATE ON tenants
FOR EACH ROW EXECUTE FUNCTION audit_tenant();

CREATE FUNCTION take_transaction() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_current_xact_id();
    RETURN NULL;
END $$;

CREATE TRIGGER audit_numbered BEFORE INSERT ON audit FOR EACH STATEMENT EXECUTE FUNCTION take_transaction();

CREATE TRIGGER seals_append_only BEFORE DELETE OR TRUNCATE ON seals
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TRIGGER seals_kept BEFORE UPDATE ON seals FOR EACH ROW
WHEN (NEW.digests IS NOT NULL OR OLD.oldest > clock_timestamp() - INTERVAL '30 days'
      OR (OLD.id, OLD.at, OLD.source, OLD.first, OLD.last, OLD.rows, OLD.oldest, OLD.before, OLD.root, OLD.hash)
         IS DISTINCT FROM
         (NEW.id, NEW.at, NEW.source, NEW.first, NEW.last, NEW.rows, NEW.oldest, NEW.before, NEW.root, NEW.hash))
EXECUTE FUNCTION refuse_change();

CREATE FUNCTION delete_ingested(number integer) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    DELETE FROM phrases WHERE corpus = number AND born > (SELECT version FROM corpora WHERE id = number);
    DELETE FROM words WHERE corpus = number AND born > (SELECT version FROM corpora WHERE id = number);
END $$;
