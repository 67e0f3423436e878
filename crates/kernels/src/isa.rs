//! Which instruction set to compute with: detected, or forced by `GPT2_ISA`.
//!
//! A proof type such as [`Avx2`] can only be made by asking the CPU, so code that holds one may use it. The loops
//! of [`crate::rows`] and [`crate::optim`] are plain Rust, compiled three times by `vectorised`, for AVX-512,
//! AVX2 and any processor: they contain no intrinsics, and the compiler vectorises them as wide as it may.

use std::sync::OnceLock;

use thiserror::Error;

/// Levels of instruction sets; each contains those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// What the compiler may assume everywhere.
    Portable,
    /// 256-bit vectors with fused multiply-add.
    Avx2,
    /// 512-bit vectors.
    Avx512,
    /// 8-bit dot products.
    Avx512Vnni,
    /// bfloat16 dot products.
    Avx512Bf16,
    /// Products of whole tiles, of bfloat16 and of 8-bit numbers.
    Amx,
}

/// A request that this machine cannot meet.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum IsaError {
    /// Not the name of an instruction set.
    #[error(
        "GPT2_ISA={0}: no such instruction set; use portable, avx2, avx512, avx512vnni, avx512bf16 or amx, or unset it"
    )]
    Unknown(String),
    /// Known, but the CPU lacks it.
    #[error("GPT2_ISA={asked}: this CPU does not have it; the best here is {best}")]
    Absent {
        /// What was asked for.
        asked: &'static str,
        /// The best there is.
        best: &'static str,
    },
}

impl Isa {
    /// All levels, lowest first.
    pub const ALL: [Isa; 6] =
        [Isa::Portable, Isa::Avx2, Isa::Avx512, Isa::Avx512Vnni, Isa::Avx512Bf16, Isa::Amx];

    /// The name that `GPT2_ISA` takes.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Avx512Vnni => "avx512vnni",
            Isa::Avx512Bf16 => "avx512bf16",
            Isa::Amx => "amx",
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn present(self) -> bool {
        match self {
            Isa::Portable => true,
            Isa::Avx2 => Avx2::detect().is_some(),
            Isa::Avx512 => Avx512::detect().is_some(),
            Isa::Avx512Vnni => Avx512Vnni::detect().is_some(),
            Isa::Avx512Bf16 => Avx512Vnni::detect().is_some() && Avx512Bf16::detect().is_some(),
            Isa::Amx => Amx::detect().is_some(),
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn present(self) -> bool {
        self == Isa::Portable
    }
}

/// Every level that this CPU has, for tests that force each.
pub fn available() -> Vec<Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.present()).collect()
}

/// [`available`], and says on stderr which levels a test leaves out.
#[cfg(test)]
pub(crate) fn tested() -> Vec<Isa> {
    let there = available();
    for isa in Isa::ALL.into_iter().filter(|isa| !there.contains(isa)) {
        eprintln!("SKIPPED: {} is not tested, since this CPU does not have it", isa.name());
    }
    there
}

/// The level to use: that named by `GPT2_ISA`, else the best. Decided once.
pub fn init() -> Result<Isa, IsaError> {
    static CHOSEN: OnceLock<Result<Isa, IsaError>> = OnceLock::new();
    CHOSEN.get_or_init(|| choose(std::env::var("GPT2_ISA").ok().as_deref())).clone()
}

/// The level to use.
///
/// # Panics
/// If `GPT2_ISA` asks for what is not there; a program calls [`init`] first and reports the error.
pub fn current() -> Isa {
    init().unwrap_or_else(|error| panic!("{error}"))
}

fn choose(asked: Option<&str>) -> Result<Isa, IsaError> {
    let best = available().pop().unwrap_or(Isa::Portable);
    let Some(asked) = asked.filter(|asked| !asked.is_empty()) else { return Ok(best) };
    match Isa::ALL.into_iter().find(|isa| isa.name() == asked) {
        None => Err(IsaError::Unknown(asked.to_owned())),
        Some(isa) if !isa.present() => Err(IsaError::Absent { asked: isa.name(), best: best.name() }),
        Some(isa) => Ok(isa),
    }
}

/// Proof that this CPU has AVX2 and FMA: `detect` is the only way to get one.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

#[cfg(target_arch = "x86_64")]
impl Avx2 {
    /// Asks the CPU.
    pub fn detect() -> Option<Avx2> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Avx2(()))
    }
}

