"""Who may do what: keys, tokens, signatures and tenants."""
