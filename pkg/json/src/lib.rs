//! Reads JSON of the kind that engines write, in a third of serde_json's instructions, and says no to all else.
//!
//! A container's start waits for its config to be read: 18 kB as dockerd writes it, most of them names of system calls and blanks.
//! serde_json looks at each byte on its own and keeps what it needs for an error's place. What is here looks at eight bytes at once,
//! and has one error, which says nothing: whoever gets it asks serde_json, which then reads the text, or says where it is wrong. So
//! all that must hold is that what is taken here is what serde_json would have taken. Numbers with a fraction or an exponent, and
//! characters beyond the basic plane written as escapes, are left to it.

pub mod base64;
mod end;
mod names;

use serde::de::value::{BorrowedStrDeserializer, SeqDeserializer};
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// How deep objects and arrays may lie in each other; serde_json goes down to 127.
const DEEPEST: u8 = 100;

/// The value that `text` holds, with names of properties as Go reads them: in any case, and more than once.
///
/// # Errors
/// serde_json's: `text` is no JSON, or holds something else.
pub fn from_str<T: de::DeserializeOwned>(text: &str) -> serde_json::Result<T> {
    if let Some(value) = read(text) {
        return Ok(value);
    }
    match names::read(text, false) {
        // The place of what else is wrong then is lost.
        Err(error) if error.to_string().starts_with("duplicate field") => {
            names::read(text, true).map_err(|_| error)
        }
        other => other,
    }
}

/// The value that `text` holds; none if it is wrong, or of a kind that is left to serde_json, as a property's name in another case is.
pub fn read<'de, T: de::Deserialize<'de>>(text: &'de str) -> Option<T> {
    read_with(text, None)
}

/// The name of a newtype struct around an object that [`read_leaving`] may leave unread: its visitor gets a sequence of two numbers then,
/// the places in the text where the object begins and where it ends.
pub const LEFT: &str = "cofferdam_json::LEFT";

/// As [`read`], but the objects in a [`LEFT`] are only gone past. Where their braces are in order, all else in them may be wrong: whoever
/// reads them later has to say so. One is read all the same if one of its strings ends with `wanted`, or has an escape and could.
pub fn read_leaving<'de, T: de::Deserialize<'de>>(text: &'de str, wanted: &'static str) -> Option<T> {
    read_with(text, Some(wanted))
}

fn read_with<'de, T: de::Deserialize<'de>>(text: &'de str, wanted: Option<&'static str>) -> Option<T> {
    let mut input = Quick { text, rest: text.as_bytes(), depth: 0, key: "", fields: &[], wanted };
    let value = T::deserialize(&mut input).ok()?;
    input.peek().is_none().then_some(value)
}

struct Quick<'de> {
    text: &'de str,
    /// What is not read yet.
    rest: &'de [u8],
    depth: u8,
    /// The name of the property that was read last,
    key: &'de str,
    /// and what its object may hold; nothing if it is a map.
    fields: &'static [&'static str],
    /// Which strings keep an object from being left unread; none where none is left.
    wanted: Option<&'static str>,
}

/// What is read here is not this. The words of an error are serde_json's to find.
#[derive(Debug)]
struct No;

impl fmt::Display for No {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("is not read quickly")
    }
}

impl std::error::Error for No {}

impl de::Error for No {
    fn custom<T: fmt::Display>(_: T) -> No {
        No
    }

    fn invalid_type(_: de::Unexpected<'_>, _: &dyn de::Expected) -> No {
        No
    }

    fn invalid_value(_: de::Unexpected<'_>, _: &dyn de::Expected) -> No {
        No
    }
}

/// One in each byte.
const ONES: u64 = u64::MAX / 255;
const BLANKS: u64 = ONES * b' ' as u64;

/// The highest bit of each byte that is zero; above the first one, perhaps, of others as well.
fn zeroes(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & (ONES << 7)
}

