//! The stack machine that reads a pickle.

use std::collections::HashMap;

use super::input::{Input, Step};
use super::{Call, Global, MOST_BYTES, MOST_STEPS, Pickle, PickleError, Span, Value};

/// The stack machine.
pub(super) struct Machine<'a> {
    input: Input<'a>,
    stack: Vec<Value>,
    /// Where on the stack the open groups begin.
    marks: Vec<usize>,
    memo: HashMap<u64, Value>,
    /// Elements that were copied from one list into another.
    copied: usize,
    out: Pickle,
}

impl<'a> Machine<'a> {
    /// A machine at the beginning of a pickle, which may be followed by other bytes.
    pub fn new(input: &'a [u8]) -> Machine<'a> {
        let (sequences, dicts, calls) = (Vec::new(), Vec::new(), Vec::new());
        let (bytes, persistent) = (Vec::new(), Vec::new());
        let out = Pickle { root: Value::None, len: 0, persistent, bytes, sequences, dicts, calls };
        let (stack, marks, memo) = (Vec::new(), Vec::new(), HashMap::new());
        Machine { input: Input { bytes: input, at: 0 }, stack, marks, memo, copied: 0, out }
    }

    /// Runs it to its end.
    pub fn run(mut self) -> Step<Pickle> {
        for _ in 0..MOST_STEPS {
            let [opcode] = self.input.array()?;
            if opcode == b'.' {
                self.out.root = self.pop()?;
                self.out.len = self.input.at;
                return Ok(self.out);
            }
            self.step(opcode)?;
        }
        Err(PickleError::TooLong)
    }

    /// The names are `pickletools`'.
    fn step(&mut self, opcode: u8) -> Step {
        match opcode {
            0x80 => drop(self.input.array::<1>()?), // PROTO
            0x95 => drop(self.input.array::<8>()?), // FRAME
            b'(' => self.marks.push(self.stack.len()),
            b'0' => self.pop_or_mark()?,
            b'1' => drop(self.group()?), // POP_MARK
            b'2' => {
                let top = self.top()?; // DUP
                self.stack.push(top);
            }
            b'N' => self.stack.push(Value::None),
            0x88 => self.stack.push(Value::Bool(true)),
            0x89 => self.stack.push(Value::Bool(false)),
            b'I' | b'L' => self.decimal_int()?,
            b'K' => self.int(1)?,
            b'M' => self.int(2)?,
            b'J' => {
                let value = i32::from_le_bytes(self.input.array()?);
                self.stack.push(Value::Int(value.into()));
            }
            0x8a => self.long(1)?,
            0x8b => self.long(4)?,
            b'F' => self.decimal_float()?,
            b'G' => {
                let value = f64::from_be_bytes(self.input.array()?);
                self.stack.push(Value::Float(value));
            }
            b'X' => self.text(4)?,
            0x8c => self.text(1)?,
            0x8d => self.text(8)?,
            b'T' => self.old_text(4)?, // BINSTRING
            b'U' => self.old_text(1)?, // SHORT_BINSTRING
            b'S' | b'V' => self.escaped_text(opcode)?,
            b'B' => self.byte_string(4)?,
            b'C' => self.byte_string(1)?,
            0x8e | 0x96 => self.byte_string(8)?, // BINBYTES8, BYTEARRAY8
            _ => return self.build(opcode),
        }
        Ok(())
    }

    /// Opcodes that make values of others.
    fn build(&mut self, opcode: u8) -> Step {
        match opcode {
            b']' | 0x8f => self.list(Vec::new()), // EMPTY_LIST, EMPTY_SET
            b'l' => {
                let items = self.group()?;
                self.list(items);
            }
            b')' => self.tuple(Vec::new()),
            b't' | 0x91 => {
                let items = self.group()?; // TUPLE, FROZENSET
                self.tuple(items);
            }
            0x85..=0x87 => {
                let mut items = (0..opcode - 0x84).map(|_| self.pop()).collect::<Step<Vec<_>>>()?;
                items.reverse();
                self.tuple(items);
            }
            b'}' => self.dict(Vec::new()),
            b'd' => {
                let entries = self.pairs()?;
                self.dict(entries);
            }
            b'a' => {
                let item = self.pop()?;
                self.extend(vec![item])?;
            }
            b'e' | 0x90 => {
                let items = self.group()?; // APPENDS, ADDITEMS
                self.extend(items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set(vec![(key, value)])?;
            }
            b'u' => {
                let entries = self.pairs()?;
                self.set(entries)?;
            }
            b'p' | b'q' | b'r' | 0x94 => {
                let at = self.memo_index(opcode)?;
                let top = self.top()?;
                self.memo.insert(at, top);
            }
            b'g' | b'h' | b'j' => {
                let at = self.memo_index(opcode)?;
                let value = self.memo.get(&at).copied().ok_or_else(|| self.input.invalid("an unset memo"))?;
                self.stack.push(value);
            }
            _ => return self.call(opcode),
        }
        Ok(())
    }

    /// Opcodes that would execute something in Python.
    fn call(&mut self, opcode: u8) -> Step {
        match opcode {
            b'c' => {
                let (module, name) = (self.input.line()?, self.input.line()?);
                self.global(module, name)
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?); // STACK_GLOBAL
                let both = (self.out.text(module), self.out.text(name));
                let (Some(module), Some(name)) = both else {
                    return Err(self.input.invalid("a nameless global"));
                };
                let (module, name) = (module.to_owned(), name.to_owned());
                self.global(module.as_bytes(), name.as_bytes())
            }
            b'i' => {
                let (module, name) = (self.input.line()?, self.input.line()?); // INST
                let args = self.group()?;
                self.global(module, name)?;
                self.tuple(args);
                self.reduce()
            }
            b'o' => {
                let mut args = self.group()?; // OBJ
                if args.is_empty() {
                    return Err(self.input.invalid("an object without a class"));
                }
                self.stack.push(args.remove(0));
                self.tuple(args);
                self.reduce()
            }
            b'R' | 0x81 => self.reduce(), // REDUCE, NEWOBJ
            0x92 => {
                self.pop()?; // NEWOBJ_EX: what is given by name is of no use
                self.reduce()
            }
            b'b' => {
                let state = self.pop()?;
                if let Value::Call(at) = self.top()? {
                    self.out.calls[at as usize].state = Some(state);
                }
                Ok(())
            }
            b'Q' => {
                let Value::Tuple(at) = self.pop()? else {
                    return Err(self.input.invalid("a storage without a name"));
                };
                self.out.persistent.push(at);
                self.stack.push(Value::Persistent(at));
                Ok(())
            }
            _ => Err(self.input.invalid("an opcode that no checkpoint has")),
        }
    }

    fn global(&mut self, module: &[u8], name: &[u8]) -> Step {
        // A name of any length would make a message of any length.
        let [module, name] = [module, name].map(|name| String::from_utf8_lossy(&name[..name.len().min(100)]));
        let Some(global) = Global::of(&module, &name) else {
            return Err(PickleError::Global(format!("{module}.{name}").escape_debug().to_string()));
        };
        self.stack.push(Value::Global(global));
        Ok(())
    }

    fn reduce(&mut self) -> Step {
        let args = self.pop()?;
        let Value::Global(function) = self.pop()? else {
            return Err(self.input.invalid("a call of no function"));
        };
        let Value::Tuple(at) = args else { return Err(self.input.invalid("a call without arguments")) };
        match function {
            Global::Dict => self.dict_of(at)?,
            _ => {
                self.stack.push(Value::Call(self.out.calls.len() as u32));
                self.out.calls.push(Call { function, args, state: None });
            }
        }
        Ok(())
    }

    /// `OrderedDict([(key, value), …])`. Other arguments are a default, or counts, which no reader asks for.
    fn dict_of(&mut self, args: u32) -> Step {
        let first = self.out.sequences[args as usize].first().copied();
        let given = first.and_then(|pairs| self.out.items(pairs)).unwrap_or_default();
        // Many calls may share one list: what is copied must not outgrow what is read.
        self.copied += given.len();
        if self.copied > self.input.len() {
            return Err(self.input.invalid("more copies of a list than it has bytes"));
        }
        let pair = |&pair: &Value| match self.out.items(pair) {
            Some(&[key, value]) => Ok((key, value)),
            _ => Err(self.input.invalid("a dictionary of something else than pairs")),
        };
        let entries = given.iter().map(pair).collect::<Step<_>>()?;
        self.dict(entries);
        Ok(())
    }
}

/// The stack, and values on it.
impl<'a> Machine<'a> {
    /// Where the innermost open group begins; what lies below is not of this group.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Step<Value> {
        let empty = || self.input.invalid("a step that finds nothing on the stack");
        self.stack[self.floor()..].last().copied().ok_or_else(empty)
    }

