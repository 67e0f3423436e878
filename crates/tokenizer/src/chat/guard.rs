//! What operators cost. The engine lets a template run for so many steps, and takes steps for what it makes, too. But lists
//! that are joined or repeated are not made before they are used, and one that refers twice to another is as cheap as if it did
//! once: forty doublings cost forty steps, and then fill the memory, or are counted for years.
//!
//! So a template is given calls of filters that pay: [`LONG`] for the items of what `+` joins and what is sliced, and [`PAY`]
//! for all that lies in a list, tuple or table that the template makes. What they pay for may be used as often as there are
//! steps, since no value is larger than the steps that were left when it was made.
//!
//! This file finds the places. It knows of Jinja where a tag, a string and an operand end; whether the template is right, the
//! engine says.

use std::ops::Range;

/// Pays for the length of a list.
pub(super) const LONG: &str = "__long";
/// Pays for all that lies in a value.
pub(super) const PAY: &str = "__pay";

/// Brackets in brackets, at most; the engine reads fewer.
const DEPTH: usize = 200;
/// Words between operands.
const BETWEEN: [&str; 6] = ["and", "or", "not", "in", "if", "else"];
/// Names of constants.
const CONSTANTS: [&str; 6] = ["true", "True", "false", "False", "none", "None"];

/// The template with calls that pay. Where a tag with an operator that needs them is not understood, `Err` says at which byte
/// it starts.
pub(super) fn with_payments(source: &str) -> Result<String, usize> {
    let mut edits = Vec::new();
    let mut at = 0;
    while let Some(found) = source[at..].find('{') {
        let start = at + found;
        let rest = &source[start..];
        at = match rest.as_bytes().get(1) {
            Some(b'#') => rest.find("#}").map_or(source.len(), |end| start + end + 2),
            Some(b'%') => match end_of_raw(rest) {
                Some(len) => start + len,
                None => tag(source, start, "%}", &mut edits)?,
            },
            Some(b'{') => tag(source, start, "}}", &mut edits)?,
            _ => start + 1,
        };
    }
    edits.sort_by_key(|(at, _)| *at); // stable: what was found first stands first
    let (mut out, mut done) = (String::new(), 0);
    for (at, text) in edits {
        out += &source[done..at];
        out += &text;
        done = at;
    }
    Ok(out + &source[done..])
}

/// Where a raw block ends that a text starts with.
fn end_of_raw(text: &str) -> Option<usize> {
    let word = |text: &str, word: &str| -> Option<usize> {
        let rest = text.trim_start_matches(|c: char| c.is_ascii_whitespace()).strip_prefix(word)?;
        let rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace());
        let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest).strip_prefix("%}")?;
        Some(text.len() - rest.len())
    };
    let opening = text[2..].strip_prefix(['-', '+']).unwrap_or(&text[2..]);
    let start = text.len() - opening.len() + word(opening, "raw")?;
    let end = text[start..].match_indices("{%").find_map(|(at, _)| {
        let inside = &text[start + at + 2..];
        let bare = inside.strip_prefix(['-', '+']).unwrap_or(inside);
        Some(text.len() - bare.len() + word(bare, "endraw")?)
    });
    Some(end.unwrap_or(text.len()))
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Name,
    /// A string or a number.
    Literal,
    Sign,
}

/// A token of a tag.
#[derive(Clone, Debug)]
struct Token {
    kind: Kind,
    at: Range<usize>,
}

type Edits = Vec<(usize, String)>;

/// Reads the tag that starts at this byte: the byte after it.
fn tag(source: &str, start: usize, close: &str, edits: &mut Edits) -> Result<usize, usize> {
    // Without an end it is a mistake, which the engine tells.
    let Some((tokens, end)) = tokens(source, start + 2, close) else { return Ok(source.len()) };
    let costs =
        tokens.iter().any(|token| matches!(&source[token.at.clone()], "+" | "*" | "[" | "{" | "," | "("));
    if !costs {
        return Ok(end);
    }
    let mut reader = Reader { source, tokens: &tokens, at: 0, depth: 0, is_paid: false, edits: Vec::new() };
    match reader.tag(close == "%}") {
        Some(()) => edits.append(&mut reader.edits),
        // Without these no value grows.
        None if !tokens
            .iter()
            .any(|token| matches!(&source[token.at.clone()], "+" | "*" | "[" | "{" | ",")) => {}
        None => return Err(start),
    }
    Ok(end)
}

