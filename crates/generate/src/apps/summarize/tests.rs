//! Summaries by small models.
