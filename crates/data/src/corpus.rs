//! The built-in stories.