impl<'de> Quick<'de> {
    #[inline]
    fn byte(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// The next byte that is no white space, which stays where it is.
    #[inline]
    fn peek(&mut self) -> Option<u8> {
        match self.rest {
            [..=b' ', ..] => self.peek_behind_blanks(),
            rest => rest.first().copied(),
        }
    }

    #[inline(never)]
    fn peek_behind_blanks(&mut self) -> Option<u8> {
        let mut rest = self.rest;
        loop {
            match rest {
                [b'\n', behind @ ..] => {
                    rest = behind;
                    // What comes now is indentation.
                    while let Some(word) = rest.first_chunk() {
                        let blanks = (u64::from_le_bytes(*word) ^ BLANKS).trailing_zeros() as usize / 8;
                        rest = &rest[blanks..];
                        if blanks < 8 {
                            break;
                        }
                    }
                }
                [b' ' | b'\t' | b'\r', behind @ ..] => rest = behind,
                _ => break,
            }
        }
        self.rest = rest;
        self.byte()
    }

    /// Goes behind `wanted`, which must be what comes next.
    #[inline]
    fn expect(&mut self, wanted: u8) -> Result<(), No> {
        self.peek();
        match self.rest {
            [next, rest @ ..] if *next == wanted => {
                self.rest = rest;
                Ok(())
            }
            _ => Err(No),
        }
    }

    fn word_is(&mut self, wanted: &str) -> Result<(), No> {
        self.rest = self.rest.strip_prefix(wanted.as_bytes()).ok_or(No)?;
        Ok(())
    }

    /// Goes to the first byte of a string's text that is not itself: a quote, a backslash or a control character. What is before it is
    /// what comes back.
    #[inline]
    fn skip_plain(&mut self) -> Result<&'de str, No> {
        let begin = self.text.len() - self.rest.len();
        let mut rest = self.rest;
        while let Some((word, behind)) = rest.split_first_chunk() {
            let word = u64::from_le_bytes(*word);
            let odd = zeroes(word ^ (ONES * u64::from(b'"')))
                | zeroes(word ^ (ONES * u64::from(b'\\')))
                | zeroes(word & (ONES * 0xe0));
            if odd != 0 {
                rest = &rest[odd.trailing_zeros() as usize / 8..];
                break;
            }
            rest = behind;
        }
        while let [byte, behind @ ..] = rest
            && !matches!(byte, b'"' | b'\\' | ..=0x1f)
        {
            rest = behind;
        }
        self.rest = rest;
        self.text.get(begin..self.text.len() - rest.len()).ok_or(No)
    }

    /// A string as it stands in the text, and whether that is all of it: else it goes on with an escape.
    fn plain(&mut self) -> Result<(&'de str, bool), No> {
        self.expect(b'"')?;
        let plain = self.skip_plain()?;
        match self.rest {
            [b'"', rest @ ..] => {
                self.rest = rest;
                Ok((plain, true))
            }
            [b'\\', ..] => Ok((plain, false)),
            _ => Err(No),
        }
    }

    /// The rest of a string that begins with `plain` and goes on with an escape.
    #[cold]
    fn escaped(&mut self, plain: &str) -> Result<String, No> {
        let mut string = plain.to_owned();
        loop {
            match self.rest {
                [b'"', rest @ ..] => {
                    self.rest = rest;
                    return Ok(string);
                }
                [b'\\', letter, rest @ ..] => {
                    self.rest = rest;
                    string.push(self.escape(*letter)?);
                }
                _ => return Err(No),
            }
            string.push_str(self.skip_plain()?);
        }
    }

