//! Writing the GGUF container that [`super::container`] reads: version 3, little-endian.

use std::io::{self, Write};

use super::container::MAGIC;
use crate::format::Format;

const VERSION: u32 = 3;
const ALIGNMENT: usize = 32;

/// A value of the metadata.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Entry {
    Unsigned(u32),
    Signed(i32),
    Float(f32),
    Bool(bool),
    Text(String),
    Array(Vec<Entry>),
}

impl Entry {
    /// Returns the number of the type in the file.
    fn kind(&self) -> u32 {
        match self {
            Self::Unsigned(_) => 4,
            Self::Signed(_) => 5,
            Self::Float(_) => 6,
            Self::Bool(_) => 7,
            Self::Text(_) => 8,
            Self::Array(_) => 9,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Unsigned(value) => out.extend(value.to_le_bytes()),
            Self::Signed(value) => out.extend(value.to_le_bytes()),
            Self::Float(value) => out.extend(value.to_le_bytes()),
            Self::Bool(value) => out.push(u8::from(*value)),
            Self::Text(text) => write_text(text, out),
            Self::Array(values) => {
                out.extend(values.first().map_or(8, Self::kind).to_le_bytes());
                out.extend((values.len() as u64).to_le_bytes());
                values.iter().for_each(|value| value.write(out));
            }
        }
    }
}

/// The header entry of a tensor.
#[derive(Clone, Debug)]
pub(super) struct Announced {
    pub(super) name: String,
    pub(super) format: Format,
    /// The dimensions, outermost first.
    pub(super) shape: Vec<usize>,
}

impl Announced {
    fn bytes(&self) -> usize {
        self.format.bytes_for(self.shape.iter().product()).unwrap_or(0)
    }
}

/// Makes the bytes before the data of the first tensor.
fn head(metadata: &[(String, Entry)], tensors: &[Announced]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(MAGIC);
    out.extend(VERSION.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        write_text(key, &mut out);
        out.extend(value.kind().to_le_bytes());
        value.write(&mut out);
    }
    let mut offset = 0;
    for tensor in tensors {
        write_text(&tensor.name, &mut out);
        out.extend((tensor.shape.len() as u32).to_le_bytes());
        tensor.shape.iter().rev().for_each(|&size| out.extend((size as u64).to_le_bytes()));
        out.extend(tensor.format.ggml_type().to_le_bytes());
        out.extend((offset as u64).to_le_bytes());
        offset = (offset + tensor.bytes()).next_multiple_of(ALIGNMENT);
    }
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
    out
}

/// Writes a file; `data` returns the bytes of a tensor by its index.
pub(super) fn write<E: From<io::Error>>(
    out: &mut impl Write,
    metadata: &[(String, Entry)],
    tensors: &[Announced],
    mut data: impl FnMut(usize) -> Result<Vec<u8>, E>,
) -> Result<(), E> {
    out.write_all(&head(metadata, tensors))?;
    for number in 0..tensors.len() {
        let mut bytes = data(number)?;
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        out.write_all(&bytes)?;
    }
    Ok(())
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}
