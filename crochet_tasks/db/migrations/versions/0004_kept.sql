CREATE INDEX work_ended_idx ON work (corpus, state, finished_at DESC) WHERE state IN ('done', 'cancelled');

CREATE INDEX sessions_expires_at_idx ON sessions (expires_at);

DROP TRIGGER security_log_append_only ON security_log;

CREATE TRIGGER security_log_append_only BEFORE UPDATE OR TRUNCATE ON security_log
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TRIGGER security_log_kept BEFORE DELETE ON security_log
FOR EACH ROW WHEN (OLD.at > clock_timestamp() - INTERVAL '30 days') EXECUTE FUNCTION refuse_change();
