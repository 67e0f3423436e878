//! Shares out, between a norm and the matrix that reads it, how large each channel is.
//!
//! A channel that is much larger than its neighbours spoils their blocks: they share its scale. What a norm gives out may
//! be divided by any `s`, channel by channel, if the rows of the next matrix are multiplied by it. With x the size of a
//! channel and w that of its row, rounding costs least at `s = √(x / w)`, for the weights as for the activations: both
//! then have the size `√(x w)` (Xiao et al., 2022, at α = ½). The size of a channel is known without any text: a norm's
//! rows have mean 0 and variance 1 before they are scaled and shifted, so that `x² = weight² + bias²`. Each s is rounded to
//! a power of two, so that the function is the same, bit for bit, in `f32`.

/// For a norm's `weight` and `bias` (C) and a matrix (C, N): what to divide each channel by.
pub(crate) fn factors(weight: &[f32], bias: &[f32], matrix: &[f32]) -> Vec<f32> {
    let n = matrix.len() / weight.len().max(1);
    let channels = weight.iter().zip(bias).zip(matrix.chunks_exact(n.max(1)));
    let log = |((&w, &b), row): ((&f32, &f32), &[f32])| {
        let square = |x: f32| f64::from(x) * f64::from(x);
        let row = row.iter().map(|&x| square(x)).sum::<f64>() / n as f64;
        ((square(w) + square(b)) / row).log2() / 4.0 // of √(x / w), where both are squared
    };
    let logs: Vec<f64> = channels.map(log).collect();
    let usable = || logs.iter().filter(|log| log.is_finite());
    let mean = usable().sum::<f64>() / usable().count().max(1) as f64;
    let power = |log: &f64| if log.is_finite() { (log - mean).round().clamp(-30.0, 30.0) } else { 0.0 };
    logs.iter().map(|log| 2f32.powi(power(log) as i32)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_channels_are_found_whatever_hides_them() {
        assert_eq!(factors(&[1.0, 64.0, 1.0], &[0.0; 3], &[2.0, 2.0, 2.0, -2.0, 2.0, 2.0])[1], 4.0);
        let plain = factors(&[1.0; 4], &[0.0; 4], &[1.0; 4]);
        assert_eq!(plain, [1.0; 4]);
        let hidden = factors(&[16.0, 1.0, 1.0, 1.0], &[0.0; 4], &[1.0 / 16.0, 1.0, 1.0, 1.0]);
        assert_eq!(hidden[0] / hidden[1], 16.0);
    }

    #[test]
    fn what_is_no_size_is_left_alone() {
        assert_eq!(factors(&[0.0, 1.0, 1.0], &[0.0; 3], &[1.0, 0.0, f32::NAN]), [1.0; 3]);
    }
}
