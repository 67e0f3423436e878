//! Compiling, accepting, refusing.
