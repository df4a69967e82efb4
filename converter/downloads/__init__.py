"""Files named by an address instead of a path: fetched once into the cache folder."""
