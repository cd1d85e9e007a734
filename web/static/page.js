// What every page has. Pages work without it; each part looks for the elements it serves.
