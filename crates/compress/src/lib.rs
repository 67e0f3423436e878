//! Models in fewer bits, and what that costs.
//!
//! Start at [`quantise`], which brings a model into another type, and [`compare`], which measures what that changes.
//! [`with_outliers`] makes the hard case: the same function with a few channels much larger than the others.
#![forbid(unsafe_code)]

mod compare;
mod outliers;
mod quantise;

pub use compare::{Comparison, Side, compare};
pub use outliers::with_outliers;
pub use quantise::quantise;
