use proptest::prelude::*;

use super::tensor_entry::GGML_TYPES;
use super::*;
use crate::format::Format;

/// A writer of small files, including faulty ones.
#[derive(Clone, Default)]
struct Writer {
    entries: Vec<Vec<u8>>,
    places: Vec<Vec<u8>>,
    data: usize,
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

impl Writer {
    fn entry(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        self.entries.push([&string(key), kind.to_le_bytes().as_slice(), value].concat());
        self
    }

    fn tensor(mut self, name: &str, shape: &[u64], ggml_type: u32, offset: u64) -> Self {
        let dimensions = shape.iter().flat_map(|dimension| dimension.to_le_bytes()).collect::<Vec<_>>();
        let length = (shape.len() as u32).to_le_bytes();
        let place = [length.as_slice(), &dimensions, &ggml_type.to_le_bytes(), &offset.to_le_bytes()].concat();
        self.places.push([string(name), place].concat());
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let counts = [self.places.len() as u64, self.entries.len() as u64];
        let mut bytes = [b"GGUF".as_slice(), &3u32.to_le_bytes()].concat();
        bytes.extend(counts.iter().flat_map(|count| count.to_le_bytes()));
        bytes.extend(self.entries.concat());
        bytes.extend(self.places.concat());
        bytes.resize(bytes.len().next_multiple_of(32) + self.data, 0);
        bytes
    }

    fn message(&self) -> String {
        parse("m.gguf", &self.bytes().into()).unwrap_err().to_string()
    }
}

fn small() -> Writer {
    let strings = [8u32.to_le_bytes().as_slice(), &2u64.to_le_bytes(), &string("a"), &string("é")].concat();
    let mut writer = Writer::default()
        .entry("general.name", 8, &string("small"))
        .entry("general.alignment", 4, &32u32.to_le_bytes())
        .entry("tokens", 9, &strings)
        .entry("f", 6, &0.5f32.to_le_bytes())
        .tensor("t", &[32, 2], 8, 0)
        .tensor("u", &[4], 0, 96);
    writer.data = 112;
    writer
}

#[test]
fn a_small_file_is_read_in_place() {
    let bytes = small().bytes().into();
    let container = parse("m.gguf", &bytes).unwrap();
    assert_eq!(format!("{:?}", container.tensors), "[t Q8_0 [2, 32], u F32 [4]]");
    let Value::Array(tokens) = container.metadata["tokens"] else { panic!("an array") };
    assert_eq!(tokens.values().collect::<Vec<_>>(), [Value::String("a"), Value::String("é")]);
    assert_eq!(container.metadata["f"], Value::Float(0.5));
}

#[test]
fn every_fault_is_named() {
    let cases = [
        (small().tensor("t", &[32], 8, 0), "tensor `t`: it is defined twice"),
        (small().entry("f", 6, &[0; 4]), "key `f`: it is defined twice"),
        (
            Writer::default().entry("general.alignment", 4, &[0; 4]),
            "`general.alignment`: must be a power of two of at least 8",
        ),
        (Writer::default().entry("general.alignment", 4, &[24, 0, 0, 0]), "power of two"),
        (small().tensor("w", &[32], 8, 7), "tensor `w`: its offset 7 is not a multiple of the alignment 32"),
        (small().tensor("w", &[32], 8, 1 << 40), "tensor `w`: must begin at offset 128, where the tensor before it"),
        (small().tensor("w", &[32], 8, 96), "tensor `w`: must begin at offset 128"),
        (small().tensor("w", &[32], 8, u64::MAX - 31), "tensor `w`: must begin at offset 128"),
        (small().tensor("w", &[32], 8, 128), "data: the tensors take 192 bytes with padding, the file has 112"),
        (Writer { data: 1000, ..small() }, "data: the tensors take 128 bytes with padding, the file has 1000"),
        (small().tensor("w", &[32, 1 << 40, 1 << 40], 8, 128), "which exceeds any memory"),
        (small().tensor("w", &[1 << 40, 1 << 30], 26, 128), "which exceeds any memory"),
        (small().tensor("w", &[u64::MAX, 2], 0, 128), "tensor `w`"),
        (small().tensor("w", &[33], 8, 128), "rows of 33 values, which is not a multiple of Q8_0 blocks of 32"),
        (small().tensor("w", &[], 0, 0), "1 to 4 dimensions, got 0"),
        (small().tensor("w", &[1, 1, 1, 1, 1], 0, 0), "1 to 4 dimensions, got 5"),
        (small().tensor("w", &[0, 1], 0, 0), "a dimension is 0"),
        (small().tensor("w", &[1], 99, 0), "type of tensor `w`: `ggml type 99` is not supported"),
        (small().tensor("w", &[256], 9, 0), "type of tensor `w`: `Q8_1` is not supported"),
        (small().entry("k", 99, &[]), "key `k`: value type 99 is unknown"),
        (small().entry("k", 7, &[2]), "key `k`: a boolean must be 0 or 1, got 2"),
        (small().entry("k", 8, &u64::MAX.to_le_bytes()), "key `k`: needs 18446744073709551615 bytes"),
        (
            small().entry("k", 9, &[&4u32.to_le_bytes()[..], &(1u64 << 60).to_le_bytes()].concat()),
            "key `k`: an array of",
        ),
        (small().entry("k", 9, &[9, 0, 0, 0]), "key `k`: an array of arrays"),
        (small().entry("k", 8, &[1, 0, 0, 0, 0, 0, 0, 0, 0xff]), "key `k`: a string is not UTF-8"),
    ];
    for (writer, expected) in cases {
        let message = writer.message();
        assert!(message.starts_with("m.gguf: ") && message.contains(expected), "{message}\n  expected: {expected}");
    }
}

#[test]
fn any_change_of_a_type_or_an_offset_is_refused() {
    let file = |t: (u32, u64), u: (u32, u64)| {
        let writer = Writer::default().tensor("t", &[256, 2], t.0, t.1).tensor("u", &[256], u.0, u.1);
        Writer { data: 544 + 1024, ..writer }.bytes()
    };
    assert!(parse("m.gguf", &file((8, 0), (0, 544)).into()).is_ok());
    for kind in [0, 1, 2, 3, 6, 12, 14, 20, 24, 26, 30] {
        assert!(parse("m.gguf", &file((kind, 0), (0, 544)).into()).is_err(), "type {kind} of the first");
    }
    for kind in [1, 2, 3, 6, 8, 12, 14, 20, 24, 27, 30] {
        assert!(parse("m.gguf", &file((8, 0), (kind, 544)).into()).is_err(), "type {kind} of the last");
    }
    for (first, last) in [(32, 544), (0, 0), (0, 512), (0, 576), (544, 0)] {
        assert!(parse("m.gguf", &file((8, first), (0, last)).into()).is_err(), "offsets {first} and {last}");
    }
}

#[test]
fn arrays_of_any_length_take_no_time() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let array = [&4u32.to_le_bytes()[..], &(1u64 << 31).to_le_bytes()].concat();
    fs_err::write(file.path(), Writer::default().entry("k", 9, &array).bytes()).unwrap();
    file.as_file().set_len(10 << 30).unwrap();
    let message = parse("m.gguf", &Bytes::map(file.path()).unwrap()).unwrap_err().to_string();
    assert!(message.contains("key `k`: an array of 2147483648 values does not fit in 268435"), "{message}");
}

