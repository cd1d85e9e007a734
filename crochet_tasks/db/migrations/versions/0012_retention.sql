-- Made from functions.py; a test compares the two.

DROP TRIGGER audit_append_only ON audit;

CREATE TRIGGER audit_append_only BEFORE UPDATE OR TRUNCATE ON audit
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TRIGGER audit_kept BEFORE DELETE ON audit
FOR EACH ROW WHEN (OLD.at > clock_timestamp() - INTERVAL '30 days') EXECUTE FUNCTION refuse_change();
