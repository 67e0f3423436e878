//! Registers that hold a tile of a matrix (AMX): their shapes, and the instructions on them.
//!
//! There are eight, each of up to 16 rows of up to 64 bytes. One instruction multiplies the tiles of two registers and adds the
//! product to a third. To shape them takes as long as eight products, so they keep their shapes while a [`held`] runs.

use std::cell::Cell;

/// Rows of a register.
pub const SIDE: usize = 16;

/// Instructions on tiles. Each block says that it changes all of them; but the compiler has no use of its own for
/// these registers, so what one block leaves in them is there for the next.
macro_rules! tiles {
    ($($code:expr),+ $(; $name:ident = $value:expr)*) => {
        std::arch::asm!(
            $($code),+ $(, $name = in(reg) $value)*,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack, preserves_flags)
        )
    };
}
pub(crate) use tiles;

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

    /// Gives the registers these shapes. What they hold is lost.
    ///
    /// # Safety
    /// An [`Amx`](crate::isa::Amx) exists.
    #[inline(always)]
    pub unsafe fn set(&self) {
        // SAFETY: the caller's promise; the shapes are checked.
        unsafe {
            tiles!("ldtilecfg [{at}]"; at = self);
        }
    }
}

thread_local! {
    /// What is known of this thread's registers.
    static STATE: Cell<State> = const { Cell::new(State::Free) };
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    /// Nothing: anybody may use them.
    Free,
    /// Only code of ours runs until [`held`] ends, but their shapes are not known.
    Held,
    /// They have the shapes of a key.
    Shaped(usize),
}

/// Runs code between whose products the registers keep their shapes, and gives the registers back.
pub fn held<R>(_: crate::isa::Amx, f: impl FnOnce() -> R) -> R {
    struct Release;
    impl Drop for Release {
        fn drop(&mut self) {
            STATE.set(State::Free);
            // SAFETY: an `Amx` exists, and nobody reads a tile after this.
            unsafe { tiles!("tilerelease") };
        }
    }
    if STATE.get() != State::Free {
        return f();
    }
    STATE.set(State::Held);
    let _release = Release;
    f()
}

/// Gives the registers the shapes that belong to a key, if they do not have them yet. What they hold is lost.
///
/// # Safety
/// An [`Amx`](crate::isa::Amx) exists.
#[inline(always)]
pub unsafe fn shape(key: usize, shapes: impl FnOnce() -> Shapes) {
    let state = STATE.get();
    if state == State::Shaped(key) {
        return;
    }
    // SAFETY: the caller's promise.
    unsafe { shapes().set() };
    if state != State::Free {
        STATE.set(State::Shaped(key));
    }
}
