"""How orthos, tables and progress look in a terminal."""
