-- Made from access_tables.py; a test holds the two together.

CREATE UNLOGGED TABLE request_counts (
    client TEXT NOT NULL,
    slot BIGINT NOT NULL,
    requests BIGINT NOT NULL,
    CONSTRAINT request_counts_pkey PRIMARY KEY (client, slot)
);

COMMENT ON TABLE request_counts IS 'Requests of clients, for their rate limits, where there is no Redis. Not logged: it may be lost.';

COMMENT ON COLUMN request_counts.client IS 'a key or an address, and its limit';

COMMENT ON COLUMN request_counts.slot IS 'which window of time: Unix time divided by its length';

COMMENT ON COLUMN request_counts.requests IS 'counted or reserved by a process of the API';
