//! One description of each message, two ways to write it: protocol buffers, and JSON as etcd's gateway has it.
//!
//! By hand because both are needed of the same fields, and JSON as that gateway writes it (numbers of 64 bits and bytes as
//! text, zeros left out, names as in the definition) is no library's default. Promises that reading never panics, goes no
//! deeper than [`DEPTH_MAX`], and allocates no more than the input holds.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number, Value};
use std::str::FromStr;
use std::sync::Arc;

/// Messages in messages: far more than transactions may be nested.
const DEPTH_MAX: usize = 40;

/// Bytes of a message.
pub(crate) type Blob = Arc<[u8]>;

/// Why a message could not be read; for whoever sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(pub(crate) String);

fn malformed<T>(what: &str) -> Result<T, Malformed> {
    Err(Malformed(what.to_owned()))
}

/// A field as protocol buffers write it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Of four or eight bytes, which no field of ours has.
    Fixed,
}

pub(crate) trait Message: Default + Sized {
    fn write(&self, out: &mut Vec<u8>);
    fn take(&mut self, number: u32, wire: Wire<'_>, depth: usize) -> Result<(), Malformed>;
    fn show(&self, out: &mut Map<String, Value>);
    /// False: there is no field of this name.
    fn hear(&mut self, name: &str, value: Value, depth: usize) -> Result<bool, Malformed>;

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        read(bytes, DEPTH_MAX)
    }

    fn to_json(&self) -> Value {
        let mut out = Map::new();
        self.show(&mut out);
        Value::Object(out)
    }

    fn from_json(value: Value) -> Result<Self, Malformed> {
        parse(value, DEPTH_MAX)
    }
}

/// What a field may be.
pub(crate) trait Field {
    /// Writes the field, or nothing where it has its default.
    fn put(&self, number: u32, out: &mut Vec<u8>);
    fn take(&mut self, wire: Wire<'_>, depth: usize) -> Result<(), Malformed>;
    fn show(&self) -> Option<Value>;
    fn hear(&mut self, value: Value, depth: usize) -> Result<(), Malformed>;
}

/// Declares messages: number, name and type of each field, and its name in JSON where that differs.
macro_rules! messages {
    ($($name:ident { $($number:literal $field:ident $($json:literal)?: $type:ty),* $(,)? })*) => { $(
        #[derive(Debug, Clone, Default, PartialEq)]
        pub(crate) struct $name { $(pub(crate) $field: $type,)* }

        impl crate::codec::Message for $name {
            fn write(&self, _out: &mut Vec<u8>) {
                $(crate::codec::Field::put(&self.$field, $number, _out);)*
            }

            fn take(
                &mut self,
                number: u32,
                _wire: crate::codec::Wire<'_>,
                _depth: usize,
            ) -> Result<(), crate::codec::Malformed> {
                match number {
                    $($number => crate::codec::Field::take(&mut self.$field, _wire, _depth),)*
                    // A newer client's: left out, as protocol buffers ask.
                    _ => Ok(()),
                }
            }

            fn show(&self, _out: &mut serde_json::Map<String, serde_json::Value>) {
                $(if let Some(value) = crate::codec::Field::show(&self.$field) {
                    let name = crate::codec::chosen(stringify!($field), &[$($json)?]);
                    _out.insert(name.to_owned(), value);
                })*
            }

            fn hear(
                &mut self,
                name: &str,
                _value: serde_json::Value,
                _depth: usize,
            ) -> Result<bool, crate::codec::Malformed> {
                $(if crate::codec::is_called(crate::codec::chosen(stringify!($field), &[$($json)?]), name) {
                    crate::codec::Field::hear(&mut self.$field, _value, _depth)?;
                    return Ok(true);
                })*
                let _ = name;
                Ok(false)
            }
        }
    )* };
}

/// Declares enumerations: the first is the default.
macro_rules! choices {
    ($($name:ident { $($variant:ident = $number:literal $text:literal),* $(,)? })*) => { $(
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub(crate) enum $name { #[default] $($variant = $number,)* }

        impl crate::codec::Choice for $name {
            const ALL: &'static [($name, u64, &'static str)] = &[$(($name::$variant, $number, $text),)*];
        }
    )* };
}

