//! Packing: a panel holds `width` rows of a matrix side by side, one step of K after the other.

use super::Mat;

/// Makes room for `len` values without keeping the old ones in order; the caller overwrites them.
pub fn resize(panels: &mut Vec<f32>, len: usize) {
    panels.resize(len, 0.0);
}

/// `panel[k * width + r] = matrix[first + r][k0 + k]`; rows past the matrix's end are zeros.
pub fn rows(panel: &mut [f32], width: usize, matrix: Mat, first: usize, k0: usize, kc: usize) {
    // The widths of the tiles are constants to the loops, so that lanes are moved by whole vectors.
    match width {
        4 => fixed::<4>(panel, matrix, first, k0, kc),
        6 => fixed::<6>(panel, matrix, first, k0, kc),
        8 => fixed::<8>(panel, matrix, first, k0, kc),
        14 => fixed::<14>(panel, matrix, first, k0, kc),
        16 => fixed::<16>(panel, matrix, first, k0, kc),
        32 => fixed::<32>(panel, matrix, first, k0, kc),
        _ => unreachable!("a tile {width} wide"),
    }
}

fn fixed<const WIDTH: usize>(panel: &mut [f32], matrix: Mat, first: usize, k0: usize, kc: usize) {
    let Mat { data, rows, row_stride, col_stride, .. } = matrix;
    let there = WIDTH.min(rows - first);
    let panel = panel.as_chunks_mut::<WIDTH>().0;
    if row_stride == 1 && there == WIDTH {
        // Lanes lie side by side in memory: copy them.
        for (k, lanes) in panel.iter_mut().enumerate() {
            let start = first + (k0 + k) * col_stride;
            *lanes = *data[start..].first_chunk().expect("the matrix has these lanes");
        }
    } else if col_stride == 1 && there == WIDTH {
        let lane: [&[f32]; WIDTH] = std::array::from_fn(|r| &data[(first + r) * row_stride + k0..][..kc]);
        for (k, lanes) in panel.iter_mut().enumerate() {
            *lanes = std::array::from_fn(|r| lane[r][k]);
        }
    } else {
        for (k, lanes) in panel.iter_mut().enumerate() {
            let at = |r: usize| data[(first + r) * row_stride + (k0 + k) * col_stride];
            *lanes = std::array::from_fn(|r| if r < there { at(r) } else { 0.0 });
        }
    }
}
