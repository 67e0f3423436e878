//! Loss, perplexity, bits per byte and accuracy, each with its standard error.
