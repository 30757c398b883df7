//! Values of the metadata.

use super::cursor::{CUT, Cursor};
use crate::error::Result;

/// A value of the metadata.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    String(&'a str),
    Array(Array<'a>),
}

/// An array of values of one type, checked to be within the file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Array<'a> {
    kind: Kind,
    count: usize,
    bytes: &'a [u8],
}

impl<'a> Array<'a> {
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Returns the values. Parsing has checked every string, so the iterator never ends early.
    pub(crate) fn values(self) -> impl Iterator<Item = Value<'a>> {
        let mut cursor = Cursor { file: "", bytes: self.bytes, position: 0 };
        (0..self.count).map_while(move |_| cursor.value(self.kind, "").ok())
    }
}

/// The type of a value, in the order of the numbers in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

use Kind::{
    Array as ArrayKind, Bool as BoolKind, F32, F64, I8, I16, I32, I64, String as StringKind, U8, U16, U32, U64,
};
const KINDS: [Kind; 13] = [U8, I8, U16, I16, U32, I32, F32, BoolKind, StringKind, ArrayKind, U64, I64, F64];

impl Kind {
    /// The bytes of a value, of a type whose values are any bytes of one length.
    fn bytes(self) -> Option<u64> {
        match self {
            U8 | I8 => Some(1),
            U16 | I16 => Some(2),
            U32 | I32 | F32 => Some(4),
            U64 | I64 | F64 => Some(8),
            BoolKind | StringKind | ArrayKind => None,
        }
    }
}

impl<'a> Cursor<'a, '_> {
    fn kind(&mut self, at: &str) -> Result<Kind> {
        let number = self.u32(at)?;
        KINDS.get(number as usize).copied().ok_or_else(|| self.fault(at, format!("value type {number} is unknown")))
    }

    pub(super) fn entry(&mut self) -> Result<(&'a str, Value<'a>)> {
        let key = self.name("metadata key")?;
        let at = format!("key `{key}`");
        let kind = self.kind(&at)?;
        Ok((key, self.value(kind, &at)?))
    }

    fn value(&mut self, kind: Kind, at: &str) -> Result<Value<'a>> {
        Ok(match kind {
            U8 => Value::Unsigned(u8::from_le_bytes(self.array(at)?).into()),
            U16 => Value::Unsigned(u16::from_le_bytes(self.array(at)?).into()),
            U32 => Value::Unsigned(self.u32(at)?.into()),
            U64 => Value::Unsigned(self.u64(at)?),
            I8 => Value::Signed(i8::from_le_bytes(self.array(at)?).into()),
            I16 => Value::Signed(i16::from_le_bytes(self.array(at)?).into()),
            I32 => Value::Signed(i32::from_le_bytes(self.array(at)?).into()),
            I64 => Value::Signed(i64::from_le_bytes(self.array(at)?)),
            F32 => Value::Float(f32::from_le_bytes(self.array(at)?).into()),
            F64 => Value::Float(f64::from_le_bytes(self.array(at)?)),
            BoolKind => match self.array(at)? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                [other] => return Err(self.fault(at, format!("a boolean must be 0 or 1, got {other}"))),
            },
            StringKind => Value::String(self.string(at)?),
            ArrayKind => Value::Array(self.values(at)?),
        })
    }

    fn values(&mut self, at: &str) -> Result<Array<'a>> {
        let kind = self.kind(at)?;
        if kind == ArrayKind {
            return Err(self.fault(at, "an array of arrays is not supported"));
        }
        let count = self.u64(at)?;
        if count > self.remaining() {
            let reason = format!("an array of {count} values does not fit in {} bytes{CUT}", self.remaining());
            return Err(self.fault(at, reason));
        }
        let start = self.position;
        match kind.bytes() {
            // Any bytes are a number, so one step takes all values.
            Some(bytes) => drop(self.take(count.saturating_mul(bytes), at)?),
            None => (0..count).try_for_each(|_| self.value(kind, at).map(drop))?,
        }
        Ok(Array { kind, count: count as usize, bytes: &self.bytes[start..self.position] })
    }
}