#[test]
fn hostile_headers_are_refused_before_any_allocation() {
    let with = |version: u32, tensors: u64, entries: u64| {
        let header = [&version.to_le_bytes()[..], &tensors.to_le_bytes(), &entries.to_le_bytes()].concat();
        let bytes = [b"GGUF".as_slice(), &header].concat();
        parse("m.gguf", &bytes.into()).unwrap_err().to_string()
    };
    assert!(with(3, u64::MAX, 0).contains("tensors and 0 metadata entries do not fit in 0 bytes"));
    assert!(with(3, 0, u64::MAX / 2).contains("do not fit"));
    assert!(with(1, 0, 0).contains("GGUF version `1` is not supported"));
    assert!(with(3u32.swap_bytes(), 0, 0).contains("`big-endian` is not supported"));
    assert!(
        parse("m.gguf", &b"PK\x03\x04".to_vec().into()).unwrap_err().to_string().contains("must begin with `GGUF`")
    );
    assert!(parse("m.gguf", &Vec::new().into()).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn no_change_of_bytes_panics(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
                                 cut in any::<prop::sample::Index>()) {
        let whole = small().bytes();
        let mut bytes = whole.clone();
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        let _ = parse("m.gguf", &bytes.into());
        let cut = cut.index(whole.len());
        prop_assert!(parse("m.gguf", &whole[..cut].to_vec().into()).is_err());
    }
}

#[test]
fn integers_are_passed_over_by_name() {
    let bytes = Writer { data: 136, ..small().tensor("positions", &[2], 26, 128) }.bytes().into();
    let container = parse("m.gguf", &bytes).unwrap();
    assert_eq!(container.tensors.len(), 2);
    assert!(container.unread["positions"].starts_with("has type I32, supported are F32"), "{:?}", container.unread);
}

#[test]
fn names_of_types_are_those_of_the_formats() {
    for (number, name) in GGML_TYPES.iter().enumerate() {
        if let Some(format) = Format::from_ggml_type(number as u32) {
            assert_eq!(format.to_string(), *name);
        }
    }
    assert_eq!(
        ["Q8_1", "IQ1_S", "TQ2_0"].map(|name| GGML_TYPES.iter().position(|it| *it == name)),
        [9, 19, 35].map(Some)
    );
}
