//! Python's pickles, as far as checkpoints need them: data is read, and nothing is ever executed.
//!
//! A pickle is a program for a small stack machine, and in Python it may call anything. Here the functions and classes
//! that it names must be on the list in [`Global::of`]; they only become labels in the values that are returned.
//! Opcodes are those of protocols 0 to 5 (CPython's `pickletools` describes each). Values refer to each other by
//! number, so that pickles may be deep, shared or cyclic without harm. A step adds at most one value, and copies at
//! most the bytes that it reads; the number of steps is limited.

mod input;
mod machine;

use thiserror::Error;

use self::machine::Machine;

/// Steps of a pickle: a thousand tensors with an optimiser's moments take a tenth.
const MOST_STEPS: usize = 1 << 20;
/// Bytes of a pickle's texts: names and settings take thousands.
const MOST_BYTES: usize = 1 << 26;

/// Why a pickle is not read.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum PickleError {
    #[error("it asks for Python's `{0}`")]
    Global(String),
    #[error("its pickle ends in the middle")]
    Truncated,
    #[error("its pickle has more than {MOST_STEPS} steps, or {MOST_BYTES} bytes of text")]
    TooLong,
    #[error("its pickle has {what} at byte {offset}")]
    Invalid { what: &'static str, offset: usize },
}

/// Functions and classes that a checkpoint may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    /// A dictionary, whatever else it can do.
    Dict,
    /// `torch._utils._rebuild_tensor_v2(storage, offset, size, stride, …)`.
    Tensor,
    /// `torch._utils._rebuild_parameter(tensor, …)`.
    Parameter,
    /// `torch.Size(tuple)`.
    Size,
    /// The class of a storage, which says the type of its numbers.
    Storage(Scalar),
    /// `numpy.core.multiarray.scalar(dtype, bytes)`.
    NumpyScalar,
    /// `numpy.dtype(name, …)`.
    NumpyDtype,
    /// `_codecs.encode(text, "latin1")`: how old protocols write bytes.
    Encode,
    /// What settings and optimisers carry along, and no weight needs.
    Other,
}

/// The type of a storage's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scalar {
    F64,
    F32,
    F16,
    Bf16,
    I64,
    I32,
    I16,
    I8,
    U8,
    Bool,
}

impl Scalar {
    /// Bytes of a number.
    pub fn size(self) -> usize {
        match self {
            Scalar::F64 | Scalar::I64 => 8,
            Scalar::F32 | Scalar::I32 => 4,
            Scalar::F16 | Scalar::Bf16 | Scalar::I16 => 2,
            Scalar::I8 | Scalar::U8 | Scalar::Bool => 1,
        }
    }
}

impl Global {
    /// The whole list of what may be named.
    fn of(module: &str, name: &str) -> Option<Global> {
        Some(match (module, name) {
            ("collections", "OrderedDict" | "defaultdict" | "Counter") => Global::Dict,
            ("builtins" | "__builtin__", "dict") => Global::Dict,
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Global::Tensor,
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Global::Parameter,
            ("torch", "Size") => Global::Size,
            ("torch", "DoubleStorage") => Global::Storage(Scalar::F64),
            ("torch", "FloatStorage") => Global::Storage(Scalar::F32),
            ("torch", "HalfStorage") => Global::Storage(Scalar::F16),
            ("torch", "BFloat16Storage") => Global::Storage(Scalar::Bf16),
            ("torch", "LongStorage") => Global::Storage(Scalar::I64),
            ("torch", "IntStorage") => Global::Storage(Scalar::I32),
            ("torch", "ShortStorage") => Global::Storage(Scalar::I16),
            ("torch", "CharStorage") => Global::Storage(Scalar::I8),
            ("torch", "ByteStorage") => Global::Storage(Scalar::U8),
            ("torch", "BoolStorage") => Global::Storage(Scalar::Bool),
            ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => Global::NumpyScalar,
            ("numpy", "dtype") => Global::NumpyDtype,
            ("_codecs", "encode") => Global::Encode,
            ("torch", "device" | "float64" | "float32" | "float16" | "bfloat16") => Global::Other,
            ("torch", "int64" | "int32" | "int16" | "int8" | "uint8" | "bool") => Global::Other,
            ("builtins" | "__builtin__", "set" | "list" | "int" | "float") => Global::Other,
            ("argparse", "Namespace") => Global::Other,
            _ => return None,
        })
    }
}

