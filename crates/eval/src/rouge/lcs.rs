//! Longest common subsequences, 64 columns at once (Hyyrö, 2004), in memory that grows with the texts and not with their
//! product.
//!
//! Let `t[i][j]` be the length for the first i units of `a` and the first j of `b`. A row of the table never falls and rises by at most
//! 1 a column, so that it is kept as bits: bit j - 1 is set where it rises at j. With `m` the bits of the columns that hold unit i of
//! `a`, and `v` the complement of row i - 1, row i is the complement of `(v + (v & m)) | (v & !m)`.

use std::collections::HashMap;

/// The length of a longest common subsequence.
pub fn length(a: &[u32], b: &[u32]) -> usize {
    let mut step = Step::new(b);
    let mut row = step.first_row();
    a.iter().for_each(|&unit| step.next(&mut row, unit));
    row.iter().map(|word| word.count_ones() as usize).sum()
}

/// Positions in `a` of one longest common subsequence, descending: read from the end of the table, up where that costs nothing, or else
/// to the left; the one that `rouge-score` takes.
///
/// Of the table every √n-th row is kept, and the rows below are computed again when they are read.
pub fn positions(a: &[u32], b: &[u32]) -> Vec<usize> {
    let mut step = Step::new(b);
    let stride = a.len().isqrt().max(1);
    let mut kept = Vec::new();
    let mut row = step.first_row();
    for (i, &unit) in a.iter().enumerate() {
        if i % stride == 0 {
            kept.push(row.clone());
        }
        step.next(&mut row, unit);
    }
    let mut found = Vec::new();
    let mut j = b.len();
    for (block, first) in kept.into_iter().enumerate().rev() {
        // Rows above each of these units, and below the last.
        let start = block * stride;
        let units = &a[start..a.len().min(start + stride)];
        let mut rows = vec![first];
        for &unit in units {
            let mut row = rows[rows.len() - 1].clone();
            step.next(&mut row, unit);
            rows.push(row);
        }
        let mut i = units.len();
        while i > 0 && j > 0 {
            if units[i - 1] == b[j - 1] {
                found.push(start + i - 1);
                (i, j) = (i - 1, j - 1);
            } else if !rises(&rows[i], j) && up_to(&rows[i - 1], j) < up_to(&rows[i], j) {
                j -= 1;
            } else {
                i -= 1;
            }
        }
    }
    found
}

/// Whether a row rises at column j, from 1.
fn rises(row: &[u64], j: usize) -> bool {
    row[(j - 1) / 64] >> ((j - 1) % 64) & 1 == 1
}

/// The value of a row at column j.
fn up_to(row: &[u64], j: usize) -> u32 {
    let whole: u32 = row[..j / 64].iter().map(|word| word.count_ones()).sum();
    whole + if j.is_multiple_of(64) { 0 } else { (row[j / 64] & ((1 << (j % 64)) - 1)).count_ones() }
}

/// What leads from a row of the table to the next.
struct Step {
    /// Columns that hold each unit.
    columns: HashMap<u32, Vec<usize>>,
    /// Bits of the columns that hold the unit at hand.
    holds: Vec<u64>,
    width: usize,
}

impl Step {
    fn new(b: &[u32]) -> Step {
        let mut columns: HashMap<u32, Vec<usize>> = HashMap::new();
        b.iter().enumerate().for_each(|(j, &unit)| columns.entry(unit).or_default().push(j));
        Step { columns, holds: vec![0; b.len().div_ceil(64)], width: b.len() }
    }

    fn first_row(&self) -> Vec<u64> {
        vec![0; self.holds.len()]
    }

    fn next(&mut self, row: &mut [u64], unit: u32) {
        let Some(columns) = self.columns.get(&unit) else { return };
        columns.iter().for_each(|&j| self.holds[j / 64] |= 1 << (j % 64));
        let mut carry = false;
        for (row, holds) in row.iter_mut().zip(&self.holds) {
            let v = !*row;
            let (sum, first) = v.overflowing_add(v & holds);
            let (sum, second) = sum.overflowing_add(carry.into());
            carry = first || second;
            *row = !(sum | (v & !holds));
        }
        if !self.width.is_multiple_of(64)
            && let Some(last) = row.last_mut()
        {
            *last &= (1 << (self.width % 64)) - 1;
        }
        columns.iter().for_each(|&j| self.holds[j / 64] = 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table as the textbook has it.
    fn table(a: &[u32], b: &[u32]) -> Vec<Vec<usize>> {
        let mut t = vec![vec![0; b.len() + 1]; a.len() + 1];
        for i in 1..=a.len() {
            for j in 1..=b.len() {
                t[i][j] =
                    if a[i - 1] == b[j - 1] { t[i - 1][j - 1] + 1 } else { t[i - 1][j].max(t[i][j - 1]) };
            }
        }
        t
    }

    fn read_back(t: &[Vec<usize>], a: &[u32], b: &[u32]) -> Vec<usize> {
        let (mut i, mut j, mut found) = (a.len(), b.len(), Vec::new());
        while i > 0 && j > 0 {
            if a[i - 1] == b[j - 1] {
                found.push(i - 1);
                (i, j) = (i - 1, j - 1);
            } else if t[i][j - 1] > t[i - 1][j] {
                j -= 1;
            } else {
                i -= 1;
            }
        }
        found
    }

    /// Numbers below n that look random.
    fn numbers(len: usize, n: u64, seed: u64) -> Vec<u32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((state >> 33) % n) as u32
        };
        (0..len).map(|_| next()).collect()
    }

    #[test]
    fn the_textbooks_table_gives_the_same() {
        for (n, m) in [(0, 0), (0, 5), (5, 0), (1, 1), (7, 64), (64, 65), (63, 128), (129, 40), (200, 200)] {
            for kinds in [1, 2, 5, 60] {
                let (a, b) = (numbers(n, kinds, 7 + n as u64), numbers(m, kinds, 99 + m as u64));
                let t = table(&a, &b);
                assert_eq!(length(&a, &b), t[n][m], "{n} {m} {kinds}");
                assert_eq!(positions(&a, &b), read_back(&t, &a, &b), "{n} {m} {kinds}");
            }
        }
    }

    #[test]
    fn long_texts_need_little_memory() {
        // A table would need 3.2 GB even with a byte for each length.
        let (a, b) = (numbers(40_000, 900, 1), numbers(80_000, 900, 2));
        let n = length(&a, &b);
        assert!((1..=40_000).contains(&n));
        assert_eq!(positions(&a[..4000], &b[..4000]).len(), length(&a[..4000], &b[..4000]));
    }
}
