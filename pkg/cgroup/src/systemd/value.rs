//! Values of systemd's unit properties: D-Bus types, written as GVariant text.
//!
//! The text form is what `org.systemd.property.*` annotations carry (`uint64 10000000`, `'control-group'`,
//! `['a.service']`), and it is how a value appears in a printed plan and in the state file.

use std::fmt;
use std::iter::Peekable;
use std::str::{CharIndices, FromStr};

use serde::{Deserialize, Serialize};

/// A D-Bus value of the types that unit properties have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Value {
    /// `y`
    Byte(u8),
    /// `b`
    Bool(bool),
    /// `i`
    I32(i32),
    /// `u`
    U32(u32),
    /// `x`
    I64(i64),
    /// `t`
    U64(u64),
    /// `s`
    Str(String),
    /// `a` and the signature of its elements.
    Array(String, Vec<Value>),
    /// `(` … `)`
    Struct(Vec<Value>),
}

impl Value {
    /// The type in D-Bus's notation.
    pub fn signature(&self) -> String {
        match self {
            Value::Byte(_) => "y".to_owned(),
            Value::Bool(_) => "b".to_owned(),
            Value::I32(_) => "i".to_owned(),
            Value::U32(_) => "u".to_owned(),
            Value::I64(_) => "x".to_owned(),
            Value::U64(_) => "t".to_owned(),
            Value::Str(_) => "s".to_owned(),
            Value::Array(element, _) => format!("a{element}"),
            Value::Struct(fields) => format!("({})", fields.iter().map(Value::signature).collect::<String>()),
        }
    }

    pub(crate) fn bytes(bytes: &[u8]) -> Value {
        Value::Array("y".to_owned(), bytes.iter().copied().map(Value::Byte).collect())
    }

    pub(crate) fn strings<S: Into<String>>(strings: impl IntoIterator<Item = S>) -> Value {
        Value::Array("s".to_owned(), strings.into_iter().map(|s| Value::Str(s.into())).collect())
    }

    /// A non-negative number of any width.
    pub(crate) fn as_unsigned(&self) -> Option<u64> {
        match *self {
            Value::Byte(n) => Some(n.into()),
            Value::I32(n) => n.try_into().ok(),
            Value::U32(n) => Some(n.into()),
            Value::I64(n) => n.try_into().ok(),
            Value::U64(n) => Some(n),
            _ => None,
        }
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Value::Bool(value)
    }
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Value::U64(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Value::Str(value.to_owned())
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Byte(n) => write!(f, "byte {n}"),
            Value::Bool(b) => write!(f, "{b}"),
            Value::I32(n) => write!(f, "{n}"),
            Value::U32(n) => write!(f, "uint32 {n}"),
            Value::I64(n) => write!(f, "int64 {n}"),
            Value::U64(n) => write!(f, "uint64 {n}"),
            Value::Str(s) => {
                f.write_str("'")?;
                for c in s.chars() {
                    match c {
                        '\'' | '\\' => write!(f, "\\{c}")?,
                        c if c.is_control() => write!(f, "\\u{:04x}", u32::from(c))?,
                        c => write!(f, "{c}")?,
                    }
                }
                f.write_str("'")
            }
            Value::Array(element, items) if items.is_empty() => write!(f, "@a{element} []"),
            Value::Array(_, items) => sequence(f, '[', items, "]"),
            Value::Struct(fields) => sequence(f, '(', fields, if fields.len() == 1 { ",)" } else { ")" }),
        }
    }
}

fn sequence(f: &mut fmt::Formatter<'_>, open: char, items: &[Value], close: &str) -> fmt::Result {
    for (index, item) in items.iter().enumerate() {
        if index == 0 {
            write!(f, "{open}{item}")?;
        } else {
            write!(f, ", {item}")?;
        }
    }
    f.write_str(close)
}

impl From<Value> for String {
    fn from(value: Value) -> String {
        value.to_string()
    }
}

impl TryFrom<String> for Value {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Value {
    type Err = String;

    /// Parses GVariant text. Not taken: floating point, dictionaries, variants, byte strings and object paths, which
    /// no property of a scope or slice needs.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut parser = Parser { text, chars: text.char_indices().peekable(), depth: 0 };
        let value = parser.value(None)?;
        parser.space();
        match parser.chars.next() {
            None => Ok(value),
            Some((at, _)) => Err(format!("unexpected {:?} after the value", &text[at..])),
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    chars: Peekable<CharIndices<'a>>,
    depth: u8,
}

impl<'a> Parser<'a> {
    fn space(&mut self) {
        while self.chars.next_if(|(_, c)| c.is_ascii_whitespace()).is_some() {}
    }