/// A range of [`Pickle::bytes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    start: u32,
    end: u32,
}

/// A value; what is longer than a number lies in the [`Pickle`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// A whole number of more than 64 bits, as bytes.
    Big(Span),
    Float(f64),
    Text(Span),
    Bytes(Span),
    Global(Global),
    /// A list or a set.
    List(u32),
    Tuple(u32),
    Dict(u32),
    /// The tuple that names something outside of the pickle.
    Persistent(u32),
    Call(u32),
}

/// A function's or a class's name with what it was called with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub function: Global,
    pub args: Value,
    /// What `__setstate__` would have got.
    pub state: Option<Value>,
}

/// A pickle's values, and the one that was pickled.
#[derive(Debug)]
pub(super) struct Pickle {
    pub root: Value,
    /// Bytes that the pickle takes of what was read.
    pub len: usize,
    /// Each [`Value::Persistent`].
    pub persistent: Vec<u32>,
    bytes: Vec<u8>,
    sequences: Vec<Vec<Value>>,
    dicts: Vec<Vec<(Value, Value)>>,
    calls: Vec<Call>,
}

impl Pickle {
    /// Reads the pickle that `input` begins with.
    pub fn read(input: &[u8]) -> Result<Pickle, PickleError> {
        Machine::new(input).run()
    }

    /// A text.
    pub fn text(&self, value: Value) -> Option<&str> {
        match value {
            Value::Text(span) => std::str::from_utf8(self.span(span)).ok(),
            _ => None,
        }
    }

    /// The elements of a list or a tuple.
    pub fn items(&self, value: Value) -> Option<&[Value]> {
        match value {
            Value::List(at) | Value::Tuple(at) | Value::Persistent(at) => Some(&self.sequences[at as usize]),
            _ => None,
        }
    }

    /// The entries of a dictionary in the order in which they were set; of equal keys, the last one counts.
    pub fn dict(&self, value: Value) -> Option<&[(Value, Value)]> {
        match value {
            Value::Dict(at) => Some(&self.dicts[at as usize]),
            _ => None,
        }
    }

    /// The value of a text in a dictionary.
    pub fn find(&self, dict: Value, key: &str) -> Option<Value> {
        let mut entries = self.dict(dict)?.iter().rev();
        entries.find(|entry| self.text(entry.0) == Some(key)).map(|entry| entry.1)
    }

    /// What a call was called with.
    pub fn call(&self, value: Value) -> Option<(Global, &[Value])> {
        let Value::Call(at) = value else { return None };
        let call = &self.calls[at as usize];
        Some((call.function, self.items(call.args)?))
    }

    /// A whole number of Python or of numpy.
    pub fn int(&self, value: Value) -> Option<i64> {
        match value {
            Value::Int(int) => Some(int),
            Value::Call(_) => self.numpy_int(value),
            _ => None,
        }
    }

    /// The bytes of a [`Value::Big`] in ascending order.
    pub fn big(&self, value: Value) -> Option<&[u8]> {
        match value {
            Value::Big(span) => Some(self.span(span)),
            _ => None,
        }
    }

    /// `scalar(dtype("i8"), b"…")`, or with the bytes as `encode("…", "latin1")`.
    fn numpy_int(&self, value: Value) -> Option<i64> {
        let (Global::NumpyScalar, &[dtype, bytes]) = self.call(value)? else { return None };
        let (Global::NumpyDtype, [name, ..]) = self.call(dtype)? else { return None };
        let Value::Call(at) = dtype else { return None };
        let order = self.calls[at as usize].state.and_then(|state| self.items(state)?.get(1).copied());
        let mut bytes = match bytes {
            Value::Bytes(span) if span.end - span.start <= 8 => self.span(span).to_vec(),
            _ => {
                let (Global::Encode, [text, ..]) = self.call(bytes)? else { return None };
                let text = self.text(*text).filter(|text| text.len() <= 16)?;
                text.chars().map(|c| u8::try_from(c).ok()).collect::<Option<_>>()?
            }
        };
        if order.and_then(|order| self.text(order)) == Some(">") {
            bytes.reverse();
        }
        match self.text(*name)? {
            "i8" => Some(i64::from_le_bytes(bytes.try_into().ok()?)),
            "i4" => Some(i32::from_le_bytes(bytes.try_into().ok()?).into()),
            _ => None,
        }
    }

    fn span(&self, span: Span) -> &[u8] {
        &self.bytes[span.start as usize..span.end as usize]
    }
}
