-- What seals need of a table (0016): each row takes its transaction before its number.
CREATE TRIGGER security_log_numbered BEFORE INSERT ON security_log FOR EACH STATEMENT EXECUTE FUNCTION take_transaction();

CREATE VIEW security_log_digests AS
SELECT id, at, sha256(convert_to(jsonb_build_array(
           id, extract(epoch FROM at)::text, who, what, tenant, key, address, request, details)::text, 'UTF8')) AS digest
  FROM security_log;

COMMENT ON VIEW security_log_digests IS 'SHA-256 of each row of the security log, which the relay may not read.';