/// The tokens up to `close`, and where that ends.
fn tokens(source: &str, start: usize, close: &str) -> Option<(Vec<Token>, usize)> {
    let bytes = source.as_bytes();
    let (mut tokens, mut balance, mut at) = (Vec::new(), 0_i64, start);
    if matches!(bytes.get(at), Some(b'-' | b'+')) {
        at += 1;
    }
    loop {
        let rest = &source[at..];
        let first = rest.chars().next()?;
        if balance == 0 {
            let bare = rest.strip_prefix(['-', '+']).unwrap_or(rest);
            if let Some(after) = [rest, bare].iter().find_map(|text| text.strip_prefix(close)) {
                return Some((tokens, source.len() - after.len()));
            }
        }
        let (kind, len) = match first {
            _ if first.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            '\'' | '"' => (Kind::Literal, string(rest.as_bytes())?),
            '0'..='9' => (Kind::Literal, number(rest, start < at && bytes[at - 1] == b'.')),
            _ if first.is_ascii_alphabetic() || first == '_' => (Kind::Name, name(rest)),
            _ => {
                balance += i64::from("([{".contains(first)) - i64::from(")]}".contains(first));
                let pairs = ["//", "**", "==", "!=", ">=", "<="];
                let is_pair = pairs.iter().any(|pair| rest.starts_with(pair));
                (Kind::Sign, if is_pair { 2 } else { first.len_utf8() })
            }
        };
        tokens.push(Token { kind, at: at..at + len });
        at += len;
    }
}

fn name(text: &str) -> usize {
    text.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count()
}

/// The length of a string with its quotes.
fn string(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match *text.get(at)? {
            b'\\' => at += 2,
            byte if byte == text[0] => return Some(at + 1),
            _ => at += 1,
        }
    }
}

/// The length of a number as the engine reads it. After a point it is an index, and has no fraction.
fn number(text: &str, is_index: bool) -> usize {
    let bytes = text.as_bytes();
    let byte = |at: usize| bytes.get(at).copied().unwrap_or(b' ');
    let prefix = bytes.get(..2).unwrap_or_default().to_ascii_lowercase();
    if [b"0x", b"0o", b"0b"].iter().any(|radix| prefix == *radix) {
        let is_digit = |byte: &&u8| {
            byte.is_ascii_digit() || **byte == b'_' || (prefix[1] == b'x' && byte.is_ascii_hexdigit())
        };
        return 2 + bytes[2..].iter().take_while(is_digit).count();
    }
    let (mut at, mut has_point, mut exponent) = (0, false, 0);
    loop {
        let after_sign = exponent > 0 && at == exponent + 1;
        match byte(at) {
            b'0'..=b'9' | b'_' => {}
            b'.' if !has_point && exponent == 0 && !is_index => {
                let is_exponent =
                    matches!(byte(at + 1), b'e' | b'E') && matches!(byte(at + 2), b'+' | b'-' | b'0'..=b'9');
                if !is_exponent && (byte(at + 1).is_ascii_alphabetic() || byte(at + 1) == b'_') {
                    return at;
                }
                has_point = true;
            }
            b'e' | b'E' if exponent == 0 => exponent = at,
            b'+' | b'-' if after_sign => {}
            _ => return at,
        }
        at += 1;
    }
}

/// What an operand is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Operand {
    /// A string or a number, as it stands.
    Constant,
    /// A value with its attributes, calls, filters: one more filter can stand after it.
    Value,
    /// The result of an operator, paid for or no list.
    Result,
}

/// Reads expressions, as far as operands are concerned.
struct Reader<'a> {
    source: &'a str,
    tokens: &'a [Token],
    at: usize,
    depth: usize,
    /// Inside of a list or a table, which is paid for as a whole.
    is_paid: bool,
    edits: Edits,
}