pub(crate) use {choices, messages};

pub(crate) fn chosen(field: &'static str, json: &[&'static str]) -> &'static str {
    json.first().copied().unwrap_or(field)
}

/// Whether `given` is the field's name, or the same in camel case.
pub(crate) fn is_called(name: &str, given: &str) -> bool {
    if name == given {
        return true;
    }
    let mut upper = false;
    let camel = name.chars().filter_map(|character| {
        if character == '_' {
            upper = true;
            return None;
        }
        Some(if std::mem::take(&mut upper) { character.to_ascii_uppercase() } else { character })
    });
    camel.eq(given.chars())
}

fn read<M: Message>(bytes: &[u8], depth: usize) -> Result<M, Malformed> {
    let Some(depth) = depth.checked_sub(1) else { return malformed("messages are nested too deep") };
    let mut message = M::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        let number = u32::try_from(key >> 3).ok().filter(|number| *number > 0);
        let Some(number) = number else { return malformed("a field has no number") };
        let wire = match key & 7 {
            0 => Wire::Number(varint(&mut rest)?),
            1 => skip(&mut rest, 8)?,
            2 => {
                let length = usize::try_from(varint(&mut rest)?).unwrap_or(usize::MAX);
                let (head, tail) = rest.split_at_checked(length).ok_or_else(ends_early)?;
                rest = tail;
                Wire::Bytes(head)
            }
            5 => skip(&mut rest, 4)?,
            _ => return malformed("a field is of an unknown kind"),
        };
        message.take(number, wire, depth)?;
    }
    Ok(message)
}

fn skip<'a>(rest: &mut &[u8], length: usize) -> Result<Wire<'a>, Malformed> {
    *rest = rest.get(length..).ok_or_else(ends_early)?;
    Ok(Wire::Fixed)
}

fn ends_early() -> Malformed {
    Malformed("the message ends early".to_owned())
}

