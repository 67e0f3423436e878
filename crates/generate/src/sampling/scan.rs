//! The largest logits, found in one pass: the maximum of each block says which blocks need a second look.
//!
//! At least k values reach the k-th largest of the blocks' maxima, so only blocks whose maximum reaches it can hold
//! one of the k largest values.

/// Logits in a block.
const BLOCK: usize = 32;
/// Values compared side by side.
const LANES: usize = 8;

/// The maxima of a row of logits.
#[derive(Debug)]
pub(crate) struct Scan<'a> {
    logits: &'a [f32],
    maxima: Vec<f32>,
    /// The largest logit.
    pub most: f32,
}

impl<'a> Scan<'a> {
    /// Looks at every logit; none if one of them is NaN.
    pub fn new(logits: &'a [f32]) -> Option<Scan<'a>> {
        let (blocks, tail) = logits.as_chunks::<BLOCK>();
        let mut maxima = Vec::with_capacity(blocks.len() + 1);
        let mut nan = [false; LANES];
        maxima.extend(blocks.iter().map(|block| max_of_block(block, &mut nan)));
        if !tail.is_empty() {
            maxima.push(max(tail));
        }
        let nan = nan.contains(&true) || tail.iter().any(|x| x.is_nan());
        (!nan).then(|| Scan { most: max(&maxima), maxima, logits })
    }

    /// The first of the largest logits.
    pub fn argmax(&self) -> u32 {
        let mut first = None;
        self.at_least(self.most, |id, _| {
            first.get_or_insert(id);
        });
        first.unwrap_or(0)
    }

    /// The k-th largest logit; minus infinity if there are no more than k, or k is 0.
    pub fn kth_largest(&self, k: usize) -> f32 {
        if k == 0 || k >= self.logits.len() {
            return f32::NEG_INFINITY;
        }
        let mut maxima = self.maxima.clone();
        let bound = if k <= maxima.len() { select(&mut maxima, k) } else { f32::NEG_INFINITY };
        let mut values = Vec::with_capacity(4 * k);
        self.at_least(bound, |_, x| values.push(x));
        select(&mut values, k)
    }

    /// Visits the logits from `bound` up, by id.
    pub fn at_least(&self, bound: f32, mut visit: impl FnMut(u32, f32)) {
        for ((block, x), _) in
            (0..).zip(self.logits.chunks(BLOCK)).zip(&self.maxima).filter(|(_, most)| **most >= bound)
        {
            for (id, &x) in (block * BLOCK as u32..).zip(x) {
                if x >= bound {
                    visit(id, x);
                }
            }
        }
    }
}

fn max_of_block(block: &[f32; BLOCK], nan: &mut [bool; LANES]) -> f32 {
    let mut most = [f32::NEG_INFINITY; LANES];
    for x in block.as_chunks::<LANES>().0 {
        for i in 0..LANES {
            most[i] = if x[i] > most[i] { x[i] } else { most[i] };
            nan[i] |= x[i].is_nan();
        }
    }
    max(&most)
}

fn max(x: &[f32]) -> f32 {
    x.iter().fold(f32::NEG_INFINITY, |most, &x| if x > most { x } else { most })
}

/// The k-th largest, counted from 1; moves the values about.
fn select(values: &mut [f32], k: usize) -> f32 {
    *values.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(n: usize, values: u64) -> Vec<f32> {
        let random = tensor::random::Stream::new(n as u64, 0, 0);
        (0..n as u64).map(|i| random.below(i, values) as f32 / 8.0 - 3.0).collect()
    }

    #[test]
    fn it_agrees_with_sorting() {
        for n in [1, 2, 31, 32, 33, 64, 65, 1000] {
            for values in [1, 5, 1 << 20] {
                let logits = row(n, values);
                let mut sorted = logits.clone();
                sorted.sort_by(|a, b| b.total_cmp(a));
                let scan = Scan::new(&logits).unwrap();
                assert_eq!(scan.most, sorted[0]);
                assert_eq!(scan.argmax() as usize, tensor::rows::argmax(&logits), "{n} of {values}");
                for k in (1..n).step_by(n / 10 + 1) {
                    assert_eq!(scan.kth_largest(k), sorted[k - 1], "{n} of {values}, the {k}th");
                }
                assert_eq!(scan.kth_largest(n), f32::NEG_INFINITY);
            }
        }
    }

    #[test]
    fn not_a_number_is_seen_wherever_it_is() {
        for n in [1, 31, 32, 33, 70] {
            for at in 0..n {
                let mut logits = row(n, 100);
                logits[at] = f32::NAN;
                assert!(Scan::new(&logits).is_none(), "{at} of {n}");
            }
        }
        assert_eq!(Scan::new(&[]).unwrap().most, f32::NEG_INFINITY);
    }
}