    /// What a backslash and `letter` stand for.
    fn escape(&mut self, letter: u8) -> Result<char, No> {
        Ok(match letter {
            b'"' | b'\\' | b'/' => char::from(letter),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let (digits, rest) = self.rest.split_first_chunk::<4>().ok_or(No)?;
                self.rest = rest;
                let mut code = 0;
                for digit in digits {
                    code = code << 4 | char::from(*digit).to_digit(16).ok_or(No)?;
                }
                // Halves of a pair are no characters.
                char::from_u32(code).ok_or(No)?
            }
            _ => return Err(No),
        })
    }

    /// A string for a visitor, without a copy where it has no escapes.
    fn string<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, No> {
        match self.plain()? {
            (plain, true) => visitor.visit_borrowed_str(plain),
            (plain, false) => visitor.visit_string(self.escaped(plain)?),
        }
    }

    /// A whole number: its magnitude, and whether it is below zero.
    fn number(&mut self) -> Result<(u64, bool), No> {
        let (negative, digits) = match self.rest {
            [b'-', rest @ ..] => (true, rest),
            rest => (false, rest),
        };
        let mut rest = digits;
        let mut value = 0_u64;
        while let [digit @ b'0'..=b'9', behind @ ..] = rest {
            let digit = u64::from(digit - b'0');
            value = value.checked_mul(10).and_then(|value| value.checked_add(digit)).ok_or(No)?;
            rest = behind;
        }
        let (length, next) = (digits.len() - rest.len(), rest.first());
        self.rest = rest;
        match digits {
            _ if length == 0 || matches!(next, Some(b'.' | b'e' | b'E')) => Err(No),
            [b'0', ..] if negative || length > 1 => Err(No),
            _ => Ok((value, negative)),
        }
    }

    fn visit_number<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, No> {
        match self.number()? {
            (value, false) => visitor.visit_u64(value),
            (value, true) => visitor.visit_i64(0_i64.checked_sub_unsigned(value).ok_or(No)?),
        }
    }

    /// Goes behind an opening bracket.
    fn open(&mut self, bracket: u8) -> Result<(), No> {
        self.expect(bracket)?;
        self.depth += 1;
        if self.depth > DEEPEST { Err(No) } else { Ok(()) }
    }

    /// Goes behind a closing bracket, which must be what comes next.
    fn close(&mut self, bracket: u8) -> Result<(), No> {
        self.depth -= 1;
        self.expect(bracket)
    }

    /// Goes past an object and says where it stands, or stays in front of what has to be read.
    fn leave(&mut self, wanted: &str) -> Option<[usize; 2]> {
        if self.peek() != Some(b'{') {
            return None;
        }
        let begin = self.text.len() - self.rest.len();
        let length = end::of_object(self.rest, wanted)?;
        self.rest = &self.rest[length..];
        Some([begin, begin + length])
    }

    /// Whether there is one more in a list that ends with `close`; goes behind the comma.
    #[inline]
    fn more(&mut self, first: &mut bool, close: u8) -> Result<bool, No> {
        let next = self.peek().ok_or(No)?;
        match self.rest {
            _ if next == close => Ok(false),
            _ if std::mem::take(first) => Ok(true),
            // A bracket that comes now is neither a key nor a value.
            [b',', rest @ ..] => {
                self.rest = rest;
                Ok(true)
            }
            _ => Err(No),
        }
    }
}

/// The items of an array, the keys and values of an object.
struct Items<'a, 'de> {
    input: &'a mut Quick<'de>,
    first: bool,
    /// What an object may hold; nothing if it is a map.
    fields: &'static [&'static str],
}

impl<'de> SeqAccess<'de> for Items<'_, 'de> {
    type Error = No;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, No> {
        if self.input.more(&mut self.first, b']')? {
            seed.deserialize(&mut *self.input).map(Some)
        } else {
            Ok(None)
        }
    }
}

impl<'de> MapAccess<'de> for Items<'_, 'de> {
    type Error = No;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, No> {
        if !self.input.more(&mut self.first, b'}')? {
            return Ok(None);
        }
        // A key that is to be a number is a string all the same, and is refused with it.
        if self.input.peek() != Some(b'"') {
            return Err(No);
        }
        seed.deserialize(&mut *self.input).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, No> {
        self.input.expect(b':')?;
        self.input.fields = self.fields;
        seed.deserialize(&mut *self.input)
    }
}

/// These differ in what serde_json says about another kind of value, and here nothing is said.
macro_rules! any {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, No> {
            self.deserialize_any(visitor)
        })*
    };
}

macro_rules! numbers {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, No> {
            self.peek();
            self.visit_number(visitor)
        })*
    };
}