fn varint(rest: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0;
    for position in 0..10 {
        let (byte, tail) = rest.split_first().ok_or_else(ends_early)?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << (7 * position);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    malformed("a number is too long")
}

fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    loop {
        let low = u8::try_from(value & 0x7f).expect("seven bits fit");
        value >>= 7;
        if value == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

fn write_number(number: u32, value: u64, out: &mut Vec<u8>) {
    if value != 0 {
        write_varint(u64::from(number) << 3, out);
        write_varint(value, out);
    }
}

fn write_bytes(number: u32, value: &[u8], out: &mut Vec<u8>) {
    write_varint(u64::from(number) << 3 | 2, out);
    write_varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

fn parse<M: Message>(value: Value, depth: usize) -> Result<M, Malformed> {
    let Some(depth) = depth.checked_sub(1) else { return malformed("messages are nested too deep") };
    let mut message = M::default();
    let fields = match value {
        Value::Object(fields) => fields,
        Value::Null => Map::new(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => return malformed("not an object"),
    };
    for (name, value) in fields {
        if !value.is_null() && !message.hear(&name, value, depth)? {
            // Left out it would be as if it had not been said: a range that ends nowhere.
            return Err(Malformed(format!("unknown field {name:?}")));
        }
    }
    Ok(message)
}

/// A number of 64 bits is text in JSON (protobuf's JSON mapping), and may be a number.
fn long<T: FromStr>(value: &Value, read: fn(&Number) -> Option<T>) -> Result<T, Malformed> {
    let found = match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => read(number),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    found.ok_or_else(|| Malformed(format!("{value} is not a number of 64 bits")))
}

impl Field for i64 {
    fn put(&self, number: u32, out: &mut Vec<u8>) {
        write_number(number, self.cast_unsigned(), out);
    }

    fn take(&mut self, wire: Wire<'_>, depth: usize) -> Result<(), Malformed> {
        let mut value = 0u64;
        value.take(wire, depth)?;
        *self = value.cast_signed();
        Ok(())
    }

    fn show(&self) -> Option<Value> {
        (*self != 0).then(|| Value::String(self.to_string()))
    }

    fn hear(&mut self, value: Value, _depth: usize) -> Result<(), Malformed> {
        *self = long(&value, Number::as_i64)?;
        Ok(())
    }
}

impl Field for u64 {
    fn put(&self, number: u32, out: &mut Vec<u8>) {
        write_number(number, *self, out);
    }

    fn take(&mut self, wire: Wire<'_>, _depth: usize) -> Result<(), Malformed> {
        match wire {
            Wire::Number(value) => *self = value,
            Wire::Bytes(_) | Wire::Fixed => return malformed("a number is of another kind"),
        }
        Ok(())
    }

    fn show(&self) -> Option<Value> {
        (*self != 0).then(|| Value::String(self.to_string()))
    }

    fn hear(&mut self, value: Value, _depth: usize) -> Result<(), Malformed> {
        *self = long(&value, Number::as_u64)?;
        Ok(())
    }
}

impl Field for bool {
    fn put(&self, number: u32, out: &mut Vec<u8>) {
        write_number(number, u64::from(*self), out);
    }

    fn take(&mut self, wire: Wire<'_>, depth: usize) -> Result<(), Malformed> {
        let mut value = 0u64;
        value.take(wire, depth)?;
        *self = value != 0;
        Ok(())
    }

    fn show(&self) -> Option<Value> {
        self.then_some(Value::Bool(true))
    }

    fn hear(&mut self, value: Value, _depth: usize) -> Result<(), Malformed> {
        *self = value.as_bool().ok_or_else(|| Malformed(format!("{value} is neither true nor false")))?;
        Ok(())
    }
}

impl Field for Blob {
    fn put(&self, number: u32, out: &mut Vec<u8>) {
        if !self.is_empty() {
            write_bytes(number, self, out);
        }
    }

    fn take(&mut self, wire: Wire<'_>, _depth: usize) -> Result<(), Malformed> {
        *self = Arc::from(bytes(wire)?);
        Ok(())
    }

    fn show(&self) -> Option<Value> {
        (!self.is_empty()).then(|| Value::String(STANDARD.encode(self)))
    }

    fn hear(&mut self, value: Value, _depth: usize) -> Result<(), Malformed> {
        let found = value.as_str().and_then(|text| STANDARD.decode(text).ok());
        *self = Arc::from(found.ok_or_else(|| Malformed("bytes are not base64".to_owned()))?);
        Ok(())
    }
}

fn bytes(wire: Wire<'_>) -> Result<&[u8], Malformed> {
    match wire {
        Wire::Bytes(bytes) => Ok(bytes),
        Wire::Number(_) | Wire::Fixed => malformed("bytes are of another kind"),
    }
}

impl Field for String {
    fn put(&self, number: u32, out: &mut Vec<u8>) {
        if !self.is_empty() {
            write_bytes(number, self.as_bytes(), out);
        }
    }

    fn take(&mut self, wire: Wire<'_>, _depth: usize) -> Result<(), Malformed> {
        let text = std::str::from_utf8(bytes(wire)?);
        text.map_err(|_| Malformed("text is not utf-8".to_owned()))?.clone_into(self);
        Ok(())
    }

    fn show(&self) -> Option<Value> {
        (!self.is_empty()).then(|| Value::String(self.clone()))
    }

    fn hear(&mut self, value: Value, _depth: usize) -> Result<(), Malformed> {
        match value {
            Value::String(text) => *self = text,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                return Err(Malformed(format!("{value} is not text")));
            }
        }
        Ok(())
    }
}

/// What may be missing: a message, or one of several.
impl<M: Message> Field for Option<M> {
    fn put(&self, number: u32, out: &mut Vec<u8>) {
        if let Some(message) = self {
            let mut inner = Vec::new();
            message.write(&mut inner);
            write_bytes(number, &inner, out);
        }
    }

    fn take(&mut self, wire: Wire<'_>, depth: usize) -> Result<(), Malformed> {
        *self = Some(read(bytes(wire)?, depth)?);
        Ok(())
    }

    fn show(&self) -> Option<Value> {
        self.as_ref().map(Message::to_json)
    }

    fn hear(&mut self, value: Value, depth: usize) -> Result<(), Malformed> {
        *self = Some(parse(value, depth)?);
        Ok(())
    }
}

/// A transaction holds operations, which hold transactions.
impl<M: Message> Message for Box<M> {
    fn write(&self, out: &mut Vec<u8>) {
        M::write(self, out);
    }

    fn take(&mut self, number: u32, wire: Wire<'_>, depth: usize) -> Result<(), Malformed> {
        M::take(self, number, wire, depth)
    }

    fn show(&self, out: &mut Map<String, Value>) {
        M::show(self, out);
    }

    fn hear(&mut self, name: &str, value: Value, depth: usize) -> Result<bool, Malformed> {
        M::hear(self, name, value, depth)
    }
}

impl<M: Message> Field for Vec<M> {
    fn put(&self, number: u32, out: &mut Vec<u8>) {
        let mut inner = Vec::new();
        for message in self {
            inner.clear();
            message.write(&mut inner);
            write_bytes(number, &inner, out);
        }
    }

    fn take(&mut self, wire: Wire<'_>, depth: usize) -> Result<(), Malformed> {
        self.push(read(bytes(wire)?, depth)?);
        Ok(())
    }

    fn show(&self) -> Option<Value> {
        (!self.is_empty()).then(|| self.iter().map(Message::to_json).collect())
    }

    fn hear(&mut self, value: Value, depth: usize) -> Result<(), Malformed> {
        *self = items(value)?.into_iter().map(|item| parse(item, depth)).collect::<Result<_, _>>()?;
        Ok(())
    }
}

fn items(value: Value) -> Result<Vec<Value>, Malformed> {
    match value {
        Value::Array(items) => Ok(items),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            malformed("not a list")
        }
    }
}

/// A list of plain values.
macro_rules! list {
    ($type:ty) => {
        impl Field for Vec<$type> {
            fn put(&self, number: u32, out: &mut Vec<u8>) {
                for value in self {
                    // An empty one counts too.
                    write_bytes(number, value.as_ref(), out);
                }
            }

            fn take(&mut self, wire: Wire<'_>, depth: usize) -> Result<(), Malformed> {
                let mut value = <$type>::default();
                value.take(wire, depth)?;
                self.push(value);
                Ok(())
            }

            fn show(&self) -> Option<Value> {
                let item = |value: &$type| value.show().unwrap_or_else(|| Value::String(String::new()));
                (!self.is_empty()).then(|| self.iter().map(item).collect())
            }

            fn hear(&mut self, value: Value, depth: usize) -> Result<(), Malformed> {
                for item in items(value)? {
                    let mut value = <$type>::default();
                    value.hear(item, depth)?;
                    self.push(value);
                }
                Ok(())
            }
        }
    };
}
list!(String);
list!(Blob);

/// An enumeration.
pub(crate) trait Choice: Copy + Default + PartialEq + 'static {
    const ALL: &'static [(Self, u64, &'static str)];

    fn entry(self) -> (u64, &'static str) {
        let found = Self::ALL.iter().find(|(choice, ..)| *choice == self);
        found.map(|(_, number, name)| (*number, *name)).expect("all are listed")
    }

    fn of_number(number: u64) -> Result<Self, Malformed> {
        let found = Self::ALL.iter().find(|(_, other, _)| *other == number).map(|(choice, ..)| *choice);
        found.ok_or_else(|| Malformed(format!("{number} is none of the choices")))
    }

    fn of_json(value: &Value) -> Result<Self, Malformed> {
        let found = Self::ALL.iter().find(|(_, number, name)| {
            value.as_str().is_some_and(|given| given == *name) || value.as_u64().is_some_and(|given| given == *number)
        });
        found.map(|(choice, ..)| *choice).ok_or_else(|| Malformed(format!("{value} is none of the choices")))
    }
}

