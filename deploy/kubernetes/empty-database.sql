-- Puts an empty database in the place of the one that the program works on, which is kept under another name. By the
-- administrator, in the database `postgres`, while nothing of the program runs (docs/kubernetes.md, Back up and restore).
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'crochet';
ALTER DATABASE crochet RENAME TO crochet_before;
CREATE DATABASE crochet OWNER crochet TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C';
