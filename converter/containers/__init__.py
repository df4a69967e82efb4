"""One file per container: each reads headers alone and says where every tensor lies."""