/// One of a [`Choice`], as a field.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct One<C>(pub(crate) C);

impl<C: Choice> Field for One<C> {
    fn put(&self, number: u32, out: &mut Vec<u8>) {
        write_number(number, self.0.entry().0, out);
    }

    fn take(&mut self, wire: Wire<'_>, depth: usize) -> Result<(), Malformed> {
        let mut number = 0u64;
        number.take(wire, depth)?;
        self.0 = C::of_number(number)?;
        Ok(())
    }

    fn show(&self) -> Option<Value> {
        (self.0 != C::default()).then(|| Value::String(self.0.entry().1.to_owned()))
    }

    fn hear(&mut self, value: Value, _depth: usize) -> Result<(), Malformed> {
        self.0 = C::of_json(&value)?;
        Ok(())
    }
}

/// Several of a [`Choice`], as a field: one by one or packed.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Several<C>(pub(crate) Vec<C>);

impl<C: Choice> Field for Several<C> {
    fn put(&self, number: u32, out: &mut Vec<u8>) {
        if !self.0.is_empty() {
            let mut packed = Vec::new();
            self.0.iter().for_each(|choice| write_varint(choice.entry().0, &mut packed));
            write_bytes(number, &packed, out);
        }
    }

    fn take(&mut self, wire: Wire<'_>, _depth: usize) -> Result<(), Malformed> {
        match wire {
            Wire::Number(number) => self.0.push(C::of_number(number)?),
            Wire::Bytes(mut packed) => {
                while !packed.is_empty() {
                    self.0.push(C::of_number(varint(&mut packed)?)?);
                }
            }
            Wire::Fixed => return malformed("a choice is of another kind"),
        }
        Ok(())
    }