impl<'de> Deserializer<'de> for &mut Quick<'de> {
    type Error = No;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, No> {
        match self.peek().ok_or(No)? {
            b'"' => self.string(visitor),
            b'{' => self.deserialize_map(visitor),
            b'[' => self.deserialize_seq(visitor),
            b't' => self.word_is("true").and_then(|()| visitor.visit_bool(true)),
            b'f' => self.word_is("false").and_then(|()| visitor.visit_bool(false)),
            b'n' => self.word_is("null").and_then(|()| visitor.visit_unit()),
            _ => self.visit_number(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, No> {
        if self.peek() == Some(b'n') {
            self.word_is("null")?;
            return visitor.visit_none();
        }
        visitor.visit_some(self)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, No> {
        self.deserialize_struct("", &[], visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, No> {
        self.open(b'{')?;
        let value = visitor.visit_map(Items { input: self, first: true, fields })?;
        self.close(b'}')?;
        Ok(value)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, No> {
        self.open(b'[')?;
        let value = visitor.visit_seq(Items { input: self, first: true, fields: &[] })?;
        self.close(b']')?;
        Ok(value)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, No> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, No> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, No> {
        if let Some(wanted) = self.wanted.filter(|_| name == LEFT)
            && let Some(places) = self.leave(wanted)
        {
            return visitor.visit_seq(SeqDeserializer::new(places.into_iter()));
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, No> {
        match self.plain()? {
            (name, true) => visitor.visit_enum(BorrowedStrDeserializer::new(name)),
            _ => Err(No),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, No> {
        self.string(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, No> {
        self.string(visitor)
    }

    /// The name of a struct's property.
    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, No> {
        match self.plain()? {
            (name, true) => {
                self.key = name;
                visitor.visit_borrowed_str(name)
            }
            _ => Err(No),
        }
    }

    /// What a struct has no field for is asked for like this.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, No> {
        match names::meant(self.key, self.fields) {
            None => self.deserialize_any(visitor),
            Some(_) => Err(No),
        }
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, No> {
        self.string(visitor)
    }

    /// serde_json reads bytes from a string or an array.
    fn deserialize_bytes<V: Visitor<'de>>(self, _: V) -> Result<V::Value, No> {
        Err(No)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, _: V) -> Result<V::Value, No> {
        Err(No)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, No> {
        self.deserialize_any(visitor)
    }

    any! { deserialize_bool deserialize_unit }

    numbers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
        deserialize_f32 deserialize_f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::collections::BTreeMap;

    fn value(text: &str) -> Option<Value> {
        read(text)
    }

    #[test]
    fn what_is_taken_is_what_serde_json_takes() {
        for text in [
            "null",
            " true ",
            "false\n",
            "0",
            "-1",
            "18446744073709551615",
            "-9223372036854775808",
            "[]",
            "{}",
            "[1,2 , 3]",
            "{\"a\":{\"b\":[{}]},\n        \"c\" :\t\"d\"}",
            "\"\"",
            "\"12345678\"",
            "\"1234567\\\"8\\\\ \\/\\b\\f\\n\\r\\t\"",
            "\"\\u003c\\u00e9\\u20ac é€𝄞\"",
            "\"a long string with an é in it, and 𝄞 at its end 𝄞\"",
        ] {
            assert_eq!(value(text).unwrap(), serde_json::from_str::<Value>(text).unwrap(), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_not_taken() {
        for text in [
            "",
            " ",
            "nul",
            "nulll",
            "tru",
            "01",
            "-",
            "-01",
            "+1",
            ".5",
            "1.",
            "[1,]",
            "[,1]",
            "[1 2]",
            "[",
            "]",
            "{",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{,}",
            "{a:1}",
            "{1:1}",
            "[1}",
            "{\"a\":1]",
            "\"",
            "\"a",
            "\"\\\"",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\u12g4\"",
            "\"\\ud834\"",
            "\"\u{1}\"",
            "\"a tab\tin it\"",
            "1 1",
            "\u{a0}1",
            "\"12345678",
            "18446744073709551616",
            "-9223372036854775809",
        ] {
            assert_eq!(value(text), None, "{text}");
            let theirs = serde_json::from_str::<Value>(text);
            assert!(theirs.is_err() || theirs.unwrap().is_f64(), "{text}");
        }
    }

    #[test]
    fn what_is_left_to_serde_json_is_not_taken() {
        for text in ["1.5", "1e3", "-0", "\"\\ud834\\udd1e\""] {
            assert!(value(text).is_none() && serde_json::from_str::<Value>(text).is_ok(), "{text}");
        }
        let deep = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(value(&deep(100)).is_some() && value(&deep(101)).is_none());
    }

    #[test]
    fn typed_values_are_read_as_serde_json_reads_them() {
        type Typed = BTreeMap<String, Option<(u8, i64, Vec<String>, bool)>>;
        for text in [
            r#"{"a": [255, -3, ["x", "y\n"], true], "b": null, "c\u0041": [0, 3, [], false]}"#,
            r#"{"a": [256, -3, [], true]}"#,
            r#"{"a": [-1, -3, [], true]}"#,
            r#"{"a": ["1", -3, [], true]}"#,
            r#"{"a": [1, -3, [], true, 1]}"#,
            r#"{"a": [1, -3, []]}"#,
            r#"{"a": [1, -3, [], 1]}"#,
            r#"{"a": [1, -3, [null], true]}"#,
            r#"{"a": {}}"#,
        ] {
            assert_eq!(read::<Typed>(text), serde_json::from_str::<Typed>(text).ok(), "{text}");
        }
    }
    #[derive(Debug, Default, PartialEq, serde::Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Limits {
        page_size: String,
        limit: Option<u64>,
        unified: BTreeMap<String, String>,
        inner: Vec<Limits>,
    }

    /// An object that may be left, by its text.
    #[derive(Debug, PartialEq)]
    enum Part {
        Read(Value),
        Left(usize, usize),
    }

    impl<'de> de::Deserialize<'de> for Part {
        fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Part, D::Error> {
            struct Either;

            impl<'de> Visitor<'de> for Either {
                type Value = Part;

                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("a part")
                }

                fn visit_newtype_struct<D: Deserializer<'de>>(self, input: D) -> Result<Part, D::Error> {
                    de::Deserialize::deserialize(input).map(Part::Read)
                }

                fn visit_seq<A: SeqAccess<'de>>(self, mut places: A) -> Result<Part, A::Error> {
                    let mut place = || Ok(places.next_element()?.expect("two places"));
                    Ok(Part::Left(place()?, place()?))
                }
            }
            input.deserialize_newtype_struct(LEFT, Either)
        }
    }

    type Parts = (u8, Option<Part>, Vec<String>);

    #[test]
    fn an_object_is_left_unread_up_to_its_end() {
        for object in [
            "{}",
            "{ }",
            r#"{"a": [1, {"b": "}{]["}], "c": {}, "d": null}"#,
            "{\n    \"a\" :\t[ true,\n false ] }",
            "{\"a\": }",
            "{[}]",
            "{\"a\" \"b\" 1 , ,}",
            "{\"\u{1}\"}",
        ] {
            for text in [format!("[1, {object} , [\"x\"]]"), format!("[1,{object},[\"x\"]]")] {
                let Some((1, Some(Part::Left(from, to)), rest)) = read_leaving::<Parts>(&text, "wanted")
                else {
                    panic!("{text}");
                };
                assert_eq!((&text[from..to], rest), (object, vec!["x".to_owned()]), "{text}");
                // Whoever reads all reads it, too, or says what is wrong.
                let whole = serde_json::from_str::<Value>(object).ok().map(Part::Read);
                assert_eq!(read::<Parts>(&text).map(|(_, part, _)| part), whole.map(Some), "{text}");
            }
        }
    }

    #[test]
    fn what_has_no_end_is_not_left() {
        for text in [
            "[1, {, [\"x\"]]",
            "[1, {\"a\": [}, [\"x\"]]",
            "[1, {\"a, [\"x\"]]",
            "[1, {}}, [\"x\"]]",
            "[1, {} {}, [\"x\"]]",
            "[1, {",
        ] {
            assert_eq!(read_leaving::<Parts>(text, "wanted"), None, "{text}");
        }
    }

    #[test]
    fn an_object_with_a_wanted_string_or_an_escape_is_read() {
        let part = |object: &str| {
            let text = format!("[1, {object}, []]");
            read_leaving::<Parts>(&text, "wanted").and_then(|(_, part, _)| part)
        };
        for object in
            [r#"{"a": ["b", "wanted"]}"#, r#"{"wanted": 1}"#, r#"{"a": "want\u0065d"}"#, r#"{"\n": []}"#]
        {
            assert_eq!(part(object), Some(Part::Read(serde_json::from_str(object).unwrap())), "{object}");
        }
        assert!(matches!(part(r#"{"a": "wanted "}"#), Some(Part::Left(..))));
        assert_eq!(part("null"), None);
        assert_eq!(part("7"), Some(Part::Read(7.into())));
    }

    #[test]
    fn names_of_properties_are_taken_in_any_case() {
        let wanted = Limits {
            page_size: "2MB".into(),
            limit: Some(3),
            unified: [("Memory.High".to_owned(), "1".to_owned())].into(),
            inner: vec![Limits { limit: Some(4), ..Limits::default() }],
        };
        for (names, quick) in [
            (["pageSize", "limit", "unified", "inner", "limit"], true),
            (["pagesize", "limit", "unified", "inner", "limit"], false),
            (["pageSize", "limit", "unified", "inner", "LIMIT"], false),
            (["PageSize", "LIMIT", "UNIFIED", "Inner", "Limit"], false),
            (["PageSi\\u007ae", "li\\u006dit", "Unifi\\u0065d", "inner", "limi\\u0054"], false),
        ] {
            let [page, limit, unified, inner, below] = names;
            let text = format!(
                r#"{{"a": {{"limit": [7]}}, "{page}": "2MB", "{limit}": 3, "{unified}": {{"Memory.High": "1"}},
                    "{inner}": [{{"{below}": 4, "Other": {{"LIMIT": [1]}}}}], "limits": null}}"#
            );
            assert_eq!(read(&text).as_ref(), quick.then_some(&wanted), "{text}");
            assert_eq!(from_str::<Limits>(&text).unwrap(), wanted, "{text}");
        }
    }

    #[test]
    fn a_name_that_comes_twice_counts_twice() {
        let both = |text: &str| {
            assert_eq!(read::<Limits>(text), None);
            from_str::<Limits>(text).unwrap()
        };
        let limit = |limit| Limits { limit: Some(limit), ..Limits::default() };
        for text in [
            r#"{"limit": 1, "limit": 2}"#,
            r#"{"limit": 1, "Limit": 2}"#,
            r#"{"LIMIT": 1, "inner": [], "other": 1.5, "Limit": 2}"#,
        ] {
            assert_eq!(both(text), limit(2), "{text}");
        }
        let text = r#"{"unified": {"a": "1", "b": "2"}, "inner": [{"limit": 1}], "Unified": { }, "limit": 3,
            "UNIFIED": {"b": "}{", "A": "4"}, "Inner": [{"limit": 5, "Limit": 6}]}"#;
        let unified =
            [("A", "4"), ("a", "1"), ("b", "}{")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(both(text), Limits { unified: unified.into(), inner: vec![limit(6)], ..limit(3) });
        // What is wrong besides is not said: where it stands is not known any more.
        let words = from_str::<Limits>(r#"{"limit": 1, "limit": "x"}"#).unwrap_err().to_string();
        assert_eq!(words, "duplicate field `limit` at line 1 column 21");
    }

    #[test]
    fn what_is_wrong_behind_a_name_in_another_case_is_refused_with_its_place() {
        let words = from_str::<Limits>("{\n\"LIMIT\": \"3\"}").unwrap_err().to_string();
        assert_eq!(words, "invalid type: string \"3\", expected u64 at line 2 column 12");
        assert!(from_str::<Limits>("{} {}").unwrap_err().to_string().starts_with("trailing characters"));
    }
}
