"""The only place with SQL: tables, named statements, transactions."""