    fn show(&self) -> Option<Value> {
        let names = self.0.iter().map(|choice| Value::String(choice.entry().1.to_owned()));
        (!self.0.is_empty()).then(|| names.collect())
    }

    fn hear(&mut self, value: Value, _depth: usize) -> Result<(), Malformed> {
        self.0 = items(value)?.iter().map(C::of_json).collect::<Result<_, _>>()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::{
        Compare, CompareResult, CompareTarget, DeleteRangeRequest, Event, EventType, Filter, KeyValue, PutRequest,
        RangeRequest, RequestOp, SortOrder, TxnRequest, WatchCreateRequest, WatchRequest, WatchResponse,
    };
    use proptest::prelude::*;
    use serde_json::json;

    /// Both ways of writing come back as what was written.
    fn check<M: Message + PartialEq + std::fmt::Debug>(message: &M) {
        let mut bytes = Vec::new();
        message.write(&mut bytes);
        assert_eq!(M::decode(&bytes).as_ref(), Ok(message));
        assert_eq!(M::from_json(message.to_json()).as_ref(), Ok(message));
        for end in 0..bytes.len() {
            // Cut anywhere it is another message or none, and never a panic.
            let _ = M::decode(&bytes[..end]);
        }
    }

    fn deep(levels: usize) -> TxnRequest {
        (0..levels).fold(TxnRequest::default(), |inner, _| TxnRequest {
            success: vec![RequestOp { request_txn: Some(Box::new(inner)), ..RequestOp::default() }],
            ..TxnRequest::default()
        })
    }

    #[test]
    fn messages_are_written_as_etcd_writes_them() {
        let put = PutRequest {
            key: b"a".as_slice().into(),
            value: b"bc".as_slice().into(),
            lease: 300,
            ..Default::default()
        };
        let mut bytes = Vec::new();
        put.write(&mut bytes);
        assert_eq!(bytes, [0x0a, 1, b'a', 0x12, 2, b'b', b'c', 0x18, 0xac, 0x02]);
        assert_eq!(put.to_json(), json!({"key": "YQ==", "value": "YmM=", "lease": "300"}));
        let asked = json!({"key": "YQ==", "rangeEnd": "Yg==", "sort_order": "DESCEND", "limit": 3, "keysOnly": true});
        let read = RangeRequest::from_json(asked).expect("either name, either way to write a number");
        assert_eq!((read.limit, read.sort_order.0, read.keys_only), (3, SortOrder::Descend, true));
        assert!(RangeRequest::from_json(json!({"range_ends": "Yg=="})).is_err(), "what is not known is not left out");
        assert!(RangeRequest::from_json(json!({"limit": 1.5})).is_err());
        let negative = LeaseNegative { id: -5 };
        check(&negative);
    }

    crate::codec::messages! { LeaseNegative { 1 id "ID": i64 } }

    #[test]
    fn unknown_fields_are_skipped_and_depth_has_an_end() {
        // Field 100 of each kind, then the key.
        let bytes = [0xa0, 6, 1, 0xa1, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0xa2, 6, 1, 9, 0xa5, 6, 0, 0, 0, 0, 0x0a, 1, b'k'];
        assert_eq!(PutRequest::decode(&bytes).map(|put| put.key.to_vec()), Ok(b"k".to_vec()));
        check(&deep(10));
        let mut bytes = Vec::new();
        deep(1_000).write(&mut bytes);
        assert!(TxnRequest::decode(&bytes).is_err());
    }

    fn blob() -> impl Strategy<Value = Blob> {
        proptest::collection::vec(any::<u8>(), 0..20).prop_map(Blob::from)
    }

    proptest! {
        #[test]
        fn transactions_and_watches_come_back(
            keys in proptest::collection::vec((blob(), blob(), any::<i64>(), any::<bool>()), 0..6),
        ) {
            let mut txn = TxnRequest::default();
            let mut answer = WatchResponse::default();
            for (key, value, number, flag) in keys {
                let compare = Compare {
                    result: One(if flag { CompareResult::Less } else { CompareResult::Equal }),
                    target: One(CompareTarget::Mod), key: key.clone(), mod_revision: number, range_end: value.clone(),
                    ..Compare::default()
                };
                txn.compare.push(compare);
                let put = PutRequest { key: key.clone(), value: value.clone(), lease: number, prev_kv: flag, ..Default::default() };
                let gone = DeleteRangeRequest { key: key.clone(), range_end: value.clone(), prev_kv: flag };
                txn.success.push(RequestOp { request_put: Some(put), ..RequestOp::default() });
                txn.failure.push(RequestOp { request_delete_range: Some(gone), ..RequestOp::default() });
                let kv = KeyValue { key: key.clone(), value: value.clone(), version: number, ..KeyValue::default() };
                let kind = One(if flag { EventType::Delete } else { EventType::Put });
                answer.events.push(Event { kind, kv: Some(kv), prev_kv: None });
                let create = WatchCreateRequest {
                    key, range_end: value, start_revision: number, filters: Several(vec![Filter::NoPut, Filter::NoDelete]),
                    ..WatchCreateRequest::default()
                };
                check(&WatchRequest { create_request: Some(create), ..WatchRequest::default() });
            }
            check(&txn);
            check(&answer);
        }

        #[test]
        fn no_bytes_and_no_text_are_a_panic(bytes: Vec<u8>, text: String) {
            let _ = TxnRequest::decode(&bytes);
            let _ = WatchRequest::decode(&bytes);
            let _ = RangeRequest::decode(&bytes);
            if let Ok(value) = serde_json::from_str::<Value>(&text) {
                let _ = TxnRequest::from_json(value);
            }
        }

        /// Mangled in a few places, as an attacker would.
        #[test]
        fn mangled_messages_are_no_panic(places in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..8)) {
            let mut bytes = Vec::new();
            deep(5).write(&mut bytes);
            let length = bytes.len();
            for (at, byte) in places {
                bytes[at % length] = byte;
            }
            let _ = TxnRequest::decode(&bytes);
        }
    }
}
