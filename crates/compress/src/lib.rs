//! Models in fewer bits, and what that costs.
//!
//! Start at [`quantise`], which brings a model into another type, by a text's measure if there is one ([`Calibration`]), and [`compare`], which measures what that changes.
//! [`with_outliers`] makes the hard case: the same function with a few channels much larger than the others.
#![forbid(unsafe_code)]

mod calibration;
mod compare;
mod feedback;
mod outliers;
mod quantise;

pub use calibration::Calibration;
pub use compare::{Comparison, Side, compare};
pub use outliers::with_outliers;
pub use quantise::quantise;