impl<'a> Reader<'a> {
    fn text(&self, at: usize) -> &'a str {
        self.tokens.get(at).map_or("", |token| &self.source[token.at.clone()])
    }

    fn kind(&self) -> Option<Kind> {
        self.tokens.get(self.at).map(|token| token.kind)
    }

    fn is_sign(&self, signs: &[&str]) -> bool {
        self.kind() == Some(Kind::Sign) && signs.contains(&self.text(self.at))
    }

    fn is_name(&self, names: &[&str]) -> bool {
        self.kind() == Some(Kind::Name) && names.contains(&self.text(self.at))
    }

    /// Goes past one of these signs, if it comes.
    fn skip(&mut self, sign: &str) -> bool {
        let is = self.is_sign(&[sign]);
        self.at += usize::from(is);
        is
    }

    /// Where the next token starts, and where the last one ended.
    fn start(&self) -> usize {
        self.tokens.get(self.at).map_or(self.source.len(), |token| token.at.start)
    }

    fn end(&self) -> usize {
        self.tokens[self.at - 1].at.end
    }

    fn insert(&mut self, at: usize, text: String) {
        self.edits.push((at, text));
    }

    /// Puts a filter behind a value, and parentheses around both, so that what follows is done to its result.
    fn enclose(&mut self, start: usize, end: usize, filter: &str) {
        self.insert(start, "(".to_owned());
        self.insert(end, format!("|{filter})"));
    }

    /// The same for the result of an operator.
    fn enclose_result(&mut self, start: usize, end: usize, filter: &str) {
        self.insert(start, "((".to_owned());
        self.insert(end, format!(")|{filter})"));
    }

    /// A whole tag; the first word of a block is its name.
    fn tag(&mut self, is_block: bool) -> Option<()> {
        let statement = if is_block { self.text(0) } else { "" };
        self.at = usize::from(is_block);
        if statement == "for" {
            self.go_to_top("in")?; // what is assigned to is not read
        }
        if statement == "call" && self.is_sign(&["("]) {
            self.go_to_top(")")?; // names of what the block is given
        }
        if statement == "set" && self.go_to_top("=").is_some() {
            let start = self.start();
            if self.items(&[])? {
                let end = self.end();
                self.enclose_result(start, end, PAY);
            }
            return Some(());
        }
        self.at = if statement == "set" { 1 } else { self.at };
        self.items(&[])?;
        Some(())
    }

    /// Goes past this word where it stands in no brackets.
    fn go_to_top(&mut self, word: &str) -> Option<()> {
        let mut balance = 0_i64;
        for at in self.at..self.tokens.len() {
            match self.text(at) {
                "(" | "[" | "{" => balance += 1,
                ")" | "]" | "}" => balance -= 1,
                _ => {}
            }
            if balance == 0 && self.text(at) == word {
                self.at = at + 1;
                return Some(());
            }
        }
        None
    }

    /// Expressions up to one of these signs, or to the end: whether there are several, with commas between.
    fn items(&mut self, close: &[&str]) -> Option<bool> {
        let mut several = false;
        let mut is_first = true;
        while self.at < self.tokens.len() && !self.is_sign(close) {
            let is_splat = is_first && self.is_sign(&["*", "**"]);
            let is_comma = self.is_sign(&[","]);
            several |= is_comma;
            is_first = is_comma;
            let is_sign = self.is_sign(&[":", "=", "==", "!=", "<", ">", "<=", ">="]);
            if is_splat || is_comma || is_sign || self.is_name(&BETWEEN) {
                self.at += 1;
            } else {
                self.sum()?;
            }
        }
        Some(several)
    }

    /// Expressions in brackets, of which the first is here; `is_paid` says whether they are paid for with those around them. Gives
    /// whether there are several, and whether names or operators are among them.
    fn brackets(&mut self, close: &str, is_paid: bool) -> Option<(bool, bool)> {
        self.depth += 1;
        if self.depth > DEPTH {
            return None;
        }
        self.at += 1;
        let from = self.at;
        let outside = std::mem::replace(&mut self.is_paid, is_paid);
        let several = self.items(&[close])?;
        self.is_paid = outside;
        let inside = from..self.at;
        if !self.skip(close) {
            return None;
        }
        self.depth -= 1;
        let is_live = |token: &Token| {
            let text = &self.source[token.at.clone()];
            token.kind == Kind::Name && !CONSTANTS.contains(&text) || ["+", "*", "~"].contains(&text)
        };
        let is_live = self.tokens[inside].iter().any(is_live);
        Some((several, is_live))
    }

    /// `a + b - c`: what is joined is paid for by its length.
    fn sum(&mut self) -> Option<()> {
        let (mut ends, mut joins) = (Vec::new(), false);
        loop {
            let operand = self.concatenation()?;
            if operand == Operand::Value {
                ends.push(self.end());
            }
            joins |= self.is_sign(&["+"]);
            if !self.is_sign(&["+", "-"]) {
                break;
            }
            self.at += 1;
        }
        if joins {
            ends.into_iter().for_each(|end| self.insert(end, format!("|{LONG}")));
        }
        Some(())
    }

    /// `a ~ b`, a string.
    fn concatenation(&mut self) -> Option<Operand> {
        let mut operand = self.product()?;
        while self.skip("~") {
            self.product()?;
            operand = Operand::Result;
        }
        Some(operand)
    }

    /// `a * b / c`: what is repeated is paid for once it is there.
    fn product(&mut self) -> Option<Operand> {
        let start = self.start();
        let (mut operand, mut repeats) = (self.power()?, false);
        while self.is_sign(&["*", "/", "//", "%"]) {
            repeats |= self.is_sign(&["*"]);
            self.at += 1;
            self.power()?;
            operand = Operand::Result;
        }
        if repeats {
            let end = self.end();
            self.enclose_result(start, end, PAY);
        }
        Some(operand)
    }

    fn power(&mut self) -> Option<Operand> {
        let mut operand = self.unary()?;
        while self.skip("**") {
            self.unary()?;
            operand = Operand::Result;
        }
        Some(operand)
    }

    /// A value with signs, filters and tests.
    fn unary(&mut self) -> Option<Operand> {
        let mut operand = self.postfix()?;
        loop {
            if self.skip("|") {
                self.filter_name()?;
                if self.is_sign(&["("]) {
                    self.brackets(")", false)?;
                }
            } else if self.is_name(&["is"]) {
                self.at += 1;
                self.at += usize::from(self.is_name(&["not"]));
                self.filter_name()?;
                let is_operand = match self.kind() {
                    Some(Kind::Sign) => self.is_sign(&["-", "[", "{"]),
                    Some(Kind::Name) => !self.is_name(&["and", "or", "else", "is"]),
                    Some(Kind::Literal) => true,
                    None => false,
                };
                if self.is_sign(&["("]) {
                    self.brackets(")", false)?;
                } else if is_operand {
                    self.postfix()?;
                }
            } else {
                return Some(operand);
            }
            operand = Operand::Value;
        }
    }

    /// The name of a filter or a test, which may have points.
    fn filter_name(&mut self) -> Option<()> {
        loop {
            (self.kind()? == Kind::Name).then_some(())?;
            self.at += 1;
            if !self.skip(".") {
                return Some(());
            }
        }
    }

    /// A value with attributes, items, slices and calls.
    fn postfix(&mut self) -> Option<Operand> {
        let is_negative = self.is_sign(&["-"]);
        while self.skip("-") {}
        let start = self.start();
        let mut operand = match self.kind()? {
            Kind::Literal => {
                let is_string = self.text(self.at).starts_with(['\'', '"']);
                self.at += 1;
                // Strings that stand side by side are one.
                while is_string
                    && self.kind() == Some(Kind::Literal)
                    && self.text(self.at).starts_with(['\'', '"'])
                {
                    self.at += 1;
                }
                Operand::Constant
            }
            Kind::Name => {
                self.at += 1;
                Operand::Value
            }
            Kind::Sign => self.bracketed(start)?,
        };
        loop {
            if self.skip(".") {
                (self.kind()? != Kind::Sign).then_some(())?;
                self.at += 1;
            } else if self.is_sign(&["("]) {
                self.brackets(")", false)?;
            } else if self.is_sign(&["["]) {
                let before = self.end();
                let inside = self.at + 1;
                self.brackets("]", false)?;
                if self.is_slice(inside..self.at - 1) {
                    self.enclose(start, before, LONG);
                }
            } else {
                break;
            }
            operand = Operand::Value;
        }
        Some(if is_negative { Operand::Value } else { operand })
    }

    /// A value in parentheses, a tuple, a list or a table.
    fn bracketed(&mut self, start: usize) -> Option<Operand> {
        let open = self.text(self.at);
        let close = match open {
            "(" => ")",
            "[" => "]",
            "{" => "}",
            _ => return None,
        };
        let is_list = open != "(";
        let (several, is_live) = self.brackets(close, self.is_paid || is_list)?;
        // A tuple before `=` is assigned to.
        if is_live && !self.is_paid && (is_list || several && !self.is_sign(&["="])) {
            let end = self.end();
            self.enclose(start, end, PAY);
        }
        Some(Operand::Value)
    }

    /// Whether a colon stands among these tokens that is not in further brackets.
    fn is_slice(&self, inside: Range<usize>) -> bool {
        let mut balance = 0_i64;
        inside.into_iter().any(|at| {
            let text = self.text(at);
            let is_sign = self.tokens[at].kind == Kind::Sign;
            balance +=
                i64::from(is_sign && "([{".contains(text)) - i64::from(is_sign && ")]}".contains(text));
            is_sign && text == ":" && balance == 0
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paid(template: &str) -> String {
        let text = with_payments(template).unwrap();
        text.replace("__long", "L").replace("__pay", "P")
    }

    #[test]
    fn what_grows_is_paid_for() {
        for (template, want) in [
            ("{{ a + b }}", "{{ a|L + b|L }}"),
            ("{{ a.b[0](c) + 'x' - -d|f(1) + e is g }}", "{{ a.b[0](c)|L + 'x' - -d|f(1)|L + e is g|L }}"),
            ("{{ a - b }}", "{{ a - b }}"),
            ("{{ a * 2 + b }}", "{{ ((a * 2)|P) + b|L }}"),
            ("{{ a / b ~ c }}", "{{ a / b ~ c }}"),
            ("{{ x[1:] + y[:2][0] }}", "{{ (x|L)[1:]|L + (y|L)[:2][0]|L }}"),
            ("{{ x[{'a': 1}['a']] }}", "{{ x[{'a': 1}['a']] }}"),
            ("{% set ns.x = [a, (b), (c, d)] %}", "{% set ns.x = ([a, (b), (c, d)]|P) %}"),
            ("{{ f([[a], g([b])], (c, d)) }}", "{{ f(([[a], g(([b]|P))]|P), ((c, d)|P)) }}"),
            ("{% with (a, b) = (c, d) %}", "{% with (a, b) = ((c, d)|P) %}"),
            ("{% call(a, b) f([c]) %}", "{% call(a, b) f(([c]|P)) %}"),
            ("{% set a = b, c %}", "{% set a = ((b, c)|P) %}"),
            ("{% set a, b = [1, 'x'], {'y': true} %}", "{% set a, b = (([1, 'x'], {'y': true})|P) %}"),
            ("{% set x | f(a + b) %}", "{% set x | f(a|L + b|L) %}"),
            ("{% for a, (b, c) in d + e if f %}", "{% for a, (b, c) in d|L + e|L if f %}"),
            ("{%- if not a in b + c or -d + 1 -%}", "{%- if not a in b|L + c|L or -d|L + 1 -%}"),
            ("{% macro f(x, y=[z]) %}", "{% macro f(x, y=([z]|P)) %}"),
            ("{{ f(*a, **b) ** c }}", "{{ f(*a, **b) ** c }}"),
            ("{{ 1.5e+3 + 0xe+x + y.0.1 + 1.z }}", "{{ 1.5e+3 + 0xe+x|L + y.0.1|L + 1.z|L }}"),
            ("{{ 'a' \"b\" + c if d else e }}", "{{ 'a' \"b\" + c|L if d else e }}"),
        ] {
            assert_eq!(paid(template), want);
        }
    }

    #[test]
    fn text_comments_strings_and_raw_blocks_stay() {
        for template in [
            "a + b { c + d } {",
            "{# a + b {{ c + d }} #}{{ x }}",
            "{% raw %}{{ a + b }}{% endraw %}",
            "{%- raw -%}{{ a + b }}{%+ endraw +%}",
            "{% raw %}{{ a + b }}",
            "{{ 'a + b }} %}' }}{{ \"\\\" + c\" }}",
            "{% if a %}{% endif %}",
            "{{ a[0] }}{{ f('x', y) }}",
            "{{ unclosed + x",
        ] {
            assert_eq!(paid(template), template);
        }
        assert_eq!(paid("{% raw %}{% endraw %}{{ a + b }}"), "{% raw %}{% endraw %}{{ a|L + b|L }}");
    }

    #[test]
    fn what_is_not_understood_is_not_run() {
        for template in ["x{{ a + }}", "x{{ + a }}", "x{{ a + + b }}", "x{{ [a, }}", "x{{ (a + b] }}"] {
            let read = with_payments(template);
            assert!(read == Err(1) || read.as_deref() == Ok(template), "{template}: {read:?}");
        }
        assert!(with_payments(&format!("{{{{ {}a{} + 1 }}}}", "(".repeat(300), ")".repeat(300))).is_err());
    }
}
