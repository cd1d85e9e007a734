"""The whole pipeline in one process, on a private Postgres server."""
