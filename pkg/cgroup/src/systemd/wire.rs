//! The part of D-Bus's wire format that talking to systemd needs, without I/O: little-endian messages, written from
//! [`Value`]s and read with every length checked.

use crate::systemd::property::Property;
use crate::systemd::value::Value;

pub(crate) const METHOD_CALL: u8 = 1;
pub(crate) const METHOD_RETURN: u8 = 2;
pub(crate) const ERROR: u8 = 3;
pub(crate) const SIGNAL: u8 = 4;

const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// Length of the part of a message that says how long the rest is.
pub(crate) const FIXED: usize = 16;
/// Longest message that is accepted. What we ask for is answered in a few hundred bytes.
pub(crate) const LONGEST: usize = 1 << 20;

/// Bytes of a message under construction; alignment counts from its beginning.
#[derive(Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    fn u32(&mut self, value: u32) {
        self.align(4);
        self.bytes.extend(value.to_le_bytes());
    }

    pub(crate) fn string(&mut self, value: &str) {
        self.u32(value.len() as u32);
        self.bytes.extend(value.as_bytes());
        self.bytes.push(0);
    }

    pub(crate) fn bool(&mut self, value: bool) {
        self.u32(value.into());
    }

    fn signature(&mut self, value: &str) {
        self.bytes.push(value.len() as u8);
        self.bytes.extend(value.as_bytes());
        self.bytes.push(0);
    }

    /// An array whose elements `fill` writes; `alignment` is that of an element.
    fn array(&mut self, alignment: usize, fill: impl FnOnce(&mut Self)) {
        self.u32(0);
        let length_at = self.bytes.len() - 4;
        self.align(alignment);
        let start = self.bytes.len();
        fill(self);
        let length = (self.bytes.len() - start) as u32;
        self.bytes[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Byte(n) => self.bytes.push(*n),
            Value::Bool(b) => self.bool(*b),
            Value::I32(n) => self.u32(*n as u32),
            Value::U32(n) => self.u32(*n),
            Value::I64(n) => {
                self.align(8);
                self.bytes.extend(n.to_le_bytes());
            }
            Value::U64(n) => {
                self.align(8);
                self.bytes.extend(n.to_le_bytes());
            }
            Value::Str(s) => self.string(s),
            Value::Array(element, items) => {
                let alignment = match element.as_bytes().first() {
                    Some(b'y') => 1,
                    Some(b'x' | b't' | b'(') => 8,
                    _ => 4,
                };
                self.array(alignment, |writer| items.iter().for_each(|item| writer.value(item)));
            }
            Value::Struct(fields) => {
                self.align(8);
                fields.iter().for_each(|field| self.value(field));
            }
        }
    }

    /// `a(sv)`
    pub(crate) fn properties<'a>(&mut self, properties: impl IntoIterator<Item = &'a Property>) {
        self.array(8, |writer| {
            for property in properties {
                writer.align(8);
                writer.string(&property.name);
                writer.signature(&property.value.signature());
                writer.value(&property.value);
            }
        });
    }

    /// An empty array of structures, such as StartTransientUnit's auxiliary units.
    pub(crate) fn no_structs(&mut self) {
        self.array(8, |_| {});
    }
}

/// What a method call is about.
pub(crate) struct Call<'a> {
    pub destination: &'a str,
    pub path: &'a str,
    pub interface: &'a str,
    pub member: &'a str,
    /// Of the arguments.
    pub signature: &'a str,
}

impl Call<'_> {
    /// The whole message.
    pub(crate) fn message(&self, serial: u32, body: Writer) -> Vec<u8> {
        let body = body.bytes;
        let mut out = Writer { bytes: vec![b'l', METHOD_CALL, 0, 1] };
        out.u32(body.len() as u32);
        out.u32(serial);
        out.array(8, |out| {
            for (code, signature, text) in [
                (PATH, "o", self.path),
                (INTERFACE, "s", self.interface),
                (MEMBER, "s", self.member),
                (DESTINATION, "s", self.destination),
                (SIGNATURE, "g", self.signature),
            ] {
                if text.is_empty() {
                    continue;
                }
                out.align(8);
                out.bytes.push(code);
                out.signature(signature);
                if signature == "g" { out.signature(text) } else { out.string(text) }
            }
        });
        out.align(8);
        out.bytes.extend(body);
        out.bytes
    }
}

