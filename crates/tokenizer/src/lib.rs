//! Text to token ids and back: byte-level BPE, its training, and simpler vocabularies.
