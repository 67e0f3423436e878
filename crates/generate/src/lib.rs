//! Sampling and decoding.
