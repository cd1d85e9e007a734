"""How texts come in, from files and over the network."""
