//! Text files to token shards to batches, and the built-in demo corpus.
