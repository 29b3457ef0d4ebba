//! Names of properties in any case, as Go reads them.
//!
//! Go's JSON takes `"Limit"`, and even `"LIMIT"`, for the property that the runtime-spec calls `limit`. Who writes configs by hand or by
//! template has seen runc take such a name; and what an engine in Go has looked at and let pass must not be a property for the engine
//! and none for the runtime. Names of objects that are maps (annotations, sysctl) are left as they are, as Go leaves them.
//!
//! A property that comes twice counts twice, too: objects are taken together, of other values the last one holds.

use serde::Deserialize;
use serde::de::value::StringDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, Visitor,
};
use serde_json::de::IoRead;
use serde_json::value::RawValue;
use std::fmt;
use std::io::Cursor;
use std::marker::PhantomData;

/// By serde_json. With `merge` properties may come twice.
pub(crate) fn read<T: DeserializeOwned>(text: &str, merge: bool) -> serde_json::Result<T> {
    let mut input = Input::from_reader(Cursor::new(text.to_owned()));
    let value = T::deserialize(Names { inner: &mut input, fields: &[], merge })?;
    input.end()?;
    Ok(value)
}

/// Of one kind for whole documents and for what lives no longer than a moment, which cannot be borrowed from: each kind is 150 kB of code.
type Input = serde_json::Deserializer<IoRead<Cursor<String>>>;

