//! Inner loops over `f32` slices, with all of the workspace's SIMD, all its `unsafe`, and its thread pool.
//!
//! Each kernel has a plain version in [`mod@reference`], which defines the right answer; tests hold the fast ones to
//! it on every instruction set. Results never depend on the number of threads: a matrix product's element is one
//! chain over ascending K, of multiply-adds or, with AMX and weights in blocks, of sums of 32 products; other sums combine
//! blocks of fixed size in index order.
//! Shapes are the caller's promise and are asserted. Start at [`gemm`], then [`attention`] and [`rows`].

pub mod activation;
#[cfg(target_arch = "x86_64")]
mod amx;
pub mod attention;
pub mod bf16;
pub mod blocks;
pub mod draws;
pub mod gemm;
pub mod isa;
pub mod linear;
pub mod mapped;
pub mod math;
pub mod memory;
pub mod muon;
pub mod optim;
pub mod peak;
pub mod pool;
pub mod random;
pub mod reference;
pub mod rows;
pub mod timing;
