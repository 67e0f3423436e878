//! Optimisers, schedules, the training loop, resume and logs.