/// The field that `name` stands for although it is not written like it. Letters of ASCII only, as all names of the runtime-spec are; Go
/// would also take the Kelvin sign for a `k`.
#[cold]
pub(crate) fn meant(name: &str, fields: &[&'static str]) -> Option<&'static str> {
    let field = fields.iter().find(|field| field.eq_ignore_ascii_case(name));
    field.copied().filter(|_| !fields.contains(&name))
}

/// A part of what reads a document by serde, in front of which the names of structs' fields are put right: a deserializer, a visitor, a
/// seed, or the access to a sequence or a map.
struct Names<T> {
    inner: T,
    /// What an object that comes now may hold; nothing for one that is a map.
    fields: &'static [&'static str],
    merge: bool,
}

impl<T> Names<T> {
    /// The same around another part.
    fn around<P>(&self, inner: P) -> Names<P> {
        Names { inner, fields: &[], merge: self.merge }
    }
}

macro_rules! forward {
    ($($method:ident($($argument:ident: $type:ty),*);)*) => {
        $(fn $method<V: Visitor<'de>>(self, $($argument: $type,)* visitor: V) -> Result<V::Value, D::Error> {
            let visitor = self.around(visitor);
            self.inner.$method($($argument,)* visitor)
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Names<D> {
    type Error = D::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = Names { fields, ..self.around(visitor) };
        self.inner.deserialize_struct(name, fields, visitor)
    }

    forward! {
        deserialize_any();
        deserialize_bool();
        deserialize_i8();
        deserialize_i16();
        deserialize_i32();
        deserialize_i64();
        deserialize_u8();
        deserialize_u16();
        deserialize_u32();
        deserialize_u64();
        deserialize_f32();
        deserialize_f64();
        deserialize_char();
        deserialize_str();
        deserialize_string();
        deserialize_bytes();
        deserialize_byte_buf();
        deserialize_option();
        deserialize_unit();
        deserialize_unit_struct(name: &'static str);
        deserialize_newtype_struct(name: &'static str);
        deserialize_seq();
        deserialize_tuple(length: usize);
        deserialize_tuple_struct(name: &'static str, length: usize);
        deserialize_map();
        deserialize_enum(name: &'static str, variants: &'static [&'static str]);
        deserialize_identifier();
        deserialize_ignored_any();
    }
}

macro_rules! visit {
    ($($method:ident($type:ty);)*) => {
        $(fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.inner.$method(value)
        })*
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Names<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    visit! {
        visit_bool(bool);
        visit_i64(i64);
        visit_u64(u64);
        visit_f64(f64);
        visit_str(&str);
        visit_borrowed_str(&'de str);
        visit_string(String);
        visit_bytes(&[u8]);
        visit_borrowed_bytes(&'de [u8]);
        visit_byte_buf(Vec<u8>);
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, input: D) -> Result<V::Value, D::Error> {
        let input = self.around(input);
        self.inner.visit_some(input)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, input: D) -> Result<V::Value, D::Error> {
        let input = self.around(input);
        self.inner.visit_newtype_struct(input)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<V::Value, A::Error> {
        let items = self.around(items);
        self.inner.visit_seq(items)
    }

    fn visit_map<A: MapAccess<'de>>(self, items: A) -> Result<V::Value, A::Error> {
        if self.merge && !self.fields.is_empty() {
            let items =
                Merged { left: merged(items, self.fields)?.into_iter(), value: None, error: PhantomData };
            return self.inner.visit_map(items);
        }
        let items = Names { fields: self.fields, ..self.around(items) };
        self.inner.visit_map(items)
    }

    /// The enums of the runtime-spec are words, with nothing inside.
    fn visit_enum<A: EnumAccess<'de>>(self, variant: A) -> Result<V::Value, A::Error> {
        self.inner.visit_enum(variant)
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Names<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<S::Value, D::Error> {
        let input = self.around(input);
        self.inner.deserialize(input)
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Names<A> {
    type Error = A::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, A::Error> {
        let seed = self.around(seed);
        self.inner.next_element_seed(seed)
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Names<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        if self.fields.is_empty() {
            return self.inner.next_key_seed(seed);
        }
        self.inner.next_key_seed(Key { seed, fields: self.fields })
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        let seed = self.around(seed);
        self.inner.next_value_seed(seed)
    }
}

/// The seed of a struct's key.
struct Key<K> {
    seed: K,
    fields: &'static [&'static str],
}

impl<'de, K: DeserializeSeed<'de>> DeserializeSeed<'de> for Key<K> {
    type Value = K::Value;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<K::Value, D::Error> {
        let name = String::deserialize(input)?;
        let name = meant(&name, self.fields).map_or(name, str::to_owned);
        self.seed.deserialize(StringDeserializer::new(name))
    }
}

/// A struct's properties with the texts of their values, those of one name together, in the order of the last ones.
fn merged<'de, A: MapAccess<'de>>(
    mut items: A,
    fields: &[&'static str],
) -> Result<Vec<(String, String)>, A::Error> {
    let mut all: Vec<(String, String)> = Vec::new();
    while let Some(name) = items.next_key::<String>()? {
        let name = meant(&name, fields).map_or(name, str::to_owned);
        let value = items.next_value::<Box<RawValue>>()?;
        let before = all.iter().position(|(known, _)| *known == name).map(|at| all.remove(at).1);
        let value = before
            .and_then(|before| together(&before, value.get()))
            .unwrap_or_else(|| value.get().to_owned());
        all.push((name, value));
    }
    Ok(all)
}

/// Two objects as one, whose names may come twice again.
fn together(one: &str, other: &str) -> Option<String> {
    let inside = |text: &str| Some(text.trim().strip_prefix('{')?.strip_suffix('}')?.trim().to_owned());
    let parts = [inside(one)?, inside(other)?];
    let parts: Vec<&str> = parts.iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
    Some(format!("{{{}}}", parts.join(",")))
}

/// The access to such a struct.
struct Merged<E> {
    left: std::vec::IntoIter<(String, String)>,
    value: Option<String>,
    error: PhantomData<E>,
}

impl<'de, E: Error> MapAccess<'de> for Merged<E> {
    type Error = E;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, E> {
        let Some((name, value)) = self.left.next() else { return Ok(None) };
        self.value = Some(value);
        seed.deserialize(StringDeserializer::new(name)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, E> {
        let text = self.value.take().unwrap_or_default();
        let mut input = Input::from_reader(Cursor::new(text));
        Names { inner: seed, fields: &[], merge: true }.deserialize(&mut input).map_err(E::custom)
    }
}
