//! Registers that hold a tile of a matrix (AMX): their shapes, and the instructions on them.
//!
//! There are eight, each of up to 16 rows of up to 64 bytes. One instruction multiplies the tiles of two registers and adds the
//! product to a third.

/// Rows of a register.
pub const SIDE: usize = 16;

/// The shapes of the registers, as the CPU reads them.
#[repr(C, align(64))]
pub struct Shapes {
    palette: u8,
    start: u8,
    reserved: [u8; 14],
    bytes: [u16; 16],
    rows: [u8; 16],
}

impl Shapes {
    /// Rows and bytes of a row of each register; neither may be zero.
    pub fn new(registers: [(usize, usize); 8]) -> Shapes {
        let mut shapes = Shapes { palette: 1, start: 0, reserved: [0; 14], bytes: [0; 16], rows: [0; 16] };
        for (i, (rows, bytes)) in registers.into_iter().enumerate() {
            assert!((1..=SIDE).contains(&rows) && (1..=64).contains(&bytes), "{rows} rows of {bytes} bytes");
            (shapes.rows[i], shapes.bytes[i]) = (rows as u8, bytes as u16);
        }
        shapes
    }

    /// Gives the registers these shapes, and fills them with zeros.
    ///
    /// # Safety
    /// An [`Amx`](crate::isa::Amx) exists.
    #[inline(always)]
    pub unsafe fn set(&self) {
        // SAFETY: the caller's promise; the shapes are checked, and only this module's users have tiles in registers.
        unsafe {
            std::arch::asm!("ldtilecfg [{}]", in(reg) self, options(nostack, preserves_flags, readonly));
        }
    }
}

/// Instructions on tiles. Each block says that it changes all of them; but the compiler has no use of its own for
/// these registers, so what one block leaves in them is there for the next.
macro_rules! tiles {
    ($($code:literal),+ $(, $name:ident = $value:expr)*) => {
        std::arch::asm!(
            $($code),+ $(, $name = in(reg) $value)*,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack, preserves_flags)
        )
    };
}
pub(crate) use tiles;