/// Reads a message, or the body of one.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, at: 0 }
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(taken)
    }

    fn align(&mut self, to: usize) -> Option<()> {
        let target = self.at.next_multiple_of(to);
        self.take(target - self.at).map(drop)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.align(4)?;
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    pub(crate) fn string(&mut self) -> Option<&'a str> {
        let length = self.u32()? as usize;
        let text = std::str::from_utf8(self.take(length)?).ok()?;
        (self.byte()? == 0).then_some(text)
    }

    fn signature(&mut self) -> Option<&'a str> {
        let length = self.byte()?.into();
        let text = std::str::from_utf8(self.take(length)?).ok()?;
        (self.byte()? == 0).then_some(text)
    }

    /// A variant that holds a string.
    pub(crate) fn string_variant(&mut self) -> Option<&'a str> {
        if self.signature()? == "s" { self.string() } else { None }
    }
}

/// The length of a message from its first [`FIXED`] bytes; `None` if that is no message, or too long a one.
pub(crate) fn length(fixed: &[u8; FIXED]) -> Option<usize> {
    if fixed[0] != b'l' || fixed[3] != 1 {
        return None;
    }
    let number =
        |at: usize| u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]) as usize;
    let (body, fields) = (number(4), number(12));
    let total = FIXED.checked_add(fields)?.checked_next_multiple_of(8)?.checked_add(body)?;
    (total <= LONGEST).then_some(total)
}

/// A message that came in.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    pub kind: u8,
    pub serial: u32,
    pub reply_serial: u32,
    pub path: String,
    pub interface: String,
    pub member: String,
    pub error_name: String,
    pub signature: String,
    pub body: Vec<u8>,
}