    fn word(&mut self) -> &'a str {
        let start = self.chars.peek().map_or(self.text.len(), |&(at, _)| at);
        while self.chars.next_if(|&(_, c)| c.is_ascii_alphanumeric() || "+-.@_".contains(c)).is_some() {}
        &self.text[start..self.chars.peek().map_or(self.text.len(), |&(at, _)| at)]
    }

    fn value(&mut self, signature: Option<&str>) -> Result<Value, String> {
        // Annotations are hostile input: nesting is bounded, so that it cannot exhaust the stack.
        if self.depth > 8 {
            return Err("nested too deeply".to_owned());
        }
        self.depth += 1;
        self.space();
        let value = match self.chars.peek() {
            None => Err("expected a value, found the end".to_owned()),
            Some(&(_, quote @ ('\'' | '"'))) => self.string(quote),
            Some((_, '[')) => self.array(signature),
            Some((_, '(')) => self.tuple(),
            Some((_, '@')) => self.typed(),
            Some(_) => self.word_value(signature),
        };
        self.depth -= 1;
        value
    }

    fn typed(&mut self) -> Result<Value, String> {
        self.chars.next();
        let start = self.chars.peek().map_or(self.text.len(), |&(at, _)| at);
        while self.chars.next_if(|(_, c)| !c.is_ascii_whitespace()).is_some() {}
        let signature = &self.text[start..self.chars.peek().map_or(self.text.len(), |&(at, _)| at)];
        let value = self.value(Some(signature))?;
        if value.signature() == signature {
            Ok(value)
        } else {
            Err(format!("a value of type {} where {signature:?} was announced", value.signature()))
        }
    }

    fn word_value(&mut self, signature: Option<&str>) -> Result<Value, String> {
        let word = self.word();
        let signature = match word {
            "true" => return Ok(Value::Bool(true)),
            "false" => return Ok(Value::Bool(false)),
            "byte" => "y",
            "boolean" => "b",
            "int32" => "i",
            "uint32" => "u",
            "int64" => "x",
            "uint64" => "t",
            "string" => "s",
            "" => {
                let at = self.chars.peek().map_or(self.text.len(), |&(at, _)| at);
                return Err(format!("expected a value, found {:?}", &self.text[at..]));
            }
            number => return integer(number, signature.unwrap_or("i")),
        };
        let value = self.value(Some(signature))?;
        if value.signature() == signature {
            Ok(value)
        } else {
            Err(format!("a value of type {} after {word:?}", value.signature()))
        }
    }

    fn string(&mut self, quote: char) -> Result<Value, String> {
        self.chars.next();
        let mut string = String::new();
        loop {
            match self.chars.next() {
                None => return Err("a string without its closing quote".to_owned()),
                Some((_, c)) if c == quote => return Ok(Value::Str(string)),
                Some((_, '\\')) => string.push(self.escape()?),
                Some((_, c)) => string.push(c),
            }
        }
    }

    fn escape(&mut self) -> Result<char, String> {
        let (digits, c) = match self.chars.next() {
            Some((_, 'a')) => return Ok('\x07'),
            Some((_, 'b')) => return Ok('\x08'),
            Some((_, 'f')) => return Ok('\x0c'),
            Some((_, 'n')) => return Ok('\n'),
            Some((_, 'r')) => return Ok('\r'),
            Some((_, 't')) => return Ok('\t'),
            Some((_, 'v')) => return Ok('\x0b'),
            Some((_, 'u')) => (4, 'u'),
            Some((_, 'U')) => (8, 'U'),
            Some((_, c)) => return Ok(c),
            None => return Err("a string without its closing quote".to_owned()),
        };
        let mut code = 0u32;
        for _ in 0..digits {
            let digit = self.chars.next().and_then(|(_, c)| c.to_digit(16));
            code = code << 4 | digit.ok_or_else(|| format!("\\{c} wants {digits} hexadecimal digits"))?;
        }
        char::from_u32(code).ok_or_else(|| format!("\\{c}{code:x} is no character"))
    }

    fn items(&mut self, close: char, signature: Option<&str>) -> Result<Vec<Value>, String> {
        self.chars.next();
        let mut items = Vec::new();
        loop {
            self.space();
            if self.chars.next_if(|&(_, c)| c == close).is_some() {
                return Ok(items);
            }
            items.push(self.value(signature)?);
            self.space();
            match self.chars.next() {
                Some((_, ',')) => {}
                Some((_, c)) if c == close => return Ok(items),
                _ => return Err(format!("expected ',' or {close:?} after {:?}", items.last())),
            }
        }
    }

