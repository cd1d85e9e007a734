# In place of debian: what Debian's packages made, with servers that nobody asks for here.
FROM crochet-stand-in/servers