    fn pop(&mut self) -> Step<Value> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_or_mark(&mut self) -> Step {
        if self.stack.len() == self.floor() && self.marks.pop().is_some() {
            return Ok(());
        }
        self.pop().map(drop)
    }

    /// The values of the innermost group, which ends.
    fn group(&mut self) -> Step<Vec<Value>> {
        let start =
            self.marks.pop().ok_or_else(|| self.input.invalid("the end of a group that never began"))?;
        Ok(self.stack.split_off(start))
    }

    fn pairs(&mut self) -> Step<Vec<(Value, Value)>> {
        let group = self.group()?;
        let (pairs, rest) = group.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(self.input.invalid("a key without a value"));
        }
        Ok(pairs.iter().map(|&[key, value]| (key, value)).collect())
    }

    fn list(&mut self, items: Vec<Value>) {
        self.stack.push(Value::List(self.out.sequences.len() as u32));
        self.out.sequences.push(items);
    }

    fn tuple(&mut self, items: Vec<Value>) {
        self.stack.push(Value::Tuple(self.out.sequences.len() as u32));
        self.out.sequences.push(items);
    }

    fn dict(&mut self, entries: Vec<(Value, Value)>) {
        self.stack.push(Value::Dict(self.out.dicts.len() as u32));
        self.out.dicts.push(entries);
    }

    fn extend(&mut self, items: Vec<Value>) -> Step {
        let Value::List(at) = self.top()? else { return Err(self.input.invalid("elements of no list")) };
        self.out.sequences[at as usize].extend(items);
        Ok(())
    }

    fn set(&mut self, entries: Vec<(Value, Value)>) -> Step {
        let Value::Dict(at) = self.top()? else { return Err(self.input.invalid("entries of no dictionary")) };
        self.out.dicts[at as usize].extend(entries);
        Ok(())
    }
}