    fn array(&mut self, signature: Option<&str>) -> Result<Value, String> {
        let announced = signature.and_then(|signature| signature.strip_prefix('a'));
        let mut items = self.items(']', announced)?;
        let element = match (announced, items.first()) {
            (Some(element), _) => element.to_owned(),
            (None, Some(first)) => first.signature(),
            (None, None) => {
                return Err("an empty array needs its type before it, as in \"@as []\"".to_owned());
            }
        };
        // `[byte 1, 2]`: the first element's type holds for the numbers after it.
        for item in &mut items {
            if let (Value::I32(n), true) = (&*item, element != "i") {
                *item = integer(&n.to_string(), &element)?;
            }
            if item.signature() != element {
                return Err(format!("an array of {element} holds a value of type {}", item.signature()));
            }
        }
        Ok(Value::Array(element, items))
    }

    fn tuple(&mut self) -> Result<Value, String> {
        self.items(')', None).map(Value::Struct)
    }
}

fn integer(word: &str, signature: &str) -> Result<Value, String> {
    let bad = || format!("{word:?} is no value of type {signature:?}");
    let (negative, digits) = match word.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, word.strip_prefix('+').unwrap_or(word)),
    };
    let (digits, radix) = match digits.strip_prefix("0x") {
        Some(hex) => (hex, 16),
        None => (digits, 10),
    };
    if !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(bad());
    }
    let magnitude = i128::from_str_radix(digits, radix).map_err(|_| bad())?;
    let number = if negative { -magnitude } else { magnitude };
    match signature {
        "y" => number.try_into().map(Value::Byte).ok(),
        "i" => number.try_into().map(Value::I32).ok(),
        "u" => number.try_into().map(Value::U32).ok(),
        "x" => number.try_into().map(Value::I64).ok(),
        "t" => number.try_into().map(Value::U64).ok(),
        _ => None,
    }
    .ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn parse(text: &str) -> Value {
        text.parse().unwrap()
    }

    #[test]
    fn text_becomes_typed_values() {
        assert_eq!(parse("uint64 10000000"), Value::U64(10_000_000));
        assert_eq!(parse(" 15 "), Value::I32(15));
        assert_eq!(parse("-1"), Value::I32(-1));
        assert_eq!(parse("byte 0x1f"), Value::Byte(31));
        assert_eq!(parse("true"), Value::Bool(true));
        assert_eq!(parse("boolean false"), Value::Bool(false));
        assert_eq!(parse(r#""it's""#), Value::Str("it's".into()));
        assert_eq!(parse(r"'a\'b\\c\n\u00e9'"), Value::Str("a'b\\c\né".into()));
        assert_eq!(parse("['a.service', 'b.service']"), Value::strings(["a.service", "b.service"]));
        assert_eq!(parse("@as []"), Value::Array("s".into(), vec![]));
        assert_eq!(parse("[byte 1, 2]"), Value::bytes(&[1, 2]));
        assert_eq!(parse("('/dev/null', 'rwm')"), Value::Struct(vec!["/dev/null".into(), "rwm".into()]));
    }

    #[test]
    fn text_survives_a_round_trip() {
        for text in [
            "uint64 18446744073709551615",
            "int64 -5",
            "byte 7",
            "15",
            "true",
            r"'a\'b\\c'",
            "['a', 'b']",
            "@a(ss) []",
            "[('a', 'b'), ('c', 'd')]",
            "[byte 1, byte 2]",
            "[uint32 4]",
        ] {
            assert_eq!(parse(text).to_string(), text);
        }
    }

    #[test]
    fn malformed_text_is_refused() {
        for (text, message) in [
            ("", "expected a value, found the end"),
            ("'abc", "a string without its closing quote"),
            ("15 16", "unexpected \"16\" after the value"),
            ("4294967296", "\"4294967296\" is no value of type \"i\""),
            ("uint64 -1", "\"-1\" is no value of type \"t\""),
            ("uint64 'x'", "a value of type s after \"uint64\""),
            ("abc", "\"abc\" is no value of type \"i\""),
            ("[]", "an empty array needs its type before it, as in \"@as []\""),
            ("['a', 1]", "\"1\" is no value of type \"s\""),
            ("[1, 'a']", "an array of i holds a value of type s"),
            ("@as [1]", "\"1\" is no value of type \"s\""),
            ("{'a': 1}", "expected a value, found \"{'a': 1}\""),
            ("'\\u12'", "\\u wants 4 hexadecimal digits"),
            ("1.5", "\"1.5\" is no value of type \"i\""),
            ("--5", "\"--5\" is no value of type \"i\""),
            ("byte byte byte byte byte byte byte byte byte byte 1", "nested too deeply"),
        ] {
            assert_eq!(text.parse::<Value>().unwrap_err(), message, "{text}");
        }
        assert_eq!("[".repeat(100_000).parse::<Value>().unwrap_err(), "nested too deeply");
    }
}
