//! Packing: a panel holds `width` rows of a matrix side by side, one step of K after the other.

use super::Mat;

/// Makes room for `len` values without keeping the old ones in order; the caller overwrites them.
pub fn resize(panels: &mut Vec<f32>, len: usize) {
    panels.resize(len, 0.0);
}

/// `panel[k * width + r] = matrix[first + r][k0 + k]`; rows past the matrix's end are zeros.
pub fn rows(panel: &mut [f32], width: usize, matrix: Mat, first: usize, k0: usize, kc: usize) {
    let Mat { data, rows, row_stride, col_stride, .. } = matrix;
    let there = width.min(rows - first);
    if row_stride == 1 {
        // Lanes lie side by side in memory: copy them.
        for (k, lanes) in panel.chunks_exact_mut(width).enumerate() {
            let start = first + (k0 + k) * col_stride;
            lanes[..there].copy_from_slice(&data[start..start + there]);
            lanes[there..].fill(0.0);
        }
    } else if col_stride == 1 {
        transpose(panel, width, there, kc, |r| {
            let start = (first + r) * row_stride + k0;
            &data[start..start + kc]
        });
    } else {
        for (k, lanes) in panel.chunks_exact_mut(width).enumerate() {
            for (r, lane) in lanes.iter_mut().enumerate() {
                *lane = if r < there { data[(first + r) * row_stride + (k0 + k) * col_stride] } else { 0.0 };
            }
        }
    }
}

/// Lanes are rows in memory: goes along K in steps of 8, so that each cache line of a row is read once.
fn transpose<'a>(panel: &mut [f32], width: usize, there: usize, kc: usize, row: impl Fn(usize) -> &'a [f32]) {
    const STEP: usize = 8;
    for r in 0..width {
        if r >= there {
            (0..kc).for_each(|k| panel[k * width + r] = 0.0);
        }
    }
    for r in 0..there {
        let source = row(r);
        let (steps, tail) = source.as_chunks::<STEP>();
        let mut at = r;
        for values in steps {
            let part = &mut panel[at..at + (STEP - 1) * width + 1];
            for (k, &value) in values.iter().enumerate() {
                part[k * width] = value;
            }
            at += STEP * width;
        }
        for &value in tail {
            panel[at] = value;
            at += width;
        }
    }
}
