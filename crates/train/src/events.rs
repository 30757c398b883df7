//! TensorBoard's event files: records with checksums, each an `Event` in protocol buffers.
//!
//! Written from
//! <https://github.com/tensorflow/tensorboard/blob/master/tensorboard/compat/proto/event.proto> and
//! the TFRecord format beside it.

/// A measure at a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Scalar {
    /// The time of the measurement, in seconds since 1970.
    pub time: f64,
    /// The step.
    pub step: u64,
    /// The name of the measure.
    pub name: String,
    /// The value.
    pub value: f64,
}

/// Encodes an event file.
#[must_use]
pub fn event_file(scalars: &[Scalar]) -> Vec<u8> {
    let mut file = Vec::new();
    let time = scalars.first().map_or(0.0, |scalar| scalar.time);
    record(&mut file, &[double(1, time), bytes(3, b"brain.Event:2")].concat());
    for Scalar { time, step, name, value } in scalars {
        let value = bytes(1, &[bytes(1, name.as_bytes()), float(2, *value as f32)].concat());
        record(&mut file, &[double(1, *time), integer(2, *step), bytes(5, &value)].concat());
    }
    file
}

/// Appends a record: length, its checksum, data, its checksum.
fn record(file: &mut Vec<u8>, data: &[u8]) {
    let length = (data.len() as u64).to_le_bytes();
    file.extend(length);
    file.extend(masked(&length).to_le_bytes());
    file.extend(data);
    file.extend(masked(data).to_le_bytes());
}

/// The masked checksum of TFRecord: rotated and offset, because a CRC of data that contains CRCs is
/// weak.
fn masked(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli), bit by bit.
fn crc32c(data: &[u8]) -> u32 {
    let byte = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 })
    };
    !data.iter().fold(!0, byte)
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn key(field: u64, kind: u64) -> Vec<u8> {
    varint(field << 3 | kind)
}

fn integer(field: u64, value: u64) -> Vec<u8> {
    [key(field, 0), varint(value)].concat()
}

fn double(field: u64, value: f64) -> Vec<u8> {
    [key(field, 1), value.to_le_bytes().to_vec()].concat()
}

fn bytes(field: u64, value: &[u8]) -> Vec<u8> {
    [key(field, 2), varint(value.len() as u64), value.to_vec()].concat()
}

fn float(field: u64, value: f32) -> Vec<u8> {
    [key(field, 5), value.to_le_bytes().to_vec()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        // The check value of RFC 3720 and of the catalogues of CRCs.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn records_are_framed() {
        let scalar = Scalar { time: 1.5, step: 300, name: "loss".into(), value: 0.25 };
        let file = event_file(&[scalar]);
        let first = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        let second = &file[12 + first + 4..];
        let length = u64::from_le_bytes(second[..8].try_into().unwrap()) as usize;
        assert_eq!(second.len(), 12 + length + 4);
        let data = &second[12..12 + length];
        assert_eq!(data[..9], double(1, 1.5));
        assert_eq!(data[9..12], [16, 0xac, 2]);
        assert!(data.windows(4).any(|window| window == b"loss"));
    }
}