impl Message {
    /// Takes a whole message apart; `None` if it is malformed.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Message> {
        let fixed: &[u8; FIXED] = bytes.get(..FIXED)?.try_into().ok()?;
        if length(fixed)? != bytes.len() {
            return None;
        }
        let body_length = u32::from_le_bytes(fixed[4..8].try_into().ok()?) as usize;
        let fields_length = u32::from_le_bytes(fixed[12..16].try_into().ok()?) as usize;
        let mut message = Message {
            kind: fixed[1],
            serial: u32::from_le_bytes(fixed[8..12].try_into().ok()?),
            body: bytes[bytes.len() - body_length..].to_vec(),
            ..Message::default()
        };
        // Alignment counts from the beginning of the message, so the fields are read in their place.
        let mut reader = Reader { bytes: &bytes[..FIXED + fields_length], at: FIXED };
        while reader.at < reader.bytes.len() {
            reader.align(8)?;
            message.field(&mut reader)?;
        }
        Some(message)
    }

    fn field(&mut self, reader: &mut Reader<'_>) -> Option<()> {
        let code = reader.byte()?;
        match reader.signature()? {
            "u" => {
                let value = reader.u32()?;
                if code == REPLY_SERIAL {
                    self.reply_serial = value;
                }
            }
            "g" => self.signature = reader.signature()?.to_owned(),
            "s" | "o" => {
                let value = reader.string()?.to_owned();
                match code {
                    PATH => self.path = value,
                    INTERFACE => self.interface = value,
                    MEMBER => self.member = value,
                    ERROR_NAME => self.error_name = value,
                    _ => {}
                }
            }
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A message as a peer would send it.
    pub(crate) fn reply(kind: u8, fields: &[(u8, &str, &str)], reply_serial: u32, body: Writer) -> Vec<u8> {
        let body = body.bytes;
        let mut out = Writer { bytes: vec![b'l', kind, 1, 1] };
        out.u32(body.len() as u32);
        out.u32(77);
        out.array(8, |out| {
            if reply_serial != 0 {
                out.align(8);
                out.bytes.push(REPLY_SERIAL);
                out.signature("u");
                out.u32(reply_serial);
            }
            for (code, signature, text) in fields {
                out.align(8);
                out.bytes.push(*code);
                out.signature(signature);
                if *signature == "g" { out.signature(text) } else { out.string(text) }
            }
        });
        out.align(8);
        out.bytes.extend(body);
        out.bytes
    }

    pub(crate) fn error(name: &str, text: &str, reply_serial: u32) -> Vec<u8> {
        let mut body = Writer::default();
        body.string(text);
        reply(ERROR, &[(ERROR_NAME, "s", name), (SIGNATURE, "g", "s")], reply_serial, body)
    }

    pub(crate) fn job_removed(job: &str, unit: &str, result: &str) -> Vec<u8> {
        let mut body = Writer::default();
        body.u32(1);
        for text in [job, unit, result] {
            body.string(text);
        }
        let fields = [
            (PATH, "o", "/org/freedesktop/systemd1"),
            (INTERFACE, "s", "org.freedesktop.systemd1.Manager"),
            (MEMBER, "s", "JobRemoved"),
            (SIGNATURE, "g", "uoss"),
        ];
        reply(SIGNAL, &fields, 0, body)
    }

    pub(crate) fn returns(signature: &str, text: &str, reply_serial: u32) -> Vec<u8> {
        let mut body = Writer::default();
        match signature {
            "v" => {
                body.signature("s");
                body.string(text);
            }
            "" => {}
            _ => body.string(text),
        }
        reply(METHOD_RETURN, &[(SIGNATURE, "g", signature)], reply_serial, body)
    }

    // Counted by hand: fields of 34, 41, 16, 33 and 7 bytes, each but the last padded to 8.
    #[test]
    fn a_call_has_the_bytes_that_dbus_specifies() {
        let mut body = Writer::default();
        body.string("a.scope");
        let call = Call {
            destination: "org.freedesktop.systemd1",
            path: "/org/freedesktop/systemd1",
            interface: "org.freedesktop.systemd1.Manager",
            member: "GetUnit",
            signature: "s",
        };
        let bytes = call.message(2, body);
        assert_eq!(&bytes[..16], b"l\x01\x00\x01\x0c\x00\x00\x00\x02\x00\x00\x00\x97\x00\x00\x00");
        assert_eq!(&bytes[16..24], b"\x01\x01o\x00\x19\x00\x00\x00");
        assert_eq!(bytes.len() % 8, 12 % 8);
        assert!(bytes.ends_with(b"\x08\x01g\x00\x01s\x00\x00\x07\x00\x00\x00a.scope\x00"), "{bytes:?}");
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(message.member, "GetUnit");
        assert_eq!(message.signature, "s");
        assert_eq!(Reader::new(&message.body).string(), Some("a.scope"));
    }

    #[test]
    fn properties_are_aligned_structures() {
        let mut body = Writer::default();
        body.properties(&[
            Property::new("A", true),
            Property::new("Bc", 7u64),
            Property { name: "D".into(), value: "[('x', 'rw')]".parse().unwrap(), since: 0 },
        ]);
        let mut expected = Vec::new();
        expected.extend(b"\x58\x00\x00\x00\0\0\0\0"); // length, padding to 8
        expected.extend(b"\x01\0\0\0A\0\x01b\0\0\0\0\x01\0\0\0"); // A: b true
        expected.extend(b"\x02\0\0\0Bc\0\x01t\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0"); // Bc: t 7, aligned to 8
        expected.extend(b"\x01\0\0\0D\0\x05a(ss)\0\0\0\0\x0f\0\0\0"); // D: the array's length
        expected.extend(b"\0\0\0\0"); // padding to 8
        expected.extend(b"\x01\0\0\0x\0\0\0\x02\0\0\0rw\0");
        // Fill in what the array's padding makes of the lengths.
        let length = (expected.len() - 8) as u32;
        expected[..4].copy_from_slice(&length.to_le_bytes());
        assert_eq!(body.bytes, expected);
    }

    #[test]
    fn malformed_messages_are_told_apart() {
        let good = job_removed("/job/1", "a.scope", "done");
        assert!(Message::parse(&good).is_some());
        for end in 0..good.len() {
            assert_eq!(Message::parse(&good[..end]), None, "cut at {end}");
        }
        let mut big = *<&[u8; FIXED]>::try_from(&good[..FIXED]).unwrap();
        big[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(length(&big), None);
        big[0] = b'B';
        assert_eq!(length(&big), None);
        // A string that claims to be longer than the message.
        let mut lying = good.clone();
        lying[20..24].copy_from_slice(&0x7fff_fff0u32.to_le_bytes());
        assert_eq!(Message::parse(&lying), None);
    }
}
