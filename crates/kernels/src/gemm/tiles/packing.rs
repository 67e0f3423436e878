//! A tile that packs its columns of B on the way, for the tiles below it: what is loaded to be multiplied is stored, too, while the
//! multiplications go on. Packed before, B would be loaded once more, and nothing would be multiplied meanwhile.

use super::{A, Ahead, B, C};

/// Writes the function `$name` for one vector type: all columns of a panel, `$vectors` vectors, and heights of a list.
macro_rules! packing_tile {
    (
        $name:ident, $features:literal, lanes $lanes:literal, vectors $vectors:literal, rows [$($rows:literal)*],
        $load:ident, $store:ident, $zero:ident, $splat:ident, $fma:ident
    ) => {
        /// A tile of `rows` rows, which lie side by side, and a panel's columns of B, which are stored to `panel`. Asks for
        /// `LINES` lines of `ahead` at each step.
        ///
        /// # Safety
        /// The CPU has the features. `a` can be read for `rows` and `depth`, its rows side by side, and `b` for `depth` and the
        /// panel's columns; `panel` can be written for as many. `c` can be written for `rows` and these columns, and read too
        /// if `from_c`, and no one else uses these values.
        pub unsafe fn $name<const LINES: usize>(
            rows: usize,
            c: C,
            a: A,
            b: B,
            panel: *mut f32,
            depth: usize,
            ahead: Ahead,
        ) {
            use std::arch::x86_64::*;

            /// # Safety
            /// As above, with `R` rows.
            #[target_feature(enable = $features)]
            unsafe fn kernel<const R: usize, const LINES: usize>(
                c: C,
                a: A,
                b: B,
                panel: *mut f32,
                depth: usize,
                ahead: Ahead,
            ) {
                let mut acc = [[$zero(); $vectors]; R];
                if c.from_c {
                    for i in 0..R {
                        for v in 0..$vectors {
                            // SAFETY: row i of C has these vectors.
                            acc[i][v] = unsafe { $load(c.at.add(i * c.row + v * $lanes)) };
                        }
                    }
                }
                let (mut a_at, mut b_at, mut panel) = (a.at, b.at, panel);
                for step in 0..depth {
                    ahead.ask::<LINES>(step);
                    // SAFETY: B has these vectors at each of `depth` steps.
                    let values: [_; $vectors] = std::array::from_fn(|v| unsafe { $load(b_at.add(v * $lanes)) });
                    for v in 0..$vectors {
                        // SAFETY: the panel has as many.
                        unsafe { $store(panel.add(v * $lanes), values[v]) };
                    }
                    for i in 0..R {
                        // SAFETY: A has `R` rows at each of `depth` steps.
                        let a = $splat(unsafe { a_at.add(i).read() });
                        for v in 0..$vectors {
                            acc[i][v] = $fma(a, values[v], acc[i][v]);
                        }
                    }
                    // Wrapping, since after the last step these point past the end.
                    (a_at, b_at) = (a_at.wrapping_add(a.step), b_at.wrapping_add(b.step));
                    panel = panel.wrapping_add($vectors * $lanes);
                }
                for i in 0..R {
                    for v in 0..$vectors {
                        // SAFETY: row i of C has these vectors, which are ours.
                        unsafe { $store(c.at.add(i * c.row + v * $lanes), acc[i][v]) };
                    }
                }
            }

            // SAFETY: the caller's promise.
            unsafe {
                match rows {
                    $($rows => kernel::<$rows, LINES>(c, a, b, panel, depth, ahead),)*
                    _ => unreachable!("a tile of {rows} rows"),
                }
            }
        }
    };
}

packing_tile!(
    avx2, "avx2,fma", lanes 8, vectors 2, rows [1 2 3 4 5 6],
    _mm256_loadu_ps, _mm256_storeu_ps, _mm256_setzero_ps, _mm256_set1_ps, _mm256_fmadd_ps
);
packing_tile!(
    avx512, "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma", lanes 16, vectors 4, rows [1 2 3 4 5 6],
    _mm512_loadu_ps, _mm512_storeu_ps, _mm512_setzero_ps, _mm512_set1_ps, _mm512_fmadd_ps
);