/// Proof that this CPU has the AVX-512 of all server parts since 2017: F, BW, DQ, VL.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
pub struct Avx512(());

#[cfg(target_arch = "x86_64")]
impl Avx512 {
    /// Asks the CPU.
    pub fn detect() -> Option<Avx512> {
        let has = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        (has && Avx2::detect().is_some()).then_some(Avx512(()))
    }
}

/// Proof that this CPU also has dot products of bytes.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
pub struct Avx512Vnni(());

#[cfg(target_arch = "x86_64")]
impl Avx512Vnni {
    /// Asks the CPU.
    pub fn detect() -> Option<Avx512Vnni> {
        (is_x86_feature_detected!("avx512vnni") && Avx512::detect().is_some()).then_some(Avx512Vnni(()))
    }
}

/// Proof that this CPU also multiplies pairs of bfloat16.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
pub struct Avx512Bf16(());

#[cfg(target_arch = "x86_64")]
impl Avx512Bf16 {
    /// Asks the CPU.
    pub fn detect() -> Option<Avx512Bf16> {
        (is_x86_feature_detected!("avx512bf16") && Avx512::detect().is_some()).then_some(Avx512Bf16(()))
    }
}

/// Proof that this CPU also has tiles (AMX, for bfloat16 and for 8-bit numbers), and that the system lets this process use
/// them.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
pub struct Amx(());

#[cfg(target_arch = "x86_64")]
impl Amx {
    /// Asks the CPU, and the system: its threads have no room for tiles until a process asks for it.
    pub fn detect() -> Option<Amx> {
        static THERE: OnceLock<bool> = OnceLock::new();
        let ask = || {
            /// Bits of leaf 7: tiles, their products of bfloat16, and of 8-bit numbers.
            const TILES: u32 = 1 << 24 | 1 << 22 | 1 << 25;
            let has = std::arch::x86_64::__cpuid_count(7, 0).edx & TILES == TILES;
            let below = Avx512Vnni::detect().is_some() && Avx512Bf16::detect().is_some();
            has && below && Amx::permitted()
        };
        THERE.get_or_init(ask).then_some(Amx(()))
    }

    #[cfg(target_os = "linux")]
    fn permitted() -> bool {
        const ARCH_REQ_XCOMP_PERM: libc::c_ulong = 0x1023;
        const XTILEDATA: libc::c_ulong = 18;
        // SAFETY: asks for room in the state that is kept of this process's threads, and touches no memory.
        unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA) == 0 }
    }

    #[cfg(not(target_os = "linux"))]
    fn permitted() -> bool {
        false
    }
}

/// `a * b + c`, rounded once where the level has fused multiply-add.
#[inline(always)]
pub(crate) fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Defines a function whose first argument is the [`Isa`] to run with, from one plain body that is compiled for
/// each level. Inside the body `FMA` says whether [`fma`] may fuse.
macro_rules! vectorised {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name(isa: $crate::isa::Isa, $($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments, clippy::extra_unused_type_parameters)]
            fn body<const FMA: bool>($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            #[allow(clippy::too_many_arguments)]
            fn avx2($($arg: $ty),*) $(-> $ret)? { body::<true>($($arg),*) }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            #[allow(clippy::too_many_arguments)]
            fn avx512($($arg: $ty),*) $(-> $ret)? { body::<true>($($arg),*) }

            #[cfg(target_arch = "x86_64")]
            {
                if isa >= $crate::isa::Isa::Avx512 && $crate::isa::Avx512::detect().is_some() {
                    // SAFETY: `detect` has found these features on this CPU.
                    return unsafe { avx512($($arg),*) };
                }
                if isa >= $crate::isa::Isa::Avx2 && $crate::isa::Avx2::detect().is_some() {
                    // SAFETY: `detect` has found these features on this CPU.
                    return unsafe { avx2($($arg),*) };
                }
            }
            let _ = isa;
            body::<false>($($arg),*)
        }
    };
}
pub(crate) use vectorised;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forcing() {
        assert_eq!(choose(Some("portable")), Ok(Isa::Portable));
        assert_eq!(choose(None).ok(), available().pop());
        assert!(choose(Some("sse9")).unwrap_err().to_string().contains("no such instruction set"));
        for isa in Isa::ALL {
            assert_eq!(choose(Some(isa.name())).is_ok(), available().contains(&isa));
        }
    }
}
