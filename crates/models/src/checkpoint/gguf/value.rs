//! A value of the metadata, as it lies in the file.

use std::fmt;

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Text,
    Array,
    U64,
    I64,
    F64,
}

/// A value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// A whole number, of any type that there is for them.
    Whole(i128),
    Float(f64),
    Bool(bool),
    Text(&'a str),
    Array(Array<'a>),
}

/// An array, whose length and texts have been checked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Array<'a> {
    pub kind: Kind,
    pub len: usize,
    pub bytes: &'a [u8],
}

impl Kind {
    /// All, by the number that stands for them in files.
    const ALL: [Kind; 13] = [
        Kind::U8,
        Kind::I8,
        Kind::U16,
        Kind::I16,
        Kind::U32,
        Kind::I32,
        Kind::F32,
        Kind::Bool,
        Kind::Text,
        Kind::Array,
        Kind::U64,
        Kind::I64,
        Kind::F64,
    ];

    pub fn from_number(number: u32) -> Option<Kind> {
        Kind::ALL.get(number as usize).copied()
    }

    pub fn number(self) -> u32 {
        self as u32
    }

    /// Bytes of a value, where all have the same number of them.
    pub fn size(self) -> Option<usize> {
        match self {
            Kind::U8 | Kind::I8 | Kind::Bool => Some(1),
            Kind::U16 | Kind::I16 => Some(2),
            Kind::U32 | Kind::I32 | Kind::F32 => Some(4),
            Kind::U64 | Kind::I64 | Kind::F64 => Some(8),
            Kind::Text | Kind::Array => None,
        }
    }
}

impl<'a> Value<'a> {
    /// A value from its bytes, which must be as many as it has, and UTF-8 in a text; `None` for a `bool` that is none.
    pub fn read(kind: Kind, bytes: &'a [u8]) -> Option<Value<'a>> {
        /// The number that these bytes are.
        fn of<const N: usize, T>(bytes: &[u8], read: impl FnOnce([u8; N]) -> T) -> T {
            read(bytes.try_into().expect("as many as the type has"))
        }
        Some(match kind {
            Kind::U8 => Value::Whole(of(bytes, u8::from_le_bytes).into()),
            Kind::I8 => Value::Whole(of(bytes, i8::from_le_bytes).into()),
            Kind::U16 => Value::Whole(of(bytes, u16::from_le_bytes).into()),
            Kind::I16 => Value::Whole(of(bytes, i16::from_le_bytes).into()),
            Kind::U32 => Value::Whole(of(bytes, u32::from_le_bytes).into()),
            Kind::I32 => Value::Whole(of(bytes, i32::from_le_bytes).into()),
            Kind::U64 => Value::Whole(of(bytes, u64::from_le_bytes).into()),
            Kind::I64 => Value::Whole(of(bytes, i64::from_le_bytes).into()),
            Kind::F32 => Value::Float(of(bytes, f32::from_le_bytes).into()),
            Kind::F64 => Value::Float(of(bytes, f64::from_le_bytes)),
            Kind::Bool => Value::Bool(match bytes[0] {
                0 => false,
                1 => true,
                _ => return None,
            }),
            Kind::Text => Value::Text(std::str::from_utf8(&bytes[8..]).ok()?),
            Kind::Array => return None,
        })
    }

    /// A whole number that may count something.
    pub fn whole(&self) -> Option<usize> {
        match self {
            Value::Whole(n) => usize::try_from(*n).ok(),
            _ => None,
        }
    }

    pub fn text(&self) -> Option<&'a str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl<'a> Array<'a> {
    /// The texts of an array of them.
    pub fn texts(self) -> Option<impl Iterator<Item = &'a str>> {
        let mut rest = self.bytes;
        let next = move || {
            let (len, after) = rest.split_first_chunk::<8>()?;
            let (text, after) = after.split_at_checked(usize::try_from(u64::from_le_bytes(*len)).ok()?)?;
            rest = after;
            std::str::from_utf8(text).ok()
        };
        (self.kind == Kind::Text).then(|| std::iter::from_fn(next))
    }

    /// The numbers of an array of whole ones.
    pub fn wholes(self) -> Option<impl Iterator<Item = i128>> {
        let is_whole = !matches!(self.kind, Kind::F32 | Kind::F64 | Kind::Bool | Kind::Text | Kind::Array);
        let size = self.kind.size().filter(|_| is_whole)?;
        Some(self.bytes.chunks_exact(size).map(move |bytes| match Value::read(self.kind, bytes) {
            Some(Value::Whole(n)) => n,
            _ => unreachable!("a number of a whole type"),
        }))
    }
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Value::Whole(n) => n.fmt(f),
            Value::Float(x) => x.fmt(f),
            Value::Bool(b) => b.fmt(f),
            Value::Text(text) => write!(f, "{text:?}"),
            Value::Array(array) => write!(f, "an array of {}", array.len),
        }
    }
}