/// What follows an opcode.
impl<'a> Machine<'a> {
    fn decimal_int(&mut self) -> Step {
        let value = match self.input.rest() {
            [b'0', b'0', b'\n', ..] => Value::Bool(false),
            [b'0', b'1', b'\n', ..] => Value::Bool(true),
            _ => Value::Int(0),
        };
        let int = self.input.decimal("L")?;
        self.stack.push(if value == Value::Int(0) { Value::Int(int) } else { value });
        Ok(())
    }

    fn decimal_float(&mut self) -> Step {
        let value = self.input.decimal("")?;
        self.stack.push(Value::Float(value));
        Ok(())
    }

    fn int(&mut self, size: u64) -> Step {
        let value = self.input.number(size)?;
        self.stack.push(Value::Int(value as i64));
        Ok(())
    }

    /// A whole number of any length.
    fn long(&mut self, size: u64) -> Step {
        let bytes = self.input.counted(size)?;
        let value = if bytes.len() > 8 {
            Value::Big(self.span(bytes)?)
        } else {
            let sign = if bytes.last().is_some_and(|byte| byte >> 7 == 1) { 255 } else { 0 };
            let mut number = [sign; 8];
            number[..bytes.len()].copy_from_slice(bytes);
            Value::Int(i64::from_le_bytes(number))
        };
        self.stack.push(value);
        Ok(())
    }

    fn text(&mut self, size: u64) -> Step {
        let bytes = self.input.counted(size)?;
        if std::str::from_utf8(bytes).is_err() {
            return Err(self.input.invalid("a text that is not UTF-8"));
        }
        let span = self.span(bytes)?;
        self.stack.push(Value::Text(span));
        Ok(())
    }

    /// What Python 2 called a string: bytes, which are mostly text.
    fn old_text(&mut self, size: u64) -> Step {
        let bytes = self.input.counted(size)?;
        let span = self.span(bytes)?;
        let is_text = std::str::from_utf8(bytes).is_ok();
        self.stack.push(if is_text { Value::Text(span) } else { Value::Bytes(span) });
        Ok(())
    }

    /// Text of protocol 0, in quotes if it is Python 2's. What needs escapes is in no checkpoint's names.
    fn escaped_text(&mut self, opcode: u8) -> Step {
        let mut line = self.input.line()?;
        if opcode == b'S' {
            let quoted = |quote| line.strip_prefix(quote)?.strip_suffix(quote);
            line = quoted(b"'")
                .or_else(|| quoted(b"\""))
                .ok_or_else(|| self.input.invalid("a text without quotes"))?;
        }
        if line.contains(&b'\\') || !line.is_ascii() {
            return Err(self.input.invalid("a text with escapes"));
        }
        let span = self.span(line)?;
        self.stack.push(Value::Text(span));
        Ok(())
    }

    fn byte_string(&mut self, size: u64) -> Step {
        let bytes = self.input.counted(size)?;
        let span = self.span(bytes)?;
        self.stack.push(Value::Bytes(span));
        Ok(())
    }

    fn memo_index(&mut self, opcode: u8) -> Step<u64> {
        match opcode {
            b'p' | b'g' => self.input.decimal(""),
            b'q' | b'h' => self.input.number(1),
            b'r' | b'j' => self.input.number(4),
            _ => Ok(self.memo.len() as u64), // MEMOIZE
        }
    }

    /// Keeps bytes that were read.
    fn span(&mut self, bytes: &[u8]) -> Step<Span> {
        let start = self.out.bytes.len();
        let end = start + bytes.len();
        if end > MOST_BYTES {
            return Err(PickleError::TooLong);
        }
        self.out.bytes.extend_from_slice(bytes);
        Ok(Span { start: start as u32, end: end as u32 })
    }
}
